package bootstrap

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// says fails unless a server waits in a phase, with a sentence that holds text.
func (w *world) says(name string, phase member.Phase, text string) {
	w.t.Helper()
	st := w.named(name).agent().board.read()
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
		pass(500 * time.Millisecond)
		w.says("cp1", member.RollCall, "4 of 5 votes needed")
		if st := w.named("cp1").agent().board.read(); !strings.Contains(st.Problem, "swap is on") {
			t.Errorf("problem %q, expected the one of host preparation", st.Problem)
		}
		pass(time.Minute)
		w.says("cp1", member.RollCall, "4 of 5 votes needed")
		if st := w.named("cp1").agent().board.read(); st.Problem != "" {
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
		pass(100 * time.Millisecond)
		if st := cp1.agent().board.read(); st.Phase != member.Identity || !strings.Contains(st.Problem, "the disk says no") {
			t.Errorf("phase %s, problem %q", st.Phase, st.Problem)
		}
		pass(600 * time.Millisecond)
		if st := cp1.agent().board.read(); st.Phase != member.RollCall || !strings.Contains(st.Problem, "not on this server yet") {
			t.Errorf("phase %s, problem %q", st.Phase, st.Problem)
		}
		w.formed(time.Minute, "cp1")
	})
}

// pass lets virtual time go by, and what it brings happen: only Wait orders that
// before what the test reads next.
func pass(d time.Duration) {
	time.Sleep(d) // virtual: synctest
	synctest.Wait()
}

// status is what a server says of itself to the others and to a person.
func (w *world) status(name string) member.Status {
	return w.named(name).server.Status(w.t.Context())
}

// One server more than expected is named by all, although they may vote and have
// other problems; when it is gone, so is the sentence.
func TestSurplusIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		w.add("cp6", 5)
		all := []string{"cp1", "cp2", "cp3", "w1", "w2", "cp6"}
		for _, name := range all { // forms no cluster meanwhile
			w.named(name).prepareFails = 1000
			w.boot(name)
		}
		pass(10 * time.Second)
		for _, name := range all {
			got := w.status(name).Problem
			if !strings.HasPrefix(got, "swap is on\n6 servers share this user-data, which expects 5: ") || !strings.Contains(got, "cp6") {
				t.Errorf("%s: problem %q, expected that cp6 is named", name, got)
			}
		}
		w.powerOff("cp6")
		synctest.Wait()
		if got := w.status("cp1").Problem; got != "swap is on" {
			t.Errorf("the surplus server is gone, and still there is %q", got)
		}
	})
}

// A cluster forms without a server that never boots, and status tells of it until
// it comes.
func TestMissingIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		w.cluster.Spec.Discovery = []cluster.Discovery{{Static: []netip.Addr{w.named("cp1").address, w.named("w2").address}}}
		here := []string{"cp1", "cp2", "cp3", "w1"}
		for _, name := range here {
			w.boot(name)
		}
		w.formed(time.Hour, here...)
		for _, name := range here {
			list := w.named(name).server.Servers(t.Context())
			want := "1 of 5 expected servers never answered, or were removed; the cluster was formed without them, they join when they are powered on; " +
				"of the addresses in spec.discovery nobody is at " + w.named("w2").address.String()
			if last := list[len(list)-1]; len(list) != 5 || last.Name != "" || last.Problem != want {
				t.Errorf("status on %s lists %d servers, the last %+v", name, len(list), last)
			}
		}
		w.boot("w2")
		w.formed(time.Hour, "w2")
		for _, s := range w.named("cp2").server.Servers(t.Context()) {
			if s.Name == "" {
				t.Errorf("all are here, and there is still %q", s.Problem)
			}
		}
	})
}

// The journal has one line for each decision, and one when enough votes are here.
func TestDecreeIsInTheJournal(t *testing.T) {
	var out strings.Builder
	a := New(Machine{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})), Now: time.Now})
	cp1 := election.Leader{Name: "cp1"}
	for _, d := range []election.Decree{
		{Phase: election.PhaseForming, Votes: 1}, {Phase: election.PhaseForming, Votes: 3}, {Phase: election.PhaseForming, Votes: 4},
		{Phase: election.PhaseLeader, Votes: 4, Leader: cp1}, {Phase: election.PhaseGo, Votes: 4, Leader: cp1}, {Phase: election.PhaseGo, Votes: 3, Leader: cp1},
	} {
		d.Quorum, d.Expect = 4, 5
		a.logDecree(d)
	}
	want := `level=INFO msg=decree phase=forming epoch=0 leader="" votes=1 quorum=4 expect=5
level=INFO msg=decree phase=forming epoch=0 leader="" votes=4 quorum=4 expect=5
level=INFO msg=decree phase=leader epoch=0 leader=cp1 votes=4 quorum=4 expect=5
level=INFO msg=decree phase=go epoch=0 leader=cp1 votes=4 quorum=4 expect=5
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// What is odd about a server's beginning is in its status, beside what it waits
// for, until it is ready.
func TestOriginIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		cp1 := w.named("cp1")
		cp1.origin = "the state on this disk was made on hardware a, this is b: a cloned or moved disk"
		cp1.prepareFails = 5
		w.boot("cp1")
		pass(2 * time.Second)
		if st := w.status("cp1"); st.Problem != "swap is on\n"+cp1.origin || !strings.Contains(st.Waiting, "2 of 2 votes needed") {
			t.Errorf("waits for %q, problem %q", st.Waiting, st.Problem)
		}
		w.boot("cp2")
		w.formed(5*time.Minute, "cp1", "cp2")
		if st := w.status("cp1"); st.Problem != "" {
			t.Errorf("ready, and still %q", st.Problem)
		}
	})
}

// A server with traces of a cluster and no decree takes no part, says why, and
// answers, whatever it says of its beginning; the others form without it.
func TestTracesAreInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		cp1 := w.named("cp1")
		cp1.traces = "/var/lib/etcd/member, /etc/kubernetes/kubelet.conf"
		for _, name := range []string{"cp1", "cp2"} {
			w.boot(name)
		}
		pass(10 * time.Second)
		w.says("cp1", member.RollCall, "there is no decree on this disk, but /var/lib/etcd/member, /etc/kubernetes/kubelet.conf: this server does not vote; "+
			"to give it to this cluster, reinstall it")
		for _, name := range []string{"cp3", "w1"} {
			w.boot(name)
		}
		pass(10 * time.Second)
		if d := w.named("cp2").agent().fence.read(); d.Phase != election.PhaseGo && d.Phase != election.PhaseSealed || d.Leader.Inst == cp1.inst {
			t.Errorf("without cp1: %+v", d)
		}
	})
}

// Servers with one hardware id are named by all, with the setting that helps.
func TestOneHardwareTwiceIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		w.named("cp3").state.Hardware = w.named("cp2").state.Hardware
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.boot(name)
		}
		pass(time.Minute)
		hw := w.named("cp2").state.Hardware.HW
		for name, lives := range map[string]string{"cp1": "10.0.0.3, 10.0.0.5", "cp2": "10.0.0.5, cp2 at 10.0.0.3", "cp3": "10.0.0.3, cp3 at 10.0.0.5"} {
			want := "two live instances carry the hardware id " + hw + " (" + lives + "): neither votes; switch one off, " +
				"or set spec.identity.source to mac where the firmware gives every server the same UUID"
			if st := w.status(name); !strings.Contains(st.Waiting+st.Problem, want) || st.Phase != member.RollCall {
				t.Errorf("%s: phase %s waits for %q, problem %q; expected %q", name, st.Phase, st.Waiting, st.Problem, want)
			}
		}
		if inits, _ := w.ledger(); len(inits) > 0 {
			t.Errorf("inits %v", inits)
		}
	})
}

// A peer that counts differently is named, and the other way round. What the wait
// says already is not said twice.
func TestAnotherConfigurationIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		other := w.cluster.Spec
		other.Servers.Expect = 9
		cp2 := w.named("cp2")
		cp2.expect = 9
		cp2.state, _, _ = election.Settle(nil, election.FromSpec(other), cp2.state.Hardware, cp2.inst)
		w.named("cp3").expect = 9 // began with 3
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.boot(name)
		}
		pass(5 * time.Second)
		for name, want := range map[string]string{"cp1": "cp2 carries expect: 9, this server 3", "cp2": "cp1 carries expect: 3, this server 9"} {
			if got := w.status(name).Problem; !strings.Contains(got, want) {
				t.Errorf("%s: problem %q, expected %q", name, got, want)
			}
		}
		st := w.status("cp3")
		if began := "this server began with expect: 3"; !strings.Contains(st.Waiting, began) || strings.Contains(st.Problem, began) {
			t.Errorf("cp3 waits for %q, problem %q; expected %q in the wait alone", st.Waiting, st.Problem, began)
		}
	})
}

// Once the cluster is sealed the numbers of the user-data mean nothing: a server
// that boots with others stays what it is, and says that they are ignored.
func TestChangedNumbersAfterSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			w.boot(name)
		}
		w.formed(5*time.Minute, "cp1", "cp2", "cp3")
		w.powerOff("cp2")
		w.named("cp2").expect = 9
		w.boot("cp2")
		w.formed(5*time.Minute, "cp2")
		st := w.status("cp2")
		if want := "the user-data's expect, quorum or electors differ from those the cluster was formed with; it is sealed, so they are ignored"; !strings.Contains(st.Problem, want) ||
			st.Waiting != "" || st.Role != member.ControlPlane {
			t.Errorf("%s, waits for %q, problem %q; expected ready with %q", st.Role, st.Waiting, st.Problem, want)
		}
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
	pass(10 * time.Second)
	d := w.named("cp1").agent().fence.read()
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
		w.says(leader, member.Initialising, "kubeadm init to end; here, journalctl -u kubeadm-init shows how far")
		w.powerOff(leader)
		pass(time.Second)
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
			pass(time.Minute)
			w.says(leader, member.Initialising, "it goes on when 2 of 3 servers confirm that, 1 did so far")
			if st := holder.agent().board.read(); st.Problem != "" {
				t.Errorf("done %t: it starts nothing, and has the problem %q", done, st.Problem)
			}
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
		pass(50 * time.Second)
		w.boot("cp2")
		pass(20 * time.Second)
		if d := w.named("cp1").agent().fence.read(); d.Phase != election.PhaseGo && d.Phase != election.PhaseSealed {
			st := w.named("cp1").agent().board.read()
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
		pass(time.Minute)
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
