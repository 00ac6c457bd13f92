package bootstrap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// settled waits until as many servers are ready, and returns who is not.
func (w *world) settled(ready int, limit time.Duration) (waiting []string) {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) { // virtual: synctest
		waiting = nil
		for _, s := range w.servers {
			if s.agent() == nil || s.agent().board.read().Phase != member.Ready {
				waiting = append(waiting, s.name)
			}
		}
		if len(w.servers)-len(waiting) == ready {
			return waiting
		}
		if time.Since(began) > limit {
			w.t.Fatalf("after %s not ready: %v; expected %d that are", limit, waiting, ready)
		}
	}
}

// roles counts the rows.
func (w *world) roles() (controlPlanes, workers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, row := range w.rows {
		if row.Role == member.ControlPlane {
			controlPlanes++
		} else {
			workers++
		}
	}
	return controlPlanes, workers
}

// The founding user-data is on one server too many: N form the cluster, whoever
// comes last waits, is named where an operator looks, and comes in when approved.
func TestSurplusWaitsForApproval(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, 1)
			defer w.shutdown()
			w.add("w9", 7)
			all := []string{"cp1", "cp2", "cp3", "w1", "w9"}
			for _, name := range all {
				if late && name == "w9" {
					w.settled(4, 5*time.Minute)
				}
				w.boot(name)
			}
			waiting := w.settled(4, 5*time.Minute)
			pass(time.Minute)
			if again := w.settled(4, 0); !slices.Equal(waiting, again) || len(waiting) != 1 {
				t.Fatalf("late=%v: waiting %v, then %v; expected one", late, waiting, again)
			}
			extra := w.named(waiting[0])
			hw := extra.state.Hardware.HW
			if st := extra.server.Status(t.Context()); st.Phase != member.Enrolling || !strings.Contains(st.Problem, "expects 4") {
				t.Errorf("the surplus says: phase %s, problem %q", st.Phase, st.Problem)
			}
			operator := w.named(w.inits[0]).server
			want := fmt.Sprintf("bootstrap approve %s lets it in", hw)
			if st := operator.Status(t.Context()); !strings.Contains(st.Problem, want) {
				t.Errorf("the control plane says %q, expected %q", st.Problem, want)
			}
			told, err := operator.ApproveServer(t.Context(), false, hw)
			if err != nil || !strings.Contains(strings.Join(told, "\n"), extra.name+" (") || len(w.approved) > 0 {
				t.Errorf("the dry run: %q, %v, approved %v", told, err, w.approved)
			}
			if _, err := operator.ApproveServer(t.Context(), true, w.named(w.inits[0]).state.Hardware.HW); !errors.Is(err, agent.ErrRefused) {
				t.Errorf("a member is approved: %v", err)
			}
			if _, err := operator.ApproveServer(t.Context(), true, hw); err != nil {
				t.Fatal(err)
			}
			w.formed(5*time.Minute, all...)
			if cps, workers := w.roles(); cps != 3 || workers != 2 {
				t.Errorf("%d control planes and %d workers, expected 3 and 2", cps, workers)
			}
			if st := operator.Status(t.Context()); strings.Contains(st.Problem, want) {
				t.Errorf("named after it came in: %q", st.Problem)
			}
		})
	}
}

// reinstall gives a server another life on the same hardware.
func (w *world) reinstall(name, as string) {
	i := slices.IndexFunc([]string{"cp1", "w1", "w2"}, func(n string) bool { return n == name })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(as, i) // over the former one
	s := w.named(as)
	delete(w.servers, s.inst)
	s.inst = fmt.Sprintf("%032x", 900+i)
	s.state, _, _ = election.Settle(nil, election.FromSpec(w.cluster.Spec), s.state.Hardware, s.inst)
	w.servers[s.inst] = s
}

// A server that was reinstalled is not one more, and one with joining user-data
// needs no approval.
func TestNoSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		defer w.shutdown()
		for _, name := range []string{"cp1", "w1", "w2"} {
			w.boot(name)
		}
		w.formed(5*time.Minute, "cp1", "w1", "w2")
		w.powerOff("w2")
		w.reinstall("w2", "w3")
		w.boot("w3")
		w.formed(5*time.Minute, "cp1", "w1", "w3")
		from := agent.Caller{Inst: fmt.Sprintf("%032x", 990), HW: fmt.Sprintf("%032x", 991)}
		request := agent.RoleRequest{Name: "later", Address: w.named("w3").address, Joining: true}
		if reply, err := w.named("cp1").server.ClaimRole(t.Context(), from, request); err != nil || reply.Role != member.Worker {
			t.Errorf("with joining user-data: %q, %v", reply.Role, err)
		}
	})
}

// A row that was made again from its node alone has no certificate to revoke.
func TestRemovalOfAnUnknownInstance(t *testing.T) {
	m := member.Revoked{Inst: member.UnknownInst("w1"), HW: member.UnknownHW, Name: "w1"}
	for role, want := range map[member.Role]bool{member.Worker: true, member.NoRole: true} {
		told := strings.Join(removalTold(member.Removal{Member: m, Role: role}), "\n")
		if got := strings.Contains(told, "its certificate stays good"); got != want {
			t.Errorf("role %q: %s", role, told)
		}
	}
	m.HW = "1"
	if told := removalTold(member.Removal{Member: m}); len(told) != 2 || !strings.Contains(told[0], "was removed before") {
		t.Errorf("removed before: %q", told)
	}
}

// A removal is weighed first, and refused while the member's etcd votes.
func TestRemoveMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		all := []string{"cp1", "cp2", "cp3", "w1"}
		for _, name := range all {
			w.boot(name)
		}
		w.formed(5*time.Minute, all...)
		operator := w.named(w.inits[0]).server
		victim := "cp3"
		if w.inits[0] == victim {
			victim = "cp2"
		}
		remove := func(yes bool, name string) (string, error) {
			told, err := operator.Remove(t.Context(), yes, name)
			return strings.Join(told, "\n"), err
		}
		rows := func() int { cps, workers := w.roles(); return cps + workers }
		if _, err := remove(true, victim); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "the etcd of "+victim+" votes") || !strings.Contains(err.Error(), "etcdctl") {
			t.Errorf("its etcd votes: %v", err)
		}
		w.mu.Lock()
		w.named(victim).promoted = false
		w.mu.Unlock()
		told, err := remove(false, victim)
		for _, part := range []string{"a control-plane, loses", "of the directory, a voter, goes", "kubectl delete node " + victim, "DANGER: the directory has 2 voters", "DANGER: it held the keys", "DANGER: this instance never comes back"} {
			if !strings.Contains(told, part) {
				t.Errorf("the plan lacks %q: %s", part, told)
			}
		}
		if err != nil || rows() != 4 {
			t.Errorf("after the plan: %v, %d rows", err, rows())
		}
		if _, err := remove(true, victim); err != nil || rows() != 3 {
			t.Errorf("removed: %v, %d rows", err, rows())
		}
		told, err = remove(true, "w1")
		if err != nil || rows() != 2 || strings.Contains(told, "keys of all CAs") || strings.Contains(told, "voter") {
			t.Errorf("a worker: %v, %d rows, %s", err, rows(), told)
		}
		if _, err := remove(true, "w7"); !errors.Is(err, agent.ErrRefused) {
			t.Errorf("nobody: %v", err)
		}
		if _, err := w.named("w1").server.Remove(t.Context(), true, "cp1"); !errors.Is(err, agent.ErrNotReady) {
			t.Errorf("on a worker: %v", err)
		}
	})
}
