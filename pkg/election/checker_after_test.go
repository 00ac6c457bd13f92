package election

import "slices"

// The search of what follows a GO that all know begins where a prologue ends, and
// its slot is the one that supersedes the holder, the first server. On top of the
// reductions at the head of checker_test.go:
//
//  8. What takes nothing from anybody is done at once, and in one order: a server that
//     does not know of GO learns it; a question that changes nothing in the server
//     but that it answers (again) is answered; who waits asks again. In each case what
//     was possible before still is: messages are only added, and a message that is
//     there may be lost. A server without GO has nobody left to answer: the slots
//     before are decided, and nobody asks about them any more.
//  9. News of the decree that supersedes is not delivered, and nothing of the slot after
//     it: who knows it is silent in this one (TestLearnedIsSilent), as if all messages
//     to it were lost. For the same reason the one that decided it does no more. It may
//     still lose its disk, after which it is a server that knows nothing.
// 10. The holder has no vote in this slot, so all that it may do is to boot, and to ask
//     whether its GO stands. It boots once, at once when the decree is there: a boot
//     before is not in question, a second one asks the same again, and a later one gets
//     answers only that an earlier one gets too, since a question stays in the network
//     and who confirms late could confirm before. It hears of no decree, which would
//     stop it, and its disk is not lost, which would end it.
// 11. As 7, once all B attempts were made: no more crashes, Nacks, and messages of
//     attempts that are over.
//
// TestReductionsSuperseded compares small cases with all moves.

// superseding says that the search is one of what follows decided slots.
func (c *checker) superseding() bool { return c.past && c.fence.settled > 0 }

// beyond says that a message is of a slot after the one that is searched.
func (c *checker) beyond(m Message) bool { return c.fence.settled > 0 && m.Slot > c.fence.settled }

// holder says that a server is the holder of GO that others supersede.
func (c *checker) holder(i int) bool { return c.superseding() && i == 0 }

// hasten yields one move that takes nothing from anybody, if there is any; it reports
// whether there was: see reduction 8.
func (c *checker) hasten(s state, yield func(state, move)) bool {
	moved := false
	once := func(next state, m move) {
		if !moved {
			moved = true
			yield(next, m)
		}
	}
	for i := 0; i < c.m && !moved; i++ {
		if c.doubled(&s, i) {
			continue
		}
		l := c.cells[s[i]].local
		c.replies(s, i, l, once)
		if c.holder(i) && c.late(s) == 1 {
			c.go1(s, move{kind: moveCrash, server: i, result: c.reboot(l, 0, 1, false)}, once)
		}
		if c.locals[l].place < c.fence.proposers {
			c.repeats(s, i, l, func(next state, m move) {
				if c.results[m.result].next == l {
					once(next, m)
				}
			})
		}
	}
	return moved
}

// replies lists the questions that only make a server answer, and news of GO.
func (c *checker) replies(s state, i int, l uint16, yield func(state, move)) {
	deaf := &c.sents[c.cells[s[i]].deaf].set
	for _, q := range c.sents[s[atSent]].list {
		m := &c.questions[q].m
		if deaf.has(q) || c.beyond(*m) || len(m.Decided) > c.fence.settled {
			continue
		}
		r := c.on(l, q)
		learns := m.Kind == Tell && c.locals[l].core.state.known() < c.fence.settled
		if learns || m.Kind != Tell && c.results[r].next == l {
			c.go1(s, move{kind: moveAsked, server: i, arg: q, result: r}, yield)
		}
	}
}

// decrees are the values that a search saw decided in a slot, sorted.
func (c *checker) decrees(slot int) []string {
	var out []string
	for _, q := range c.questions {
		if len(q.m.Decided) > slot {
			out = append(out, q.m.Decided[slot].describe())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
