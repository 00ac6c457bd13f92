package election

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

func TestQuorum(t *testing.T) {
	for _, c := range []struct{ n, safe, majority int }{
		{1, 1, 1}, {2, 2, 2}, {3, 3, 2}, {4, 3, 3}, {5, 4, 3}, {6, 5, 4}, {7, 5, 4}, {10, 7, 6}, {30, 21, 16}, {100, 67, 51},
	} {
		if got := Quorum(c.n, cluster.QuorumSafe); got != c.safe {
			t.Errorf("Quorum(%d, safe) = %d, expected %d", c.n, got, c.safe)
		}
		if got := Quorum(c.n, cluster.QuorumMajority); got != c.majority {
			t.Errorf("Quorum(%d, majority) = %d, expected %d", c.n, got, c.majority)
		}
	}
}

func TestConfigHash(t *testing.T) {
	base := FromSpec(cluster.Spec{ID: testSpec, Servers: cluster.Servers{Expect: 5}})
	if base.N != 5 || base.Q != 4 || base.Rule != cluster.QuorumSafe {
		t.Fatalf("FromSpec = %+v, expected N 5, Q 4, safe", base)
	}
	electors := FromSpec(cluster.Spec{ID: testSpec, Servers: cluster.Servers{Expect: 5, Electors: []string{"b", "A", "c"}}})
	if electors.N != 3 || electors.Q != 3 || !electors.votes("a") || electors.votes("d") {
		t.Fatalf("FromSpec with electors = %+v, expected N 3, Q 3 and only them to vote", electors)
	}
	turned := electors
	turned.Electors = []string{"c", "b", "a"}
	if turned.Hash() != electors.Hash() {
		t.Error("the order of the electors changes the hash")
	}
	seen := map[string]string{}
	for name, c := range map[string]Config{
		"base": base, "electors": electors, "n": testConfig(6, ""), "q": testConfig(5, cluster.QuorumMajority),
		"id": {SpecID: "other", N: 5, Q: 4}, "less": {SpecID: testSpec, N: 3, Q: 3, Electors: []string{"a", "b"}},
	} {
		if twin := seen[c.Hash()]; twin != "" {
			t.Errorf("%s and %s have the same hash", name, twin)
		}
		seen[c.Hash()] = name
	}
}

// TestForms lets servers of many cluster sizes meet all at once and one by one.
func TestForms(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 10} {
		for _, rule := range []string{cluster.QuorumSafe, cluster.QuorumMajority} {
			w := newWorld(t, n, rule)
			w.bootAll()
			w.meet(w.servers...)
			messages := w.quiet()
			want := strings.TrimSpace(strings.Repeat("go ", n))
			w.wantPhases(want)
			if w.now != 0 || messages > 12*n*n {
				t.Errorf("N=%d took %s of waiting and %d messages, expected none and few", n, w.now, messages)
			}
			if len(w.goHeld) != 1 || !w.servers[0].core.Decree().Stands {
				t.Fatalf("N=%d: GO is held by %v, expected the lowest hardware id", n, w.goHeld)
			}
			w.step(w.servers[0], InitDone{Endpoint: "192.0.2.1:6443"})
			w.quiet()
			w.wantPhases(strings.TrimSpace(strings.Repeat("sealed ", n)))
			for _, s := range w.servers {
				if d := s.core.Decree(); d.Leader.CAHash != d.Sealed.CAHash || d.Sealed.Endpoint != "192.0.2.1:6443" || s.core.Explain() != "" {
					t.Errorf("%s: %+v %s", s.hw, d, s.core.Explain())
				}
			}
		}
	}
}

// TestArrivals lets servers appear one after the other: nothing before q, all
// at q, and the late ones learn.
func TestArrivals(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	for i := range 3 {
		w.bootUp(w.servers[i])
		w.meet(w.servers[:i+1]...)
		w.run(time.Minute)
	}
	w.wantPhases("forming forming forming off off")
	want := "no leader yet: 4 of 5 votes needed, 3 here, missing: 2 that never answered (here: cp0, cp1, cp2); " +
		"power them on, or check that they reach this server's gossip and enrolment ports; if they never come: bootstrap quorum --majority lets 3 decide"
	if got := w.servers[1].core.Explain(); got != want {
		t.Errorf("Explain:\n got %s\nwant %s", got, want)
	}
	w.bootUp(w.servers[3])
	w.meet(w.servers[:4]...)
	w.quiet()
	w.wantPhases("go go go go off")
	w.step(w.servers[0], InitDone{})
	w.quiet()
	w.bootUp(w.servers[4])
	w.meet(w.servers...)
	w.run(2 * time.Second)
	w.wantPhases("sealed sealed sealed sealed sealed")
	if d := w.servers[4].core.Decree(); d.Leader.Name != "cp0" {
		t.Errorf("the late server knows the leader as %q, expected cp0", d.Leader.Name)
	}
}

// TestNamesTheMissing: a server that was seen before is named.
func TestNamesTheMissing(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootUp(w.servers[0])
	w.bootUp(w.servers[2])
	w.meet(w.servers[0], w.servers[2])
	w.meet(w.servers[0])
	d := w.servers[0].core.Decree()
	if diff := cmp.Diff(Decree{Phase: PhaseForming, Votes: 1, Quorum: 3, Expect: 4, Present: []string{"cp0"}, Missing: []string{"cp2"}}, d, addresses); diff != "" {
		t.Error(diff)
	}
	if got := w.servers[0].core.Explain(); !strings.Contains(got, "3 of 4 votes needed, 1 here, missing: cp2 and 2 that never answered (here: cp0)") {
		t.Errorf("Explain = %q", got)
	}
}

// TestRank: only eligible servers propose; the lowest that is fit at once, the
// next 5 s later.
func TestRank(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.servers[0].self.Eligible = false
	w.bootAll()
	w.step(w.servers[1], Fitness{Reasons: []string{"no address yet"}})
	w.meet(w.servers...)
	w.quiet()
	w.wantPhases("forming forming forming forming")
	if got := w.servers[1].core.Explain(); got != "no leader yet: enough servers are here; this one is not ready to lead: no address yet" {
		t.Errorf("Explain = %q", got)
	}
	w.run(rankDelay - time.Millisecond)
	w.wantPhases("forming forming forming forming")
	w.run(time.Millisecond)
	w.wantPhases("go go go go")
	if l := w.servers[0].core.Decree().Leader; l.Name != "cp2" {
		t.Errorf("leader is %s, expected cp2", l.Name)
	}
}

// TestNobodyEligible waits and says what would help.
func TestNobodyEligible(t *testing.T) {
	w := newWorld(t, 2, cluster.QuorumSafe)
	for _, s := range w.servers {
		s.self.Eligible = false
	}
	w.bootAll()
	w.meet(w.servers...)
	w.run(time.Hour)
	w.wantPhases("forming forming")
	if got := w.servers[0].core.Explain(); !strings.Contains(got, "none of these servers may become a control plane") {
		t.Errorf("Explain = %q", got)
	}
}

// TestUnfitLeader abdicates after two minutes when another may lead, and the
// other comes first then.
func TestUnfitLeader(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootAll()
	w.step(w.servers[0], Fitness{LeaderFit: true, Reasons: []string{"kubelet is missing"}})
	w.meet(w.servers...)
	w.run(unfitDelay - time.Second)
	w.wantPhases("leader leader leader")
	if got := w.servers[0].core.Explain(); got != "this server leads and is not ready for GO: kubelet is missing" {
		t.Errorf("Explain = %q", got)
	}
	w.run(2 * time.Second)
	w.wantPhases("go go go")
	d := w.servers[0].core.Decree()
	if d.Epoch != 1 || d.Leader.Name != "cp1" || len(w.goHeld) != 1 {
		t.Errorf("decree %+v, GO held %v, expected cp1 in epoch 1", d, w.goHeld)
	}
}

// TestUnfitAlone keeps the lead where nobody else may have it, and takes GO as
// soon as it is ready.
func TestUnfitAlone(t *testing.T) {
	w := newWorld(t, 2, cluster.QuorumSafe)
	w.servers[1].self.Eligible = false
	w.bootAll()
	w.step(w.servers[0], Fitness{LeaderFit: true})
	w.meet(w.servers...)
	w.run(time.Hour)
	w.wantPhases("leader leader")
	w.step(w.servers[0], Fitness{LeaderFit: true, GoFit: true})
	w.quiet()
	w.wantPhases("go go")
}

// TestSilentLeader: the others depose a leader without GO after ten minutes; it
// learns so when it comes back.
func TestSilentLeader(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootAll()
	w.step(w.servers[0], Fitness{LeaderFit: true})
	w.meet(w.servers...)
	w.quiet()
	w.wantPhases("leader leader leader leader")
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.run(silenceDelay - time.Second)
	w.wantPhases("off leader leader leader")
	if got := w.servers[2].core.Explain(); !strings.Contains(got, "cp0 leads epoch 0, has not decided GO and does not answer") {
		t.Errorf("Explain = %q", got)
	}
	w.run(rankDelay * 4)
	w.wantPhases("off go go go")
	w.bootUp(w.servers[0])
	w.meet(w.servers...)
	w.run(2 * time.Second)
	w.wantPhases("go go go go")
	if d := w.servers[0].core.Decree(); d.Epoch != 1 || d.Mine || len(w.goHeld) != 1 {
		t.Errorf("the old leader knows %+v, GO held by %v", d, w.goHeld)
	}
}

// TestSilentGoHolder: nobody takes over after GO.
func TestSilentGoHolder(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.run(2 * time.Hour)
	w.wantPhases("off go go go")
	if len(w.goHeld) != 1 {
		t.Errorf("GO was held by %v", w.goHeld)
	}
	if got := w.servers[1].core.Explain(); !strings.Contains(got, "no other server takes over by itself") {
		t.Errorf("Explain = %q", got)
	}
}

// TestStands: after a reboot GO must be confirmed by a majority of electors.
func TestStands(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	w.servers[0].up = false
	w.bootUp(w.servers[0])
	stands := func(want bool) {
		t.Helper()
		if got := w.servers[0].core.Decree().Stands; got != want {
			t.Fatalf("Stands = %v, expected %v: %s", got, want, w.servers[0].core.Explain())
		}
	}
	w.run(time.Hour)
	stands(false)
	w.meet(w.servers[0], w.servers[1])
	w.run(time.Minute)
	stands(false)
	if got := w.servers[0].core.Explain(); !strings.Contains(got, "when 3 of 5 servers confirm that, 2 did so far (itself included)") {
		t.Errorf("Explain = %q", got)
	}
	w.meet(w.servers[:3]...)
	w.run(10 * time.Second)
	stands(true)

	// The agent starts again within the same boot.
	s := w.servers[0]
	s.core = New(s.cfg, s.self, s.disk)
	w.step(s, Start{Boot: "same", Stands: true})
	stands(true)
}

// TestStandsAnswersOfAnotherBoot do not count.
func TestStandsAnswersOfAnotherBoot(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	s := w.servers[0]
	s.up = false
	w.bootUp(s)
	m := s.core.headerForTest(Message{Kind: Stands, Nonce: "another boot", Standing: true})
	w.step(s, Received{From: Sender{Inst: w.servers[1].disk.Inst, HW: "hw01"}, Message: m})
	w.step(s, Received{From: Sender{Inst: w.servers[2].disk.Inst, HW: "hw02"}, Message: m})
	if s.core.Decree().Stands {
		t.Error("GO stands by answers to a question of another boot")
	}
}

func (c Core) headerForTest(m Message) Message {
	s := step{Core: c}
	h := s.header()
	h.Kind, h.Nonce, h.Standing = m.Kind, m.Nonce, m.Standing
	h.Slot, h.Ballot, h.Value = m.Slot, m.Ballot, m.Value
	return h
}

// TestOldCoreStaysUsable: Step has no effect on the value it was called on.
func TestOldCoreStaysUsable(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	for len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		for _, s := range w.servers {
			if s.core.State().Inst != p.to {
				continue
			}
			once, effects := s.core.Step(Received{From: p.from, Message: p.m})
			again, effectsAgain := s.core.Step(Received{From: p.from, Message: p.m})
			all := cmp.Exporter(func(reflect.Type) bool { return true })
			if diff := cmp.Diff(effects, effectsAgain, all, addresses); diff != "" {
				t.Fatalf("the same event has other effects the second time: %s", diff)
			}
			if diff := cmp.Diff(once, again, all, addresses); diff != "" {
				t.Fatalf("the same event leads elsewhere the second time: %s", diff)
			}
		}
		w.deliver(p)
	}
	w.wantPhases("go go go")
}

// TestCompletesWhatMayBeChosen: a value that a quorum accepted is decided by
// whoever comes next, even when its proposer died before it learned so.
func TestCompletesWhatMayBeChosen(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers[:3]...)
	for len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		if p.m.Kind != Accepted {
			w.deliver(p)
		}
	}
	w.wantPhases("forming forming forming forming")
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.quiet()
	w.wantPhases("off leader leader leader")
	if l := w.servers[3].core.Decree().Leader; l.Name != "cp0" {
		t.Errorf("leader is %s, expected cp0, which three of four had accepted", l.Name)
	}
}

// TestDuel: two servers that both believe to be first end with one leader.
func TestDuel(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers[0], w.servers[2], w.servers[3], w.servers[4])
	w.step(w.servers[1], w.view(w.servers[1], w.servers[2:]))
	w.run(rankDelay)
	w.wantPhases("go go go go go")
	if len(w.goHeld) != 1 {
		t.Errorf("GO was held by %v", sorted(w.goHeld))
	}
}

// TestPatienceDoubles: servers that all lack the same thing depose one another
// less and less often.
func TestPatienceDoubles(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.plain = true // twelve hours of messages; every other test encodes its own
	w.bootAll()
	for _, s := range w.servers {
		w.step(s, Fitness{LeaderFit: true, Reasons: []string{"kubelet is missing"}})
	}
	w.meet(w.servers...)
	w.run(12 * time.Hour)
	w.wantPhases("leader leader leader")
	if e := w.servers[0].core.Decree().Epoch; e < 5 || e > 20 {
		t.Errorf("epoch %d after twelve hours, expected 5 to 20", e)
	}
}

// BenchmarkForm is the cost of forming five servers, in steps of the core alone.
func BenchmarkForm(b *testing.B) {
	for b.Loop() {
		w := newWorld(b, 5, cluster.QuorumSafe)
		w.plain = true
		w.bootAll()
		w.meet(w.servers...)
		w.quiet()
	}
}
