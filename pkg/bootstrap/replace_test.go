package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/plan"
)

// graves are the former lives of servers, which etcd still knows, and what left
// etcd and Kubernetes.
type graves struct {
	buried      []*testServer
	departed    []string
	expelled    []string                 // instances whose rows were removed
	answersLost map[agent.LeaveStep]bool // what was done comes through, the answer does not
	pods        map[string][]plan.Pod    // on a node
}

// reborn gives a server that is off another life under the same name, address and
// hardware.
func (w *world) reborn(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.named(name)
	delete(w.servers, old.inst)
	w.graves.buried = append(w.graves.buried, old)
	i := int(old.address.As4()[3] / 2)
	w.add(name, i)
	s := w.named(name)
	delete(w.servers, s.inst)
	s.inst = fmt.Sprintf("%032x", 900+i)
	s.key += "-anew"
	s.state, _, _ = election.Settle(nil, election.FromSpec(w.cluster.Spec), s.state.Hardware, s.inst)
	w.servers[s.inst] = s
}

// etcdAnswers says whether the etcd of former lives runs, which gossip cannot see.
func (w *world) etcdAnswers(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.graves.buried {
		s.running = yes
	}
}

// etcdVoters are the servers whose etcd votes, living and dead.
func (w *world) etcdVoters() []*testServer {
	all := slices.Clone(w.graves.buried)
	for _, s := range w.servers {
		all = append(all, s)
	}
	all = slices.DeleteFunc(all, func(s *testServer) bool { return !s.promoted })
	slices.SortFunc(all, func(a, b *testServer) int { return strings.Compare(a.inst, b.inst) })
	return all
}

func (s *testServer) EtcdMembers(context.Context) ([]plan.EtcdMember, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	var out []plan.EtcdMember
	for _, x := range s.world.etcdVoters() {
		m := plan.EtcdMember{ID: uint64(x.address.As4()[3]), Name: x.name, Address: x.address, Healthy: x.running}
		if m.Learner = s.behind == x.name; m.Learner && !s.knowsLearner {
			continue
		}
		out = append(out, m)
	}
	if x := s.world.learner; x != nil {
		out = append(out, plan.EtcdMember{ID: uint64(x.address.As4()[3]), Address: x.address, Learner: true})
	}
	return out, nil
}

func (s *testServer) RemoveEtcdMember(_ context.Context, id uint64) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if x := s.world.learner; x != nil && uint64(x.address.As4()[3]) == id {
		s.world.learner = nil
		s.world.graves.departed = append(s.world.graves.departed, "learner of "+x.name)
	}
	for _, x := range s.world.etcdVoters() {
		if uint64(x.address.As4()[3]) == id {
			x.promoted = false
			s.world.graves.departed = append(s.world.graves.departed, "etcd of "+x.name)
		}
	}
	return nil
}

func (s *testServer) DeleteNode(_ context.Context, name string) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.graves.departed = append(s.world.graves.departed, "node "+name)
	return nil
}

func (s *testServer) Cordon(_ context.Context, node string) error {
	return s.world.note("cordon " + node)
}

func (s *testServer) Pods(_ context.Context, node string) ([]plan.Pod, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return slices.Clone(s.world.graves.pods[node]), nil
}

func (s *testServer) Evict(_ context.Context, p plan.Pod) error {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Name == "held" {
		return errors.New("the disruption budget web needs 2 healthy pods and has 2 currently")
	}
	for node, pods := range w.graves.pods {
		w.graves.pods[node] = slices.DeleteFunc(pods, func(x plan.Pod) bool { return x == p })
	}
	return nil
}

func (s *testServer) EndKubeVIP(context.Context) error { return nil }

func (s *testServer) Reset(context.Context) error {
	s.world.mu.Lock()
	s.healthy, s.nodeCA = false, ""
	s.world.mu.Unlock()
	return s.world.note("kubeadm reset of " + s.name)
}

// note writes into the list of what left.
func (w *world) note(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.graves.departed = append(w.graves.departed, text)
	return nil
}

// A server that was wiped waits for its name, and gets it back when an operator
// replaces its former life: any control plane, the first one too, and a worker.
func TestReplace(t *testing.T) {
	for _, c := range []struct {
		who  string // first, another control plane, or a worker
		pick func(w *world, name string) bool
	}{
		{"the first control plane", func(w *world, name string) bool { return name == w.inits[0] }},
		{"another control plane", func(w *world, name string) bool { return name[0] == 'c' && name != w.inits[0] }},
		{"a worker", func(_ *world, name string) bool { return name == "w1" }},
	} {
		t.Run(c.who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 1)
				defer w.shutdown()
				all := []string{"cp1", "cp2", "cp3", "w1"}
				for _, name := range all {
					w.boot(name)
				}
				w.formed(5*time.Minute, all...)
				victim := all[slices.IndexFunc(all, func(n string) bool { return c.pick(w, n) })]
				others := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == victim })
				operator := w.named(others[0]).server
				replace := func(yes bool) (string, error) {
					told, err := operator.Replace(t.Context(), yes, victim)
					return strings.Join(told, "\n"), err
				}
				if _, err := replace(true); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "is in sight") {
					t.Fatalf("while it runs: %v", err)
				}
				w.powerOff(victim)
				w.reborn(victim)
				w.boot(victim)
				w.until(5*time.Minute, "the new one to wait for its name", func() error {
					if st := w.named(victim).agent().board.read(); !strings.Contains(st.Problem, "name is taken") {
						return fmt.Errorf("it says %+v", st)
					}
					return nil
				})
				if victim[0] == 'c' {
					w.etcdAnswers(true)
					if _, err := replace(true); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "the etcd of "+victim) {
						t.Errorf("while its etcd answers, out of gossip's sight: %v", err)
					}
					w.etcdAnswers(false)
				}
				told, err := replace(false)
				if err != nil || !strings.Contains(told, "loses its node in Kubernetes") || strings.Contains(told, "2 voters are left") != (victim[0] == 'c') {
					t.Errorf("the plan: %v\n%s", err, told)
				}
				if len(w.graves.departed) > 0 {
					t.Fatalf("the plan did %q", w.graves.departed)
				}
				if _, err := replace(true); err != nil {
					t.Fatal(err)
				}
				want := []string{"node " + victim}
				if victim[0] == 'c' {
					want = []string{"etcd of " + victim, "node " + victim}
				}
				if diff := cmp.Diff(want, w.graves.departed); diff != "" {
					t.Errorf("what left (-want +got):\n%s", diff)
				}
				w.formed(5*time.Minute, all...)
				if planes, workers := w.roles(); planes != 3 || workers != 1 {
					t.Errorf("%d control planes and %d workers, expected 3 and 1", planes, workers)
				}
				if len(w.inits) != 1 {
					t.Errorf("kubeadm init ran on %q", w.inits)
				}
			})
		})
	}
}

// An operator's replacement takes the turn to join, as the one by itself does: nobody
// else changes etcd's members meanwhile.
func TestReplaceTakesTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := formedWorld(t, 3, 1)
		defer w.shutdown()
		w.powerOff("cp3")
		turn := func(inst string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.holder = inst
		}
		turn(w.named("w1").inst)
		operator := w.named("cp1").server
		_, err := operator.Replace(t.Context(), true, "cp3")
		if !errors.Is(err, agent.ErrNotReady) || !strings.HasPrefix(err.Error(), "w1 has the turn to join, in which nobody else changes the members of etcd") {
			t.Errorf("while another joins: %v", err)
		}
		if got := w.departedNow(); len(got) > 0 {
			t.Errorf("%q left while another joins", got)
		}
		turn("")
		if _, err := operator.Replace(t.Context(), true, "cp3"); err != nil || w.holder != "" {
			t.Errorf("replaced: %v; the turn is with %q", err, w.holder)
		}
		if diff := cmp.Diff([]string{"etcd of cp3", "node cp3"}, w.departedNow()); diff != "" {
			t.Errorf("what left (-want +got)\n%s", diff)
		}
	})
}

// With another control plane off, etcd would lose its majority.
func TestReplaceKeepsEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "cp3", "w1"} {
			w.boot(name)
		}
		w.formed(5*time.Minute, "cp1", "cp2", "cp3", "w1")
		w.powerOff("cp2")
		w.powerOff("cp3")
		_, err := w.named("cp1").server.Replace(t.Context(), true, "cp3")
		if !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "1 are healthy and 2 are needed; start first: cp2") {
			t.Errorf("%v, expected a refusal for etcd's sake", err)
		}
		if len(w.graves.departed) > 0 {
			t.Errorf("%q left", w.graves.departed)
		}
	})
}
