package election

import (
	"encoding/binary"
	"slices"
)

// cell numbers a cell.
func (c *checker) cell(x cell) uint16 {
	var key [64]byte
	k := binary.LittleEndian.AppendUint16(key[:0], x.local)
	k = binary.LittleEndian.AppendUint16(k, x.deaf)
	for _, a := range x.answers {
		k = binary.LittleEndian.AppendUint16(k, a)
	}
	id, ok := c.cellz[string(k)]
	if !ok {
		if len(c.cells) >= 1<<16 {
			c.t.Fatal("too many cells: the search has to be smaller")
		}
		if l := c.locals[x.local].core; len(l.try.votes) > 1 || len(l.stand.votes) > 0 {
			c.t.Fatalf("half a count in a situation, where servers that are alike change places: %+v", l.try)
		}
		id = uint16(len(c.cells))
		c.cellz[string(k)] = id
		c.cells = append(c.cells, x)
	}
	return id
}

// sent numbers a set of messages and judges it.
func (c *checker) sent(all set) uint16 {
	if id, ok := c.sets[all]; ok {
		return id
	}
	if len(c.sents) >= 1<<16 {
		c.t.Fatal("too many sets of messages: the search has to be smaller")
	}
	s := sent{set: all}
	var facts []question
	spent := false
	all.each(func(q uint16) {
		x := c.questions[q]
		facts = append(facts, x)
		if x.fact == "" {
			s.list = append(s.list, q)
		}
		if x.m.Kind == Prepare && !c.beyond(x.m) {
			s.attempts++
		}
		spent = spent || x.fact == noneLeft
	})
	if spent {
		s.attempts = c.fence.attempts
	}
	s.broken = c.fence.property(facts)
	c.sets[all] = uint16(len(c.sents))
	c.sents = append(c.sents, s)
	return c.sets[all]
}

// after puts a result in a server's place. Answers that nobody waits for, now
// that this server moved on, are dropped everywhere.
func (c *checker) after(s state, i int, r int32) state {
	res := &c.results[r]
	old := c.cells[s[i]].local
	if len(res.questions) > 0 {
		s[atSent] = c.say(s[atSent], r)
	}
	w := c.waiting(&s, i, res.next)
	ws := c.waiters(w)
	was := c.locals[old].waits != c.locals[res.next].waits
	for j := range c.m {
		switch {
		case j == i:
			s[j] = c.swap(s[j], r, true, &w, ws)
		case was && len(c.cells[s[j]].answers) > 0:
			s[j] = c.swap(s[j], r, false, &w, ws)
		}
	}
	return s
}

// say is what was sent, with what a result adds.
func (c *checker) say(from uint16, r int32) uint16 {
	key := [2]uint32{uint32(from), uint32(r)}
	if to, ok := c.said[key]; ok {
		return to
	}
	all := c.sents[from].set
	for _, q := range c.results[r].questions {
		if int(q) >= 64*len(all) {
			c.t.Fatal("too many questions: the search has to be smaller")
		}
		all = all.with(q)
	}
	c.said[key] = c.sent(all)
	return c.said[key]
}

// waiters is what the servers wait for, and whether none will try again.
type waiters struct {
	waits [maxServers]uint16
	spent bool
}

// waiting is who waits once server i is in local next.
func (c *checker) waiting(s *state, i int, next uint16) waiters {
	w := waiters{spent: c.spent(s)}
	for j := range c.m {
		l := c.cells[s[j]].local
		if j == i {
			l = next
		}
		w.waits[j] = c.locals[l].waits
	}
	return w
}

func (c *checker) waiters(w waiters) uint32 {
	id, ok := c.waitz[w]
	if !ok {
		id = uint32(len(c.waitz) + 1)
		c.waitz[w] = id
	}
	return id
}

// swap is a cell after a result, its own or another server's.
func (c *checker) swap(from uint16, r int32, own bool, w *waiters, ws uint32) uint16 {
	key := [3]uint32{uint32(from), 0, ws}
	if own {
		key[1] = uint32(r) + 1
	}
	if to, ok := c.swaps[key]; ok {
		return to
	}
	x := cell{local: c.cells[from].local, deaf: c.cells[from].deaf, answers: slices.Clone(c.cells[from].answers)}
	if own {
		x.local = c.results[r].next
		x.answers = append(x.answers, c.results[r].answers...)
	}
	x.answers = slices.DeleteFunc(x.answers, func(a uint16) bool {
		return w.spent && c.answers[a].Kind == Nack ||
			!slices.ContainsFunc(w.waits[:], func(id uint16) bool { return c.awaited(c.answers[a], c.waits[id]) })
	})
	slices.Sort(x.answers)
	x.answers = slices.Compact(x.answers)
	c.swaps[key] = c.cell(x)
	return c.swaps[key]
}

// awaited says whether an answer may still matter to one who waits.
func (c *checker) awaited(a Message, w wait) bool {
	switch a.Kind {
	case Stands:
		return w.nonce != "" && a.Nonce == w.nonce && a.Standing // a no counts for nothing, it is for people
	case Promise:
		return w.ballot != (Ballot{}) && a.Ballot == w.ballot && !w.accepting
	}
	return w.ballot != (Ballot{}) && a.Ballot == w.ballot
}

// silent is the set of questions that nobody asks any more.
func (c *checker) silent(s *state) uint16 {
	w := c.waiting(s, -1, 0)
	key := [2]uint32{uint32(s[atSent]), c.waiters(w)}
	if to, ok := c.births[key]; ok {
		return to
	}
	var over set
	for _, q := range c.sents[s[atSent]].list {
		if m := c.questions[q].m; m.Kind != Tell && !c.running(m, &w) {
			over = over.with(q)
		}
	}
	c.births[key] = c.sent(over)
	return c.births[key]
}

// running says whether somebody still asks a question.
func (c *checker) running(m Message, w *waiters) bool {
	return slices.ContainsFunc(w.waits[:], func(id uint16) bool {
		x := c.waits[id]
		switch m.Kind {
		case Stand:
			return x.nonce == m.Nonce
		case Prepare, Accept:
			return x.ballot == m.Ballot && x.accepting == (m.Kind == Accept)
		}
		return false
	})
}
