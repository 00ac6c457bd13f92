package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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

// learn makes a server etcd's learner, if there is none. A member that was taken out
// does not start again with the data that it has.
func (s *testServer) learn(j plan.Join) error {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.learner == s, s.promoted:
		return nil
	case w.learner != nil:
		return errors.New("etcdserver: too many learner members in cluster")
	case s.etcdData && !j.EtcdGone:
		return errors.New("the member has been permanently removed from the cluster")
	}
	w.learner, s.etcdData = s, true
	return nil
}

func (s *testServer) EtcdHas(_ context.Context, _ string, address netip.Addr) (bool, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.behind = "" // the answer is the majority's, so its own etcd has heard it
	if l := s.world.learner; l != nil && l.address == address {
		return true, nil
	}
	return slices.ContainsFunc(s.world.etcdVoters(), func(x *testServer) bool { return x.address == address }), nil
}

// A control plane dies for good while it joins: its learner makes room when its turn
// was taken over. It was not gone, after all: it comes back and joins anew.
func TestLearnerOfALostTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.boot(name)
		}
		var dead *testServer
		w.until(5*time.Minute, "a learner", func() error {
			if dead = w.learner; dead == nil {
				return errors.New("there is none")
			}
			return nil
		})
		w.powerOff(dead.name)
		living := slices.DeleteFunc([]string{"cp1", "cp2", "cp3"}, func(n string) bool { return n == dead.name })
		pass(3 * time.Minute)
		w.mu.Lock()
		if w.learner != dead {
			t.Error("its learner left before its turn was over")
		}
		w.holder = "" // the directory takes the turn away; see its own tests
		w.mu.Unlock()
		w.formed(10*time.Minute, living...)
		if diff := cmp.Diff([]string{"learner of " + dead.name}, w.graves.departed); diff != "" {
			t.Errorf("what left (-want +got):\n%s", diff)
		}
		w.boot(dead.name)
		w.formed(10*time.Minute, "cp1", "cp2", "cp3")
		w.until(time.Minute, "three votes", func() error {
			if n := len(w.etcdVoters()); n != 3 || w.learner != nil {
				return fmt.Errorf("%d voters, learner %v", n, w.learner)
			}
			return nil
		})
	})
}

// That etcd knows no such member is asked before kubeadm runs, and counts only then: a
// kubeadm that outlived the agent may make one between question and answer.
func TestJoinThatOutlivedTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 0)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.boot(name)
		}
		w.formed(5*time.Minute, "cp1", "cp2", "cp3")
		late := w.named("cp4")
		late.etcdData, late.outlived = true, true
		w.boot("cp4")
		w.until(2*time.Minute, "kubeadm to be waited for", func() error {
			if st := late.agent().board.read(); !strings.Contains(st.Problem, "permanently removed") {
				return fmt.Errorf("it says %+v", st)
			}
			return nil
		})
		w.mu.Lock()
		if w.learner != nil {
			t.Error("it was started over while its kubeadm ran")
		}
		late.outlived = false
		w.mu.Unlock()
		w.formed(2*time.Minute, "cp1", "cp2", "cp3", "cp4")
	})
}

// The etcd of the control plane that is asked is behind: it calls the last voter a
// learner, or has not heard of it. Neither takes a voter's etcd away.
func TestEtcdIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := formedWorld(t, 3, 0)
		defer w.shutdown()
		cp1, cp3 := w.named("cp1"), w.named("cp3")
		cp1.behind, cp1.knowsLearner = "cp3", true
		if err := cp1.server.dropLearners(t.Context(), member.Member{Name: "cp4", Address: netip.MustParseAddr("10.0.0.99")}); err != nil {
			t.Error(err)
		}
		cp1.knowsLearner = false
		for _, step := range []agent.LeaveStep{agent.LeaveEtcd, agent.LeaveEnd} {
			cp1.behind = "cp3"
			_, err := cp1.server.Leave(t.Context(), agent.Caller{Inst: cp3.inst}, agent.LeaveRequest{Step: step})
			if !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), "the etcd here has not heard yet that cp3 is a member") {
				t.Errorf("%s: %v", step, err)
			}
		}
		if got := w.departedNow(); len(got) > 0 || len(w.etcdVoters()) != 3 {
			t.Errorf("%q left, %d voters", got, len(w.etcdVoters()))
		}
	})
}
