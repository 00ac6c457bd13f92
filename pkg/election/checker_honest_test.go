package election

import (
	"slices"
	"testing"
)

// Mutants of the driver below a core: ways to carry out effects that are wrong.
const (
	sendFirst = "sends before it persists"
	noDisk    = "persists nothing after the first boot"
	oneRun    = "is always in one run"
	credulous = "takes who learned a decision for a witness of it"
)

// witness is a state that says to have voted for all that it knows.
func witness(s State) State {
	s.Slots = slices.Clone(s.Slots)
	for i := range s.Slots {
		s.Slots[i].Voted = s.Slots[i].Decided != Value{}
	}
	return s
}

// TestCheckerFindsMutants keeps the checker honest: with nothing wiped and nothing
// extra, a driver that breaks the order of effects makes two decrees.
func TestCheckerFindsMutants(t *testing.T) {
	for _, mutant := range []string{sendFirst, noDisk} {
		t.Run(mutant, func(t *testing.T) {
			f := alike(3, 0, 2, 0, 2, 2)
			f.title, f.reduced, f.mutant = "N=3 x=0 q=2, a driver that "+mutant, false, mutant
			f.search(t, false, false)
		})
	}
}

// TestTallyOrder holds reduction 3: an answer that completes no quorum changes
// nothing but the count, so it may as well come later, and in any order.
func TestTallyOrder(t *testing.T) {
	if raced {
		t.Skip("one goroutine: nothing for the race detector")
	}
	f := alike(4, 0, 3, 1, 2, 2)
	f.reduced = false
	c := newChecker(t, f)
	c.run(20_000)
	given, checked := len(c.locals), 0
	for l := range uint16(given) {
		for i, a := range c.answers {
			for j := range c.m {
				voted := slices.Contains(c.locals[l].core.try.votes, c.hw(j)) // its better report alone does the same as both
				if j == c.locals[l].place || voted || a.Kind == Nack || !c.awaited(a, c.waits[c.locals[l].waits]) {
					continue
				}
				counted := c.results[c.answer(l, uint16(i), j)]
				if counted.next != l && c.locals[counted.next].waits == c.locals[l].waits && len(counted.questions) == 0 {
					checked += c.commutes(l, counted.next, uint16(i), j)
				}
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d pairs were compared, expected thousands", checked)
	}
	t.Logf("%d pairs", checked)
}

// commutes compares what a local does with everything else before and after it
// counted an answer that did not complete a quorum.
func (c *checker) commutes(before, after, answer uint16, from int) (checked int) {
	same := func(what string, first, then int32) {
		checked++
		// first: the other event, then the answer. then: the answer, then the other.
		a, b := c.results[first], c.results[then]
		next := a.next
		if c.locals[next].waits == c.locals[before].waits {
			next = c.results[c.answer(next, answer, from)].next
		}
		if next != b.next || !slices.Equal(a.questions, b.questions) || !slices.Equal(a.answers, b.answers) {
			c.t.Errorf("%s and an answer to %+v do not commute:\n%+v\n%+v", what, c.locals[before].core.try, c.locals[next].core, c.locals[b.next].core)
		}
	}
	for q := range uint16(len(c.questions)) {
		if c.questions[q].fact == "" {
			same(c.questions[q].say(), c.on(before, q), c.on(after, q))
		}
	}
	for i, a := range c.answers {
		for j := range c.m {
			voted := slices.Contains(c.locals[before].core.try.votes, c.hw(j))
			if j == from || j == c.locals[before].place || voted || a.Kind == Nack || !c.awaited(a, c.waits[c.locals[before].waits]) {
				continue
			}
			if b := c.answers[answer]; a.Accepted == b.Accepted && a.Value != b.Value {
				continue // of two different executions: a ballot has one value
			}
			r, s := c.answer(before, uint16(i), j), c.answer(after, uint16(i), j)
			if c.locals[c.results[s].next].waits == c.locals[before].waits {
				same(sayMessage(a), r, s)
				continue
			}
			// Both together complete the quorum, in either order with one result.
			checked++
			if r = c.answer(c.results[r].next, answer, from); c.results[r].next != c.results[s].next || !slices.Equal(c.results[r].questions, c.results[s].questions) {
				c.t.Errorf("the order of %s and %s matters to %+v", sayMessage(a), sayMessage(c.answers[answer]), c.locals[before].core.try)
			}
		}
	}
	return checked
}

// TestLearnedIsSilent holds reduction 6: a server that knows what is decided has
// nothing to say any more but that, and a server that is told says no more.
func TestLearnedIsSilent(t *testing.T) {
	if raced {
		t.Skip("one goroutine: nothing for the race detector")
	}
	f := alike(3, 0, 2, 1, 2, 2)
	f.reduced = false
	c := newChecker(t, f)
	c.run(20_000)
	checked := 0
	for l := range uint16(len(c.locals)) {
		for q := range uint16(len(c.questions)) {
			if c.locals[l].core.state.known() == 0 || c.questions[q].fact != "" {
				continue
			}
			checked++
			r := c.results[c.on(l, q)]
			if len(r.answers) > 0 || slices.ContainsFunc(r.questions, func(q uint16) bool { return c.questions[q].m.Kind != Tell && c.questions[q].fact == "" }) {
				t.Errorf("%s makes a server speak that knows what is decided: %+v", c.questions[q].say(), r)
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d pairs were looked at, expected thousands", checked)
	}
}
