package election

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// mode is what else than faults may happen in a schedule.
type mode int

const (
	modePlain     mode = iota
	modeLower          // an operator lowers the quorum, on any side of a partition
	modeSupersede      // an operator supersedes holders of GO that are off
	modeElectors       // only named servers vote
	modeJoining        // some servers joined later, with user-data that says so
	modes
)

// rates says how often things happen: once in so many chances, never with 0.
type rates struct {
	extra                     int  // servers too many
	crash, drop, again, wrong int  // crashes in a step, losses, duplicates, wrong views
	harm, strange, order      int  // in 1000 steps
	cut, fit, copy            int  // partitions and fitness in 1000 steps; copies of a disk, one in so many writes
	duel                      bool // servers race, and who decides falls silent
}

// death is an operator's word that the holder of GO is off.
type death struct {
	inst string
	m    *machine
	boot int // none of whose boots from this one on may stand
}

func newSim(seed uint64, sizes []size, m mutant, tracing bool) *sim {
	w := &sim{rnd: rand.New(rand.NewPCG(seed, 0)), mut: m, tracing: tracing}
	w.size = sizes[w.rnd.IntN(len(sizes))]
	w.codec = w.chance(32)
	w.mode = mode(max(0, w.rnd.IntN(2*int(modes)-2)-int(modes)+2))
	w.rates = rates{
		crash: w.oneOf(0, 200, 80, 30), drop: w.oneOf(0, 0, 20, 5), again: w.oneOf(0, 20, 5), wrong: w.oneOf(0, 12, 3),
		extra: 4, harm: 7, strange: 2, order: 20, cut: 10, fit: 18, copy: 8, duel: w.chance(4),
	}
	if m.tune != nil {
		m.tune(w)
	}
	if w.mode == modeSupersede && w.size.n < 3 {
		w.mode = modePlain // there is no majority without the dead
	}
	w.setLimits()
	w.say("%d servers, %d votes decide, at most %d are harmed, mode %d, %+v", w.size.n, w.size.q, w.limit, w.mode, w.rates)
	for range w.size.n {
		w.add("")
	}
	w.addMore()
	return w
}

// setLimits says how much harm the law allows. Where an operator lets a majority
// decide, it is the law of majorities. After a GO is superseded its holder has no
// vote, so that two majorities share one server more; but a confirmation that GO
// stands needs one that remembers, so no more than before may be extra or put
// back.
func (w *sim) setLimits() {
	w.limit, w.hard = w.size.harm, w.size.harm
	low := Tolerated(w.size.n, Majority(w.size.n))
	switch w.mode {
	case modeLower:
		w.limit, w.hard = min(w.limit, low), min(w.limit, low)
	case modeSupersede:
		w.limit, w.hard = min(w.limit, low+1), min(w.limit, low)
	}
}

// addMore racks servers that nobody expects.
func (w *sim) addMore() {
	if w.mode == modeElectors || w.mode == modeJoining {
		for range 1 + w.rnd.IntN(2) {
			m := w.add("")
			m.outside = true
			if w.mode == modeJoining {
				m.cfg.Joining, m.cfg.JoinCA = true, "sha256:ca-of-the-cluster"
			}
		}
	}
	for w.harm < w.limit && w.hard > 0 && w.mode != modeElectors && w.chance(w.rates.extra) {
		hw := ""
		if w.chance(3) { // the firmware gave two servers the same identity
			hw = w.machines[w.rnd.IntN(w.size.n)].hw
		}
		w.add(hw)
		w.harm++
		w.hard--
		w.saw(sawExtra)
	}
}

func (w *sim) oneOf(choice ...int) int { return choice[w.rnd.IntN(len(choice))] }

// chance is true once in n times, never for n = 0.
func (w *sim) chance(n int) bool { return n > 0 && w.rnd.IntN(n) == 0 }

// config is the user-data of a cluster of this size.
func (w *sim) config() Config {
	c := Config{SpecID: testSpec, N: w.size.n, Q: w.size.q, Rule: "safe"}
	if w.mode == modeElectors {
		for i := range c.N {
			c.Electors = append(c.Electors, hardware(i))
		}
	}
	if w.mut.config != nil {
		w.mut.config(&c)
	}
	return c
}

func hardware(i int) string { return fmt.Sprintf("hw%02d", i) }

func (w *sim) add(hw string) *machine {
	i := len(w.machines)
	m := &machine{id: i, hw: hw, cfg: w.config(), disk: disk{lazy: w.mut.lazy}}
	if hw == "" {
		m.hw = hardware(i)
	} else {
		m.harmed = true // one hardware id with two memories
	}
	m.self = Self{Name: fmt.Sprintf("cp%d", i), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Eligible: i < 2 || w.mode == modeSupersede || !w.chance(3)}
	w.machines = append(w.machines, m)
	w.say("%s is racked with hardware %s", m.self.Name, m.hw)
	return m
}
