package bootstrap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// formedWorld boots servers and waits until they are a cluster.
func formedWorld(t *testing.T, planes, workers int) (w *world, all []string) {
	w = newWorld(t, planes, workers)
	for i := range planes {
		all = append(all, fmt.Sprintf("cp%d", i+1))
	}
	for i := range workers {
		all = append(all, fmt.Sprintf("w%d", i+1))
	}
	for _, name := range all {
		w.boot(name)
	}
	w.formed(5*time.Minute, all...)
	return w, all
}

// awaitLeft waits until a server says that it has left.
func (w *world) awaitLeft(name string) {
	w.until(5*time.Minute, name+" to have left", func() error {
		if st := w.named(name).agent().board.read(); st.Phase != member.Left || st.Waiting != leftText {
			return fmt.Errorf("it says %+v", st)
		}
		return nil
	})
}

// departedNow is what left so far.
func (w *world) departedNow() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.graves.departed)
}

// Whoever it is leaves in the right order, stays out through a reboot, and finds its
// place again after a reset.
func TestLeave(t *testing.T) {
	for _, c := range []struct {
		who  string
		pick func(w *world, name string) bool
	}{
		{"the first control plane", func(w *world, name string) bool { return name == w.inits[0] }},
		{"another control plane", func(w *world, name string) bool { return name[0] == 'c' && name != w.inits[0] }},
		{"a worker", func(_ *world, name string) bool { return name == "w1" }},
	} {
		t.Run(c.who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, all := formedWorld(t, 3, 1)
				defer w.shutdown()
				name := all[slices.IndexFunc(all, func(n string) bool { return c.pick(w, n) })]
				plane := name[0] == 'c'
				s := w.named(name)
				w.graves.pods = map[string][]plan.Pod{name: {
					{Namespace: "default", Name: "web", Owner: "ReplicaSet"}, {Namespace: "default", Name: "bare"},
					{Namespace: "kube-system", Name: "proxy", Owner: "DaemonSet"}, {Namespace: "kube-system", Name: "etcd", Static: true},
				}}
				told, err := s.server.Leaving(t.Context(), false, OrderLeave)
				text := strings.Join(told, "\n")
				if err != nil || !strings.Contains(text, "drained: 2 pods") || !strings.Contains(text, "starts the pod default/bare again") || strings.Contains(text, "2 voters are left") != plane {
					t.Fatalf("the plan: %v\n%s", err, text)
				}
				if got := w.departedNow(); len(got) > 0 {
					t.Fatalf("the plan did %q", got)
				}
				for round, want := range [][]string{{"default/web: ends", "default/bare: ends"}, {}} {
					left, err := s.server.Leaving(t.Context(), true, OrderDrain)
					if diff := cmp.Diff(want, left); err != nil || diff != "" {
						t.Fatalf("round %d of the drain: %v (-want +got)\n%s", round, err, diff)
					}
				}
				if _, err := s.server.Leaving(t.Context(), true, OrderLeave); err != nil {
					t.Fatal(err)
				}
				w.awaitLeft(name)
				want := []string{"cordon " + name, "cordon " + name, "kubeadm reset of " + name, "node " + name}
				if plane {
					want = slices.Insert(want, 2, "etcd of "+name)
				}
				if diff := cmp.Diff(want, w.departedNow()); diff != "" {
					t.Errorf("what left (-want +got):\n%s", diff)
				}
				if onLo, _ := s.Addresses(); len(onLo) > 0 || plane != s.directoryDown.Load() && plane {
					t.Errorf("on lo %v, the directory is down: %t", onLo, s.directoryDown.Load())
				}
				w.powerOff(name)
				w.boot(name)
				w.awaitLeft(name)
				others := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name })
				for _, other := range others {
					for _, p := range w.named(other).Peers() {
						if p.Inst == s.inst {
							t.Errorf("%s still sees %s", other, name)
						}
					}
				}
				w.formed(time.Minute, others...)
				w.powerOff(name) // bootstrap reset, and a reboot
				w.reborn(name)
				w.boot(name)
				w.formed(5*time.Minute, all...)
				if planes, workers := w.roles(); planes != 3 || workers != 1 {
					t.Errorf("%d control planes and %d workers, expected 3 and 1", planes, workers)
				}
			})
		})
	}
}

// Answers that are lost, and power that is lost at each step, end in the same.
func TestLeaveIsInterrupted(t *testing.T) {
	for _, step := range []agent.LeaveStep{agent.LeaveEtcd, agent.LeaveEnd} {
		t.Run(string(step), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := formedWorld(t, 3, 0)
				defer w.shutdown()
				w.graves.answersLost = map[agent.LeaveStep]bool{step: true}
				if _, err := w.named("cp2").server.Leaving(t.Context(), true, OrderLeave); err != nil {
					t.Fatal(err)
				}
				done := map[agent.LeaveStep]string{agent.LeaveEtcd: "etcd of cp2", agent.LeaveEnd: "node cp2"}[step]
				w.until(time.Minute, "the step to be done", func() error {
					if got := w.graves.departed; !slices.Contains(got, done) { // the world is locked
						return fmt.Errorf("%q left", got)
					}
					return nil
				})
				w.powerOff("cp2")
				w.mu.Lock()
				w.graves.answersLost = nil
				w.mu.Unlock()
				w.boot("cp2")
				w.awaitLeft("cp2")
				counts := map[string]int{}
				for _, what := range w.departedNow() {
					counts[what]++
				}
				if counts["etcd of cp2"] != 1 || counts["node cp2"] != 1 {
					t.Errorf("%v left, expected each once", counts)
				}
			})
		})
	}
}

// What etcd or the cluster cannot spare does not leave, and nothing is done.
func TestLeaveIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		planes int
		off    []string
		kind   error
		want   string
	}{
		{"the only control plane", 1, nil, agent.ErrRefused, "is the only control plane"},
		{"another of three is off", 3, []string{"cp3"}, agent.ErrRefused, "1 are healthy and 2 are needed; start first: cp3"},
		{"the other of two is off", 2, []string{"cp2"}, agent.ErrNotReady, "no other control plane answers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := formedWorld(t, c.planes, 1)
				defer w.shutdown()
				for _, name := range c.off {
					w.powerOff(name)
				}
				for _, yes := range []bool{false, true} {
					_, err := w.named("cp1").server.Leaving(t.Context(), yes, OrderLeave)
					if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
						t.Errorf("yes=%t: %v, expected %q", yes, err, c.want)
					}
				}
				if _, err := w.named("cp1").server.Leaving(t.Context(), true, "go"); err == nil {
					t.Error("an order that nobody knows is carried out")
				}
				if got := w.departedNow(); len(got) > 0 || w.named("cp1").Done(StepLeaving) {
					t.Errorf("%q left, and it is marked as leaving: %t", got, w.named("cp1").Done(StepLeaving))
				}
			})
		})
	}
}

// A pod that its budget keeps is named, and the server stays.
func TestLeaveDrainIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := formedWorld(t, 1, 1)
		defer w.shutdown()
		w.graves.pods = map[string][]plan.Pod{"w1": {{Namespace: "shop", Name: "held", Owner: "StatefulSet"}}}
		left, err := w.named("w1").server.Leaving(t.Context(), true, OrderDrain)
		if err != nil || len(left) != 1 || !strings.HasPrefix(left[0], "shop/held: the disruption budget") {
			t.Errorf("%q, %v", left, err)
		}
		w.formed(time.Minute, "cp1", "w1")
	})
}

// A node that an operator cordoned stays so through a reboot, and status says it.
func TestCordonedStaysCordoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := formedWorld(t, 1, 1)
		defer w.shutdown()
		if err := w.named("cp1").Cordon(t.Context(), "w1"); err != nil {
			t.Fatal(err)
		}
		cordoned := func() {
			t.Helper()
			w.until(time.Minute, "status to say that it is cordoned", func() error {
				if st := w.named("w1").agent().board.read(); !st.Cordoned || st.Phase != member.Ready {
					return fmt.Errorf("it says %+v", st)
				}
				return nil
			})
		}
		cordoned()
		w.powerOff("w1")
		w.boot("w1")
		w.formed(time.Minute, all...)
		cordoned()
		if w.named("cp1").agent().board.read().Cordoned {
			t.Error("the other is called cordoned, too")
		}
		if diff := cmp.Diff([]string{"cordon w1"}, w.departedNow()); diff != "" {
			t.Errorf("what was done (-want +got)\n%s", diff)
		}
	})
}

// A control plane whose join stopped for good keeps what it does for the others: its
// copy of the directory.
func TestStoppedKeepsTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.named(name).joinNever = true
			w.boot(name)
		}
		var s *testServer // whoever has the first turn to join
		w.until(5*time.Minute, "one of them to stop", func() error {
			for _, one := range w.servers {
				if a := one.agent(); a != nil && a.board.read().Phase == member.Stopped {
					s = one
					return nil
				}
			}
			return errors.New("none did")
		})
		time.Sleep(2 * time.Minute) // virtual
		if !s.agent().directory.Load() {
			t.Error("the directory of a server that stopped does not answer")
		}
	})
}
