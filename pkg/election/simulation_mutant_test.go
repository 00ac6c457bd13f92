package election

import (
	"math"
	"slices"
	"testing"
	"time"
)

// mutant is a deliberately broken fence, as hooks around the real one. The zero
// mutant is none.
type mutant struct {
	name  string
	sizes []size

	tune    func(*sim)                              // where it shows
	config  func(*Config)                           // another configuration for all
	strange func(*Config)                           // for servers whose numbers were changed
	booted  func(*sim, *machine)                    // after a core was made
	event   func(*sim, *machine, Event) Event       // before the core sees it
	effects func(*sim, *machine, []Effect) []Effect // before they are carried out
	holds   func(*sim, *machine) bool               // a right to kubeadm init beside the core's
	lazy    bool                                    // nothing is synced
}

// broken reports whether there is a mutant.
func (m *mutant) broken() bool { return m.name != "" }

// Where mutants show: servers that race and lose messages, that crash often,
// whose disks fail often, that see partitions; and with an operator.
func race(w *sim) {
	w.mode, w.rates.duel, w.rates.drop, w.rates.harm, w.rates.strange, w.rates.cut = modePlain, true, 5, 10, 0, 15
}

func crashing(w *sim) {
	race(w)
	w.rates.crash = 20
}

func crashingOften(w *sim) {
	race(w)
	w.rates.crash = 8
}

func otherNumbers(w *sim) {
	race(w)
	w.rates.strange = 20
}

func lowering(w *sim) {
	race(w)
	w.mode, w.rates.order = modeLower, 20
}

func superseding(w *sim) {
	race(w)
	w.mode, w.rates.order = modeSupersede, 60
}

func supersedingDisks(w *sim) {
	superseding(w)
	w.rates.harm = 30
}

var mutants = []mutant{
	{name: "nothing is synced", sizes: []size{{3, 2, 0}, {4, 3, 0}}, tune: crashing, lazy: true},
	{name: "nothing is synced, every server is needed", sizes: []size{{3, 3, 0}}, tune: crashing, lazy: true},
	{name: "answers before it writes", sizes: []size{{3, 2, 0}}, tune: crashingOften, effects: answerFirst},
	{name: "a quorum one too low", sizes: []size{{4, 3, 0}, {3, 2, 0}}, config: func(c *Config) { c.Q-- }},
	{name: "half is a quorum", sizes: []size{{2, 2, 0}, {4, 3, 0}}, config: func(c *Config) { c.Q = c.N / 2 }},
	{name: "a lease: who misses the holder of GO takes over", sizes: []size{{3, 3, 0}, {4, 3, 0}}, event: missHolder,
		holds: func(_ *sim, m *machine) bool { return m.misses && m.core.state.Gone() }},
	{name: "silence deposes without a vote", sizes: []size{{3, 3, 0}, {4, 3, 0}}, event: deposeAlone},
	{name: "the same hardware may go on after a wipe", sizes: []size{{3, 3, 2}, {4, 3, 1}}, tune: wiping, holds: sameHardware},
	{name: "the lowest id in a full view without votes, and a wipe", sizes: []size{{3, 3, 1}}, tune: wiping, effects: mute, holds: lowest},
	{name: "the lowest id in a full view without votes, and an extra server", sizes: []size{{3, 3, 1}}, tune: crowded, effects: mute, holds: lowest},
	{name: "a promise without what was accepted", sizes: []size{{3, 2, 0}, {4, 3, 1}}, tune: race, effects: forget},
	{name: "the first value reported, not the highest ballot's", sizes: []size{{3, 2, 0}, {5, 3, 0}}, tune: race, event: firstValue},
	{name: "accepts below its promise", sizes: []size{{3, 2, 0}, {5, 3, 0}}, tune: race, event: acceptLower},
	{name: "counts the votes of other numbers", sizes: []size{{5, 3, 0}}, tune: otherNumbers, strange: fewer, booted: pass},
	{name: "a superseded holder of GO rises after a reboot without asking", sizes: []size{{3, 3, 0}, {5, 4, 0}}, tune: superseding, event: riseAlone},
	{name: "whoever promised to supersede confirms GO all the same", sizes: []size{{3, 3, 0}, {5, 4, 0}}, tune: superseding, effects: confirmAnyway},
	{name: "whoever did not vote for GO confirms it", sizes: []size{{3, 3, 1}, {4, 3, 1}}, tune: supersedingDisks, event: confirmBlindly},
	{name: "supersedes with a vote too few", sizes: []size{{3, 3, 0}, {5, 4, 0}}, tune: superseding, event: ghostVote},
	{name: "a lowered quorum one below the majority", sizes: []size{{3, 3, 0}, {5, 4, 0}}, tune: lowering, event: ghostVote},
}

func wiping(w *sim) { w.mode, w.rates.extra, w.rates.harm = modePlain, 0, 20 }

func crowded(w *sim) { w.mode, w.rates.extra, w.rates.harm = modePlain, 1, 0 }

// riseAlone takes the marker for the right, whatever boot it is.
func riseAlone(_ *sim, _ *machine, e Event) Event {
	if start, ok := e.(Start); ok {
		start.Stands = true
		return start
	}
	return e
}

// confirmAnyway forgets that something was promised after GO.
func confirmAnyway(_ *sim, m *machine, effects []Effect) []Effect {
	for i, e := range effects {
		if s, ok := e.(Send); ok && s.Message.Kind == Stands {
			st := m.core.state
			l, _, led := st.Leader()
			s.Message.Standing = led && st.Gone() && l.Inst == s.To && st.Slots[st.known()-1].Voted
			effects[i] = s
		}
	}
	return effects
}

// confirmBlindly takes a decision that was learnt for one that was voted for.
func confirmBlindly(_ *sim, m *machine, e Event) Event {
	if r, ok := e.(Received); ok && r.Message.Kind == Stand {
		if n := m.core.state.known(); n > 0 {
			m.core.state.Slots = slices.Clone(m.core.state.Slots)
			m.core.state.Slots[n-1].Voted = true
		}
	}
	return e
}

// ghostVote counts one vote that nobody gave where an operator spoke.
func ghostVote(_ *sim, m *machine, e Event) Event {
	if t := &m.core.try; t.running() && (m.core.state.Lowered || m.core.state.everGone()) {
		t.votes = with(t.votes, "nobody")
	}
	return e
}

// missHolder notes that a timer ran out while the holder of GO was not seen.
func missHolder(_ *sim, m *machine, e Event) Event {
	if _, ok := e.(Timer); ok && m.core.state.Gone() {
		l, _, _ := m.core.state.Leader()
		m.misses = m.misses || l.Inst != m.core.state.Inst && !m.core.roll.shows(l.Inst)
	}
	return e
}

// deposeAlone makes the silence timer decide ABDICATE.
func deposeAlone(_ *sim, m *machine, e Event) Event {
	st := m.core.state
	l, _, led := st.Leader()
	if e == (Event)(Timer{Kind: TimerSilence}) && led && !st.Gone() && l.Inst != st.Inst && !m.core.roll.shows(l.Inst) {
		return Received{From: Sender{Inst: "nobody", HW: "nobody"}, Message: Message{Version: MessageVersion, Kind: Tell, SpecID: st.SpecID,
			Config: st.Config, Decided: append(st.Decided(), Value{Kind: Abdicate})}}
	}
	return e
}

func sameHardware(_ *sim, m *machine) bool {
	l, _, ok := m.core.state.Leader()
	return ok && m.core.state.Gone() && l.HW == m.hw
}

// mute keeps a server from proposing.
func mute(_ *sim, _ *machine, effects []Effect) []Effect {
	return slices.DeleteFunc(effects, func(e Effect) bool {
		s, ok := e.(Send)
		return ok && s.Message.Kind == Prepare
	})
}

// lowest is the rule of the lowest id: who sees all that are expected, none of
// which began, and is the first of them.
func lowest(w *sim, m *machine) bool {
	r := m.core.roll
	return len(r.hardware) >= m.cfg.N && r.hardware[0] == m.hw &&
		!slices.ContainsFunc(r.insts, func(inst string) bool { return slices.Contains(w.held, inst) })
}

// answerFirst moves writes behind what they must precede.
func answerFirst(_ *sim, _ *machine, effects []Effect) []Effect {
	slices.SortStableFunc(effects, func(a, b Effect) int {
		_, x := a.(Persist)
		_, y := b.(Persist)
		switch {
		case x && !y:
			return 1
		case y && !x:
			return -1
		}
		return 0
	})
	return effects
}

func forget(_ *sim, _ *machine, effects []Effect) []Effect {
	for i, e := range effects {
		if s, ok := e.(Send); ok && s.Message.Kind == Promise {
			s.Message.Accepted, s.Message.Value = Ballot{}, Value{}
			effects[i] = s
		}
	}
	return effects
}

func firstValue(_ *sim, m *machine, e Event) Event {
	if r, ok := e.(Received); ok && r.Message.Kind == Promise && m.core.try.best != (Ballot{}) {
		r.Message.Accepted, r.Message.Value = Ballot{}, Value{}
		return r
	}
	return e
}

func acceptLower(_ *sim, m *machine, e Event) Event {
	r, ok := e.(Received)
	if ok && r.Message.Kind == Accept && r.Message.Slot < len(m.core.state.Slots) {
		m.core.state.Slots = slices.Clone(m.core.state.Slots)
		if x := &m.core.state.Slots[r.Message.Slot]; r.Message.Ballot.Less(x.Promised) && x.Decided == (Value{}) {
			x.Promised = r.Message.Ballot
		}
	}
	return e
}

// fewer are the numbers of a user-data that was rendered for fewer servers.
func fewer(c *Config) {
	c.N, c.Q = 3, 2
}

// pass gives every server the same config hash, whatever its numbers are.
func pass(w *sim, m *machine) {
	m.core.hash = w.config().Hash()
	m.core.state.Config = m.core.hash
}

// caught is how many schedules must show a mutant, so that its detection does
// not hang on one. There may be up to mutantSchedules.
const (
	caught          = 5
	mutantSchedules = 10_000
)

// TestSimulationCatchesMutants plays schedules with a fence that is broken in
// one way, and demands that two decrees come out. It ends with the fifth time;
// with -schedules it counts in as many.
func TestSimulationCatchesMutants(t *testing.T) {
	if raced {
		t.Skip("the race detector has TestSimulation")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			count, enough := mutantSchedules, int64(caught)
			if *schedulesFlag > 0 {
				count, enough = *schedulesFlag, math.MaxInt64
			}
			got := simulate(count, time.Hour, m.sizes, m, enough)
			t.Logf("two decrees in %d of %d schedules, first with seed %d", got.failures, got.schedules, got.first)
			if got.failures < caught {
				t.Errorf("two decrees in %d of %d schedules, expected at least %d: the simulation would not notice this fault",
					got.failures, got.schedules, caught)
			}
		})
	}
}

// TestSimulationWhereMutantsShow plays the schedules of the mutants with the
// fence as it is.
func TestSimulationWhereMutantsShow(t *testing.T) {
	if raced {
		t.Skip("the race detector has TestSimulation")
	}
	count := max(500, *schedulesFlag)
	for _, m := range mutants {
		if m.config != nil || m.tune == nil {
			continue // as in TestSimulation
		}
		sound := mutant{tune: m.tune}
		got := simulate(count, time.Hour, m.sizes, sound, 1)
		if got.failures > 0 {
			trace, failure := replay(got.first, m.sizes, sound)
			t.Fatalf("%s, seed %d: %s\n%s", m.name, got.first, failure, trace)
		}
	}
}
