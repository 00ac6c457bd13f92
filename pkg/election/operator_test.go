package election

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

// toGo forms n servers up to GO and switches its holder off.
func toGo(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t, n, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	for _, s := range w.servers {
		if s.core.Decree().Phase != PhaseGo {
			t.Fatal(w.phases())
		}
	}
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	return w
}

// refusal is why an act is refused, "" when it is not.
func refusal(s *server, e Event) string {
	if _, err := s.core.Weigh(e); err != nil {
		return err.Error()
	}
	return ""
}

// TestSupersede: with the holder of GO dead, a majority of the others decides a
// new epoch on an operator's order, also where only two of three remain.
func TestSupersede(t *testing.T) {
	for _, n := range []int{3, 4, 5, 10} {
		w := toGo(t, n)
		order := Supersede{Dead: "hw00"}
		if got := w.servers[2].core.Explain(); !strings.Contains(got, "bootstrap supersede --epoch 0 --confirm-dead hw00") {
			t.Errorf("Explain = %q", got)
		}
		w.run(time.Hour)
		if d := w.servers[1].core.Decree(); d.Epoch != 0 || d.Phase != PhaseGo {
			t.Fatalf("n=%d: without an order epoch %d is %s", n, d.Epoch, d.Phase)
		}
		if why := refusal(w.servers[2], order); why != "" {
			t.Fatal(why)
		}
		w.step(w.servers[2], order)
		w.run(time.Second)
		for _, s := range w.servers[1:] {
			d := s.core.Decree()
			if d.Phase != PhaseGo || d.Epoch != 1 || d.Leader.Name != "cp2" || d.Mine != (s == w.servers[2]) {
				t.Fatalf("n=%d: %s knows %s of %s in epoch %d", n, s.self.Name, d.Phase, d.Leader.Name, d.Epoch)
			}
		}
		if !w.servers[2].core.Decree().Stands {
			t.Error("the new holder of GO may not start")
		}
		w.step(w.servers[2], InitDone{Endpoint: "e:6443"})
		w.run(time.Second)
		w.comeBack(t)
	}
}

// comeBack boots the superseded server: alone it is not confirmed; with the
// others it learns that it was superseded, and never holds GO again.
func (w *world) comeBack(t *testing.T) {
	t.Helper()
	old := w.servers[0]
	w.bootUp(old)
	w.meet(old)
	w.run(time.Hour)
	if d := old.core.Decree(); d.Stands || !d.Mine {
		t.Fatalf("alone, the old holder has %+v", d)
	}
	w.meet(w.servers...)
	w.run(time.Minute)
	d := old.core.Decree()
	if d.Stands || d.Mine || d.Phase != PhaseSealed || old.disk.HoldsGo() || old.disk.GoMarker || !old.disk.Superseded() {
		t.Errorf("back among the others the old holder has %+v", d)
	}
	if diff := cmp.Diff([]string{"sha256:ca-inst001"}, old.disk.VoidCAs()); diff != "" {
		t.Error(diff)
	}
	if _, err := old.core.Weigh(Lower{}); err == nil || !strings.Contains(err.Error(), "this server held GO and was superseded by an operator's order: cp2 leads epoch 1 now; what it built is void and stays down;") {
		t.Errorf("an act there: %v", err)
	}
}

// TestSupersedeRefused: each refusal is a sentence.
func TestSupersedeRefused(t *testing.T) {
	w := toGo(t, 3)
	for _, c := range []struct {
		name string
		act  Supersede
		want string
	}{
		{"another epoch", Supersede{Epoch: 1, Dead: "hw00"}, "epoch 1 is not the one that holds: GO of epoch 0 belongs to cp0 (hardware hw00)"},
		{"another server", Supersede{Dead: "hw02"}, "hardware hw02 does not hold GO of epoch 0: cp0 does, its hardware id is hw00"},
	} {
		if got := refusal(w.servers[1], c.act); got != c.want {
			t.Errorf("%s: %q, expected %q", c.name, got, c.want)
		}
	}
	act := Supersede{Dead: "hw00"}
	w.bootUp(w.servers[0])
	if got := refusal(w.servers[0], act); got != "this very server holds GO: it cannot declare itself dead" {
		t.Errorf("at the holder: %q", got)
	}
	w.meet(w.servers...)
	if got := refusal(w.servers[1], act); !strings.HasPrefix(got, "cp0 is in sight of cp1: it is not dead") {
		t.Errorf("in sight: %q", got)
	}
	w.run(time.Minute)
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	if got := refusal(w.servers[1], act); !strings.HasPrefix(got, "epoch 0 is sealed: its cluster exists (CA sha256:ca-inst001)") {
		t.Errorf("sealed: %q", got)
	}
	act.LoseCluster = true
	order, err := w.servers[1].core.Weigh(act)
	if err != nil || len(order.Danger) != 2 || !strings.Contains(order.Danger[0], "it would run that") || !strings.Contains(order.Danger[1], "everything in it is lost") {
		t.Errorf("sealed, with the cluster given up: %+v, %v", order, err)
	}
	// Sealed, a server goes on under other numbers; they must not count this vote.
	alone := w.servers[1].cfg
	alone.N, alone.Q = 1, 1
	changed, _ := New(alone, w.servers[1].self, w.servers[1].disk).Step(Start{Boot: "b", Run: "r"})
	if _, err := changed.Weigh(act); err == nil || !strings.HasPrefix(err.Error(), "this server's expect, quorum or electors differ") {
		t.Errorf("sealed, under other numbers: %v", err)
	}
	w.step(w.servers[2], Closed{})
	w.quiet()
	if got := refusal(w.servers[1], act); !strings.HasPrefix(got, "the cluster is closed: a second etcd member votes") {
		t.Errorf("closed: %q", got)
	}
}

// TestSupersedeAfterReinstall: the hardware that held GO was installed anew. It
// learns of GO, and has no part in superseding its former self.
func TestSupersedeAfterReinstall(t *testing.T) {
	w := toGo(t, 3)
	w.servers[0].wipe()
	w.bootUp(w.servers[0])
	w.meet(w.servers...)
	w.run(time.Minute)
	w.wantPhases("go go go")
	act := Supersede{Dead: "hw00"}
	if got := refusal(w.servers[0], act); got != "this server was installed anew on the hardware that holds GO, which has no vote in this; run the command on one of: cp1, cp2" {
		t.Errorf("%q", got)
	}
	w.step(w.servers[2], act)
	w.run(time.Minute)
	for _, s := range w.servers {
		if d := s.core.Decree(); d.Epoch != 1 || d.Phase != PhaseGo || d.Leader.Name != "cp2" {
			t.Errorf("%s knows %s of %s in epoch %d", s.self.Name, d.Phase, d.Leader.Name, d.Epoch)
		}
	}
}

// TestOrdersToServersWithoutVote are refused with the reason.
func TestOrdersToServersWithoutVote(t *testing.T) {
	cfg := FromSpec(cluster.Spec{ID: testSpec, Servers: cluster.Servers{Expect: 3, Electors: []string{"hw01"}}})
	w := &world{t: t, goHeld: map[string]bool{}}
	w.add(cfg)
	w.add(testConfig(3, cluster.QuorumSafe))
	twin := w.add(testConfig(3, cluster.QuorumSafe))
	twin.hw = "hw01"
	w.bootAll()
	w.meet(w.servers[1:]...)
	for i, want := range []string{
		"this server takes no part in votes: it is not among spec.servers.electors",
		"this server takes no part in votes: two live instances carry the hardware id hw01",
	} {
		if got := refusal(w.servers[i], Lower{}); !strings.HasPrefix(got, want) {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

// TestSupersedeForming: before GO nobody is superseded.
func TestSupersedeForming(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootUp(w.servers[0])
	if got := refusal(w.servers[0], Supersede{Dead: "hw01"}); !strings.HasPrefix(got, "GO of epoch 0 is not decided") {
		t.Errorf("%q", got)
	}
}

// TestSupersedeSealed: a sealed cluster that is given up makes room for another;
// who still knows the old one learns it, and nobody takes it for a contradiction.
func TestSupersedeSealed(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.wantPhases("sealed sealed sealed sealed")
	w.servers[0].up, w.servers[3].up = false, false
	w.meet(w.servers[1:3]...)
	w.step(w.servers[1], Supersede{Dead: "hw00", LoseCluster: true})
	w.run(time.Minute)
	if got := w.servers[1].core.Problems(); len(got) != 1 || !strings.HasPrefix(got[0], "superseding cp0: 3 of 4 votes needed, 2 here (cp1, cp2)") {
		t.Errorf("Problems = %q", got)
	}
	w.bootUp(w.servers[3])
	w.meet(w.servers[1:]...)
	w.run(time.Minute)
	w.step(w.servers[1], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.bootUp(w.servers[0]) // sealed with its own CA, as it knows
	w.meet(w.servers...)
	w.run(time.Minute)
	for _, s := range w.servers {
		d := s.core.Decree()
		if d.Phase != PhaseSealed || d.Epoch != 1 || d.Sealed.CAHash != "sha256:ca-inst002" || s.core.conflict != "" {
			t.Errorf("%s knows %s, epoch %d, CA %s; %s", s.self.Name, d.Phase, d.Epoch, d.Sealed.CAHash, s.core.conflict)
		}
	}
}

// TestElectorKeepsWhomItSees: an elector that sees the holder of GO does not let
// it be superseded, and the operator hears why.
func TestElectorKeepsWhomItSees(t *testing.T) {
	w := toGo(t, 3)
	w.bootUp(w.servers[0])
	w.meet(w.servers[0], w.servers[2])
	w.meet(w.servers[1], w.servers[2])
	w.step(w.servers[2], w.view(w.servers[2], w.servers)) // sees both
	w.step(w.servers[1], Supersede{Dead: "hw00"})
	w.run(time.Minute)
	if d := w.servers[1].core.Decree(); d.Epoch != 0 {
		t.Fatalf("epoch %d", d.Epoch)
	}
	if got := w.servers[1].core.Explain(); !strings.Contains(got, "cp2 refuses: cp0 is in sight of cp2: it is not dead") {
		t.Errorf("Explain = %q", got)
	}
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.run(time.Minute)
	if d := w.servers[1].core.Decree(); d.Epoch != 1 || d.Phase != PhaseGo {
		t.Errorf("epoch %d, %s: %s", d.Epoch, d.Phase, w.servers[1].core.Explain())
	}
}

// TestWipedServerConfirmsNothing: a server that lost its disk after it helped to
// supersede learns the old GO from others, and its word for it is worth nothing.
func TestWipedServerConfirmsNothing(t *testing.T) {
	w := toGo(t, 3)
	w.step(w.servers[1], Supersede{Dead: "hw00"})
	w.run(time.Second)
	w.servers[1].up = false
	w.servers[2].wipe()
	w.bootUp(w.servers[2])
	w.bootUp(w.servers[0])
	w.meet(w.servers[0], w.servers[2])
	w.run(time.Hour)
	if d := w.servers[0].core.Decree(); d.Stands {
		t.Error("a superseded GO stands by the word of a server that forgot")
	}
}

// TestChallengedGoStaysDown: once an operator began to supersede a GO, its holder
// is not confirmed any more, and says why.
func TestChallengedGoStaysDown(t *testing.T) {
	w := toGo(t, 3)
	w.step(w.servers[1], Supersede{Dead: "hw00"}) // its Prepare is under way
	w.net = nil
	w.bootUp(w.servers[0])
	w.meet(w.servers[0], w.servers[1])
	w.run(time.Minute)
	if d := w.servers[0].core.Decree(); d.Stands {
		t.Fatal("GO stands")
	}
	if got := w.servers[0].core.Explain(); !strings.Contains(got, "an operator began to supersede it at cp1: it stays down") {
		t.Errorf("Explain = %q", got)
	}
}

// TestLower: a majority decides on an operator's order, never fewer.
func TestLower(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	big, small := w.servers[:3], w.servers[3:]
	w.meet(big...)
	w.meet(small...)
	w.run(time.Hour)
	w.wantPhases("forming forming forming forming forming")
	order, err := w.servers[1].core.Weigh(Lower{})
	if err != nil || !strings.Contains(order.Danger[0], "safe with up to 2 servers that lost their disk or were started too many; now with up to 0") {
		t.Errorf("%+v, %v", order, err)
	}
	w.step(w.servers[1], Lower{})
	w.step(w.servers[4], Lower{})
	w.run(time.Hour)
	w.wantPhases("go go go forming forming")
	if got := refusal(w.servers[4], Lower{}); got != "it is lowered already: 3 of 5 decide" {
		t.Errorf("%q", got)
	}
	if got := w.servers[3].core.Problems(); len(got) != 1 || !strings.HasPrefix(got[0], "the quorum was lowered to 3 of 5 by an operator") {
		t.Errorf("Problems = %q", got)
	}
	w.meet(w.servers...)
	w.run(time.Minute)
	w.wantPhases("go go go go go")
	if len(w.goHeld) != 1 {
		t.Errorf("GO was held by %v", sorted(w.goHeld))
	}
}

// TestLowerRefused where it would change nothing, or too much.
func TestLowerRefused(t *testing.T) {
	w := newWorld(t, 2, cluster.QuorumSafe)
	w.bootUp(w.servers[0])
	if got := refusal(w.servers[0], Lower{}); !strings.HasPrefix(got, "the quorum is 2 of 2 already, and it is never lowered below that") {
		t.Errorf("%q", got)
	}
	if got := refusal(toGo(t, 4).servers[1], Lower{}); !strings.HasPrefix(got, "GO is decided") {
		t.Errorf("%q", got)
	}
}

// TestApprove: a server of two that lost its disk can be confirmed by one only;
// an operator vouches for the rest.
func TestApprove(t *testing.T) {
	w := newWorld(t, 2, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.servers[1].wipe()
	w.bootUp(w.servers[1])
	ca := "sha256:ca-inst001"
	if got := refusal(w.servers[1], Approve{CAHash: ca}); !strings.HasPrefix(got, "no server in sight speaks of a cluster that exists") {
		t.Errorf("%q", got)
	}
	w.meet(w.servers...)
	w.run(time.Hour)
	w.wantPhases("sealed forming")
	if got := w.servers[1].core.Explain(); !strings.Contains(got, "bootstrap approve --ca "+ca) {
		t.Errorf("Explain = %q", got)
	}
	if got := refusal(w.servers[1], Approve{CAHash: "sha256:other"}); got != "no server in sight speaks of a cluster with CA sha256:other: cp0: CA "+ca {
		t.Errorf("%q", got)
	}
	w.step(w.servers[1], Approve{CAHash: ca})
	w.wantPhases("sealed sealed")
	if l := w.servers[1].core.Decree().Leader; l.Name != "cp0" {
		t.Errorf("the leader is %q, expected cp0", l.Name)
	}
}

// TestClaimOfAVoidCluster: what a server without memory heard of a cluster that
// was superseded since neither bars it nor can be approved.
func TestClaimOfAVoidCluster(t *testing.T) {
	w := toGo(t, 3)
	w.step(w.servers[1], Supersede{Dead: "hw00"})
	w.run(time.Minute)
	late := w.servers[2]
	late.wipe()
	w.bootUp(late)
	void := w.servers[1].disk.VoidCAs()[0]
	w.step(late, Received{From: Sender{Inst: "stray", HW: "hw00"}, Message: Message{Version: MessageVersion, Kind: Tell, SpecID: testSpec,
		Config: late.cfg.Hash(), N: 3, Name: "stray", Sealed: Sealed{CAHash: void, Endpoint: "e:6443"}}})
	if late.core.barred() != barClaims {
		t.Fatal("a server without memory votes although it heard of a cluster")
	}
	w.meet(w.servers[1:]...)
	w.run(time.Minute)
	if b := late.core.barred(); b != mayVote || late.core.Decree().Epoch != 1 {
		t.Errorf("bar %d, epoch %d: %s", b, late.core.Decree().Epoch, late.core.Explain())
	}
	if got := refusal(late, Approve{CAHash: void}); !strings.HasPrefix(got, "no server in sight speaks of a cluster that exists") {
		t.Errorf("%q", got)
	}
}

// TestSupersededUnderOtherNumbers: a server that voted under other numbers and
// belongs to the sealed cluster learns that it was superseded, like any other.
func TestSupersededUnderOtherNumbers(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	late := w.servers[4]
	late.cfg = testConfig(3, cluster.QuorumSafe)
	w.bootUp(late)
	w.step(late, Received{From: Sender{Inst: "other", HW: "hw77"}, Message: Message{Version: MessageVersion, Kind: Prepare, SpecID: testSpec,
		Config: late.cfg.Hash(), N: 3, Name: "other", Ballot: Ballot{Round: 1, Inst: "other", Run: "r"}}})
	late.up, late.cfg = false, testConfig(5, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.run(time.Minute)
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.wantPhases("sealed sealed sealed sealed sealed")
	if late.disk.Config == late.cfg.Hash() {
		t.Fatal("the late server's numbers are those of the others")
	}
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.step(w.servers[1], Supersede{Dead: "hw00", LoseCluster: true})
	w.run(time.Minute)
	w.step(w.servers[1], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	for _, s := range w.servers[1:] {
		if d := s.core.Decree(); d.Phase != PhaseSealed || d.Epoch != 1 {
			t.Errorf("%s knows %s, epoch %d", s.self.Name, d.Phase, d.Epoch)
		}
	}
}
