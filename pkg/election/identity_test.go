package election

import (
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// only is the one sentence that a server shows to its operator.
func (w *world) only(s *server) string {
	w.t.Helper()
	got := s.core.Problems()
	if len(got) != 1 {
		w.t.Fatalf("%s: Problems = %q, expected one", s.self.Name, got)
	}
	return got[0]
}

// wantHolders counts the instances that ever held GO.
func (w *world) wantHolders(want int) {
	w.t.Helper()
	if len(w.goHeld) != want {
		w.t.Errorf("GO was held by %v, expected %d instances", w.goHeld, want)
	}
}

// TestFleetWithOneUUID: where all servers have one id nobody votes, and everybody
// says which setting helps; with it, on the same disks, they form.
func TestFleetWithOneUUID(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	for _, s := range w.servers {
		s.hw = "uuid"
	}
	w.bootAll()
	w.meet(w.servers...)
	w.run(time.Hour)
	w.wantPhases("forming forming forming")
	want := "3 live instances carry the hardware id uuid (cp0 at 10.0.0.1, cp1 at 10.0.0.2, cp2 at 10.0.0.3): none votes; switch all but one off, " +
		"or set spec.identity.source to mac where the firmware gives every server the same UUID"
	for _, s := range w.servers {
		if got := w.only(s); got != want {
			t.Errorf("%s: %s", s.self.Name, got)
		}
		if got := s.core.Explain(); got != "this server does not vote: "+want {
			t.Errorf("%s waits for %q", s.self.Name, got)
		}
	}
	for i, s := range w.servers {
		s.hw = "mac" + s.self.Name
		before := s.disk.Inst
		w.bootUp(s)
		if after := s.core.State().Inst; after == before || len(s.core.State().Slots) > 0 {
			t.Errorf("server %d keeps the memory of the id that it had: %s, then %s", i, before, after)
		}
	}
	w.meet(w.servers...)
	w.run(time.Minute)
	w.wantPhases("go go go")
	w.wantHolders(1)
}

// TestTwoLivesOfOneHardware: a server that was reinstalled while its former self
// still runs. Neither has a vote, the others may go on without it, all name the
// two, and it votes again when one of them is off.
func TestTwoLivesOfOneHardware(t *testing.T) {
	for _, n := range []int{4, 5} { // with 4 the vote is needed, with 5 it is not
		w := newWorld(t, n, cluster.QuorumSafe)
		again := w.add(testConfig(n, cluster.QuorumSafe))
		former := w.servers[0]
		again.hw, again.self.Name = former.hw, former.self.Name
		short := n == 4
		w.bootAll()
		here := w.servers
		if short {
			w.servers[3].up = false
			here = append(w.servers[:3:3], again)
		}
		w.meet(here...)
		w.run(time.Minute)
		const want = "two live instances carry the hardware id hw00 (cp0 at 10.0.0.1, cp0 at 10.0.0.%): neither votes; switch one off, " +
			"or set spec.identity.source to mac where the firmware gives every server the same UUID"
		for _, s := range here {
			if got := w.only(s); got != strings.Replace(want, "%", string(rune('1'+n)), 1) {
				t.Errorf("%s: %s", s.self.Name, got)
			}
		}
		d := w.servers[1].core.Decree()
		if decided := d.Phase == PhaseGo; decided == short || d.Votes != len(here)-2 || d.Leader.HW == "hw00" {
			t.Errorf("N = %d: %+v", n, d)
		}
		former.up = false
		w.meet(here...)
		w.run(time.Minute)
		for _, s := range here {
			if s.up && (s.core.Decree().Phase != PhaseGo || len(s.core.Problems()) > 0) {
				t.Errorf("N = %d, the former self is off: %s: %s, %q", n, s.self.Name, s.core.Decree().Phase, s.core.Problems())
			}
		}
		w.wantHolders(1)
	}
}

// TestCopyOfADisk: one instance at two addresses, as two virtual machines with
// one id are, and one of them holds GO. Both stop and name the other, and the one
// that stays goes on.
func TestCopyOfADisk(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	w.wantPhases("go go go")
	holder := w.servers[0]
	holder.up = false
	double := w.add(holder.cfg)
	double.hw, double.disk, double.self.Name = holder.hw, holder.disk, "cp9"
	w.bootUp(holder)
	w.bootUp(double)
	if holder.core.State().Inst != double.core.State().Inst {
		t.Fatal("the copy is another instance")
	}
	w.meet(w.servers...)
	w.run(time.Hour)
	for s, other := range map[*server]string{holder: "10.0.0.4", double: "10.0.0.1"} {
		want := "this server's instance " + holder.disk.Inst + " answers at " + other + " too: two servers run from copies of one disk, both stop; " +
			"switch one off, remove /var/lib/muster on it and boot it anew: then the other goes on by itself; where it never boots again, systemctl restart muster on the other"
		if got := w.only(s); got != want {
			t.Errorf("%s: %s", s.self.Name, got)
		}
		if got := s.core.Explain(); got != want {
			t.Errorf("%s waits for %q", s.self.Name, got)
		}
		if s.core.Decree().Stands {
			t.Errorf("GO stands on %s", s.self.Name)
		}
	}
	double.wipe()
	w.bootUp(holder)
	w.meet(w.servers[:3]...)
	w.run(time.Minute)
	if !holder.core.Decree().Stands || len(holder.core.Problems()) > 0 {
		t.Errorf("the copy is gone: stands %v, %q", holder.core.Decree().Stands, holder.core.Problems())
	}
	w.wantHolders(1)
}

// TestCloneOfTheHolder: the disk of the GO holder in another board is a new
// instance that holds nothing, beside the holder and without it.
func TestCloneOfTheHolder(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers...)
	w.quiet()
	holder := w.servers[0]
	clone := w.add(holder.cfg)
	clone.disk = holder.disk
	w.bootUp(clone)
	for _, here := range [][]*server{w.servers, w.servers[1:]} {
		holder.up = len(here) == len(w.servers)
		w.meet(here...)
		w.run(time.Hour)
		if d := clone.core.Decree(); d.Mine || d.Stands || d.Phase != PhaseGo || d.Leader.Inst != holder.disk.Inst {
			t.Errorf("holder here %v: the clone has %+v", holder.up, d)
		}
	}
	w.wantHolders(1)
}
