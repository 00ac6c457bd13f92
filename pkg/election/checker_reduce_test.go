package election

import "slices"

// noneLeft is a fact: all attempts that the case allows were made. It stands for
// the questions that no longer matter then.
const noneLeft = "no attempt is left"

// spent says that no server will begin another attempt, in a case where that
// allows to leave more out.
func (c *checker) spent(s *state) bool {
	return (c.fence.reduced || c.superseding()) && c.sents[s[atSent]].attempts >= c.fence.attempts
}

// reduce takes out of a situation what can no longer make a difference once all
// attempts were made: see reduction 7.
func (c *checker) reduce(s *state) {
	if !c.spent(s) {
		return
	}
	for i := range c.m {
		if !c.holder(i) {
			s[i] = c.heir(s[i])
		}
	}
	s[atSent] = c.live(s)
}

// heir is a proposer that is done, as a server that never proposes.
func (c *checker) heir(from uint16) uint16 {
	l := &c.locals[c.cells[from].local]
	if l.place >= c.fence.proposers || l.waits != 0 {
		return from
	}
	if to, ok := c.heirs[from]; ok {
		return to
	}
	heir := c.boot(c.fence.proposers, life{}, l.cfg, nil, "boot0")
	if l.disk.Seq > 0 {
		disk := heir.disk
		disk.Slots, disk.Lowered = l.disk.Slots, l.disk.Lowered
		heir = c.boot(c.fence.proposers, life{}, l.cfg, &disk, "boot0")
	}
	c.heirs[from] = c.cell(cell{local: c.local(heir), deaf: c.cells[from].deaf, answers: c.cells[from].answers})
	return c.heirs[from]
}

// live is the set of what was sent without questions that can only stop somebody.
func (c *checker) live(s *state) uint16 {
	w := c.waiting(s, -1, 0)
	slices.Sort(w.waits[:])
	key := [2]uint32{uint32(s[atSent]), c.waiters(w)}
	if to, ok := c.lives[key]; ok {
		return to
	}
	preparing := slices.ContainsFunc(w.waits[:], func(id uint16) bool {
		return c.waits[id].ballot != (Ballot{}) && !c.waits[id].accepting
	})
	all := set{}.with(c.ask(question{fact: noneLeft}))
	c.sents[s[atSent]].set.each(func(q uint16) {
		m := c.questions[q].m
		runs := c.running(m, &w)
		switch m.Kind {
		case Prepare:
			if !runs {
				return
			}
		case Accept:
			if !runs && !preparing {
				return
			}
		}
		all = all.with(q)
	})
	c.lives[key] = c.sent(all)
	return c.lives[key]
}
