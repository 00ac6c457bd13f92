package election

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
)

// sizes are the clusters that schedules are drawn for, with how many servers
// may be wiped or added while the law 2q-N-1 holds.
var sizes = []struct {
	n    int
	rule string
	harm int
}{
	{1, cluster.QuorumSafe, 0}, {2, cluster.QuorumSafe, 1}, {3, cluster.QuorumSafe, 2}, {3, cluster.QuorumMajority, 0},
	{4, cluster.QuorumSafe, 1}, {5, cluster.QuorumSafe, 2}, {5, cluster.QuorumMajority, 0},
}

// TestSchedules draws schedules of lost, doubled and reordered messages,
// crashes between any two effects, reboots, wiped and extra servers, views that
// are wrong and timers at any moment. Never do two instances hold GO. At the end
// the network heals, and every server learns the same decree.
func TestSchedules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom(sizes).Draw(rt, "size")
		w := newWorld(t, size.n, size.rule)
		harm := size.harm
		for harm > 0 && rapid.IntRange(0, 3).Draw(rt, "extra") == 0 {
			w.add(testConfig(size.n, size.rule))
			harm--
		}
		w.crash = func(_ *server, effects int) int {
			if effects > 0 && rapid.IntRange(0, 29).Draw(rt, "crash") == 0 {
				return rapid.IntRange(0, effects-1).Draw(rt, "after")
			}
			return -1
		}
		w.bootAll()
		for range rapid.IntRange(20, 150).Draw(rt, "steps") {
			harm -= w.disturb(rt, harm)
			if len(w.goHeld) > 1 {
				rt.Fatalf("GO was held by %v", sorted(w.goHeld))
			}
		}
		w.crash = nil
		w.heal(rt)
	})
}

// disturb does one random thing and returns how much harm it did.
func (w *world) disturb(rt *rapid.T, harm int) int {
	s := w.servers[rapid.IntRange(0, len(w.servers)-1).Draw(rt, "server")]
	switch k := rapid.IntRange(0, 99).Draw(rt, "what"); {
	case k < 60 && len(w.net) > 0:
		i := rapid.IntRange(0, min(len(w.net), 40)-1).Draw(rt, "packet")
		p := w.net[i]
		if rapid.IntRange(0, 19).Draw(rt, "again") != 0 {
			w.net = slices.Delete(w.net, i, i+1)
		}
		if rapid.IntRange(0, 14).Draw(rt, "lost") != 0 {
			w.deliver(p)
		}
	case k < 80:
		kinds := []TimerKind{TimerPropose, TimerResend, TimerSpread, TimerAsk, TimerUnfit, TimerSilence, TimerStand}
		w.step(s, Timer{Kind: rapid.SampledFrom(kinds).Draw(rt, "timer")})
	case k < 88:
		var group []*server
		for _, p := range w.servers {
			if rapid.IntRange(0, 4).Draw(rt, "seen") != 0 {
				group = append(group, p)
			}
		}
		w.step(s, w.view(s, group))
	case k < 92:
		w.step(s, Fitness{LeaderFit: rapid.Bool().Draw(rt, "leaderFit"), GoFit: rapid.Bool().Draw(rt, "goFit")})
	case k < 94 && harm > 0:
		s.wipe()
		w.bootUp(s)
		return 1
	default:
		s.up = false
		w.bootUp(s)
	}
	return 0
}

// heal lets every server run, see all others and be fit, and demands one decree
// that all know.
func (w *world) heal(rt *rapid.T) {
	for _, s := range w.servers {
		if !s.up {
			w.bootUp(s)
		}
		w.step(s, Fitness{LeaderFit: true, GoFit: true})
	}
	w.meet(w.servers...)
	w.run(time.Minute)
	if slices.ContainsFunc(w.servers, func(s *server) bool { return s.core.Decree().Phase != PhaseGo }) {
		w.run(30 * time.Minute) // a leader that was wiped is deposed after ten
	}
	first := w.servers[0].core.Decree()
	for _, s := range w.servers {
		d := s.core.Decree()
		if d.Phase != PhaseGo || d.Leader != first.Leader || d.Epoch != first.Epoch {
			rt.Fatalf("%s knows %s of %s in epoch %d, %s knows %s of %s in epoch %d; %s", s.self.Name, d.Phase, d.Leader.Inst, d.Epoch,
				w.servers[0].self.Name, first.Phase, first.Leader.Inst, first.Epoch, s.core.Explain())
		}
	}
	if w.goHeld[first.Leader.Inst] && len(w.goHeld) == 1 {
		return
	}
	// The leader may have lost its disk before it learned GO: then nobody holds it.
	for _, s := range w.servers {
		if s.disk.Inst == first.Leader.Inst || len(w.goHeld) > 0 {
			rt.Fatalf("GO is held by %v, decided for %s", sorted(w.goHeld), first.Leader.Inst)
		}
	}
}

// TestSchedulesOutsideTheLaw keeps TestSchedules honest: with one harm more than
// the law allows, drawn so that the two quorums meet only in the wiped server,
// two instances hold GO.
func TestSchedulesOutsideTheLaw(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumMajority)
	w.bootAll()
	w.meet(w.servers[:2]...)
	w.quiet()
	w.servers[1].wipe()
	w.bootUp(w.servers[1])
	w.meet(w.servers[1:]...)
	w.run(time.Minute)
	if len(w.goHeld) != 2 {
		t.Errorf("GO was held by %v, expected two: 1 wiped > 2q-N-1 = 0", sorted(w.goHeld))
	}
}

// TestQuietNetworkCost bounds what forming costs when nothing goes wrong.
func TestQuietNetworkCost(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	before := map[*server]uint64{}
	for _, s := range w.servers {
		before[s] = s.disk.Seq
	}
	w.meet(w.servers...)
	w.quiet()
	for i, s := range w.servers {
		limit := uint64(5)
		if writes := s.disk.Seq - before[s]; writes > limit {
			t.Errorf("server %d wrote its state %d times until GO, expected at most %d", i, writes, limit)
		}
	}
}
