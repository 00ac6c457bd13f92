package bootstrap

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// says fails unless a server waits in a phase, with a sentence that holds text.
func (w *world) says(name string, phase member.Phase, text string) {
	w.t.Helper()
	st := w.named(name).agent.board.read()
	if st.Phase != phase || !strings.Contains(st.Waiting, text) {
		w.t.Errorf("%s: phase %s waits for %q, problem %q; expected phase %s and %q", name, st.Phase, st.Waiting, st.Problem, phase, text)
	}
}

// What went wrong beside the roll call and is over leaves no trace in what this
// server says it waits for.
func TestPreparationLeavesTheRollCallAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		w.named("cp1").prepareFails = 3
		w.boot("cp1")
		time.Sleep(500 * time.Millisecond) // virtual: synctest
		w.says("cp1", member.RollCall, "4 of 5 votes needed")
		if st := w.named("cp1").agent.board.read(); !strings.Contains(st.Problem, "swap is on") {
			t.Errorf("problem %q, expected the one of host preparation", st.Problem)
		}
		time.Sleep(time.Minute) // virtual
		w.says("cp1", member.RollCall, "4 of 5 votes needed")
		if st := w.named("cp1").agent.board.read(); st.Problem != "" {
			t.Errorf("problem %q after host preparation went well", st.Problem)
		}
	})
}

// A disk, an address or a port that is not ready yet is waited for, in sight.
func TestIdentityAndPortsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		cp1 := w.named("cp1")
		cp1.settleFails, cp1.connectFails = 2, 2
		w.boot("cp1")
		time.Sleep(100 * time.Millisecond) // virtual: synctest
		if st := cp1.agent.board.read(); st.Phase != member.Identity || !strings.Contains(st.Problem, "the disk says no") {
			t.Errorf("phase %s, problem %q", st.Phase, st.Problem)
		}
		time.Sleep(600 * time.Millisecond) // virtual
		if st := cp1.agent.board.read(); st.Phase != member.RollCall || !strings.Contains(st.Problem, "not on this server yet") {
			t.Errorf("phase %s, problem %q", st.Phase, st.Problem)
		}
		w.formed(time.Minute, "cp1")
	})
}

// go3 brings three control planes to GO, with kubeadm init under way on the
// leader, which it names.
func (w *world) go3() (leader string) {
	w.t.Helper()
	for _, name := range []string{"cp1", "cp2", "cp3"} {
		w.named(name).initBlocks = make(chan struct{})
		w.boot(name)
	}
	time.Sleep(10 * time.Second) // virtual: synctest
	d := w.named("cp1").agent.fence.read()
	if d.Phase != election.PhaseGo {
		w.t.Fatalf("after 10 s the phase is %s", d.Phase)
	}
	return d.Leader.Name
}

// Servers that wait for a first control plane say when it is gone.
func TestWaitersMissTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		leader := w.go3()
		other := map[string]string{"cp1": "cp2", "cp2": "cp1", "cp3": "cp1"}[leader]
		w.says(other, member.Waiting, "journalctl -u kubeadm-init")
		w.powerOff(leader)
		time.Sleep(time.Second) // virtual
		w.says(other, member.Waiting, leader+" was decided to build the first control plane and does not answer")
	})
}

// A GO holder that comes back alone touches nothing before enough others
// confirmed that it may go on, and says so, however far it was.
func TestReturnedHolderWaitsForConfirmation(t *testing.T) {
	for _, done := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, 0)
			defer w.shutdown()
			leader := w.go3()
			for _, name := range []string{"cp1", "cp2", "cp3"} {
				w.powerOff(name)
			}
			holder := w.named(leader)
			if done { // kubeadm init ended well, but nobody heard of it
				holder.journal["init"] = "done"
			}
			holder.initBlocks, holder.resumed = nil, 0
			w.boot(leader)
			time.Sleep(time.Minute) // virtual
			w.says(leader, member.Initialising, "it goes on when 2 of 3 servers confirm that, 1 did so far")
			if inits, _ := w.ledger(); holder.resumed > 0 || len(inits) > 0 {
				t.Errorf("done %t: resumed %d times, inits %v", done, holder.resumed, inits)
			}
			for _, name := range []string{"cp1", "cp2", "cp3"} {
				if name != leader {
					w.boot(name)
				}
			}
			w.formed(5*time.Minute, "cp1", "cp2", "cp3")
		})
	}
}

// With policy auto a clock that NTP does not keep is believed a minute after all
// else was ready, however the phases went meanwhile.
func TestClockIsBelievedAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		w.cluster.Spec.Time.Require = cluster.TimeAuto
		w.clockUnsynced = true
		w.boot("cp1")
		time.Sleep(50 * time.Second) // virtual: synctest
		w.boot("cp2")
		time.Sleep(20 * time.Second) // virtual
		if d := w.named("cp1").agent.fence.read(); d.Phase != election.PhaseGo && d.Phase != election.PhaseSealed {
			st := w.named("cp1").agent.board.read()
			t.Errorf("70 s after cp1 was ready: %s, waits for %q", d.Phase, st.Waiting)
		}
	})
}

// A node that Kubernetes no longer calls Ready is not shown as ready.
func TestReadyIsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		w.boot("cp1")
		w.formed(5*time.Minute, "cp1")
		w.mu.Lock()
		w.named("cp1").notReady = true
		w.mu.Unlock()
		time.Sleep(time.Minute) // virtual: synctest
		w.says("cp1", member.Waiting, "Kubernetes to call this node Ready")
		w.mu.Lock()
		w.named("cp1").notReady = false
		w.mu.Unlock()
		w.formed(10*time.Second, "cp1")
	})
}

// What a row can hold of a long sentence is in the row.
func TestLongDetailIsCut(t *testing.T) {
	long := strings.Repeat("ä", 2000)
	if got := cut(long); len(got) > 1024 || !strings.HasPrefix(long, strings.TrimSuffix(got, "…")) || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := cut("short"); got != "short" {
		t.Errorf("%q", got)
	}
}
