package election

import (
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// sift delivers what pass lets through and loses the rest.
func (w *world) sift(pass func(packet) bool) {
	for len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		if pass(p) {
			w.deliver(p)
		}
	}
}

// TestNewcomerIsNotAsked: cp3 asks for GO to be accepted and is cut off; the others
// decide it, and supersede its holder, which is off. One of them loses its disk and
// meets cp3, whose attempt still runs. Made to accept that GO, it would count as one
// that never promised anything else, and with it the old holder would stand.
func TestNewcomerIsNotAsked(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	holder, stale, wiped := w.servers[0], w.servers[3], w.servers[4]
	rest := []*server{w.servers[1], w.servers[2], wiped}
	w.meet(w.servers...)
	w.sift(func(p packet) bool { // cp1 alone accepts GO, and nobody hears of it
		return p.m.Slot != 1 || p.m.Kind != Accepted && (p.m.Kind != Accept || p.to == w.servers[1].core.State().Inst)
	})
	w.meet(holder)
	w.net = nil
	w.meet(append(rest, stale)...)
	w.quiet()
	for stale.core.try.ballot == (Ballot{}) { // until its patience with the silent leader ends
		w.now = max(w.now, stale.clock[TimerSilence])
		delete(stale.clock, TimerSilence)
		w.step(stale, Timer{Kind: TimerSilence})
	}
	w.sift(func(p packet) bool { return p.m.Kind != Accept })
	if x := stale.core.try; !x.accepting || x.value.Kind != Go {
		t.Fatalf("cp3's attempt is %+v", x)
	}
	w.meet(stale)
	w.net = nil
	stale.up = false // cut off: its timers are late
	w.meet(append(rest, holder)...)
	w.run(time.Minute)
	if !holder.core.Decree().Stands {
		t.Fatal(w.phases())
	}
	holder.up = false
	w.meet(rest...)
	w.step(rest[0], Supersede{Dead: holder.hw})
	w.run(time.Minute)
	if d := rest[0].core.Decree(); d.Epoch != 1 || !d.Stands {
		t.Fatalf("epoch %d is %s", d.Epoch, d.Phase)
	}
	wiped.wipe()
	w.bootUp(wiped)
	rest[0].up, rest[1].up, stale.up = false, false, true
	w.meet(stale, wiped)
	w.run(time.Minute)
	w.bootUp(holder)
	w.meet(holder, stale, wiped)
	w.run(time.Hour)
	if d := holder.core.Decree(); d.Phase != PhaseGo || d.Stands {
		t.Errorf("the superseded holder of GO is in phase %s, may start: %v", d.Phase, d.Stands)
	}
}

// TestNewcomerIsAskedNext: an attempt that lacks votes makes way for one that asks
// who came meanwhile.
func TestNewcomerIsAskedNext(t *testing.T) {
	w := newWorld(t, 4, cluster.QuorumSafe)
	w.bootAll()
	w.meet(w.servers[:3]...)
	w.servers[2].up = false // in sight and silent
	w.run(time.Second)
	w.wantPhases("forming forming off forming")
	w.meet(w.servers[0], w.servers[1], w.servers[3])
	w.run(10 * time.Second)
	w.wantPhases("go go off go")
}
