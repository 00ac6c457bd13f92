package election

import (
	"fmt"
	"slices"
)

// successors lists what may happen next.
func (c *checker) successors(s state, yield func(state, move)) {
	if c.superseding() && c.hasten(s, yield) {
		return // reduction 8
	}
	sent := &c.sents[s[atSent]]
	for i := range c.m {
		if c.doubled(&s, i) {
			continue
		}
		l := c.cells[s[i]].local
		switch {
		case c.holder(i):
			c.proposer(s, i, l, c.fence.attempts, yield) // reduction 10
			continue
		case c.superseding() && c.locals[l].core.state.known() > c.fence.settled: // reduction 9
		default:
			c.hears(s, i, l, yield)
			if c.locals[l].place < c.fence.proposers {
				c.proposer(s, i, l, sent.attempts, yield)
			}
			c.crashes(s, i, l, yield)
		}
		if int(s[atWipes]) < c.fence.wipes && c.locals[l].disk.Seq > 0 {
			c.go1(s, move{kind: moveWipe, server: i, result: c.reboot(l, c.locals[l].cfg, c.late(s), true)}, yield)
		}
	}
}

// hears lists the questions that a server may be given.
func (c *checker) hears(s state, i int, l uint16, yield func(state, move)) {
	deaf := &c.sents[c.cells[s[i]].deaf].set
	for _, q := range c.sents[s[atSent]].list {
		m := &c.questions[q].m
		switch {
		case deaf.has(q):
		case c.fence.reduced && m.Kind == Tell && len(m.Decided) > 0: // reduction 6
		case c.superseding() && (m.Kind == Tell || c.beyond(*m)): // reduction 9
		default:
			c.go1(s, move{kind: moveAsked, server: i, arg: q, result: c.on(l, q)}, yield)
		}
	}
}

// crashes lists the configurations with which a server may boot again.
func (c *checker) crashes(s state, i int, l uint16, yield func(state, move)) {
	if c.spent(&s) {
		return // reduction 7
	}
	for cfg := range c.fence.cfgs {
		if cfg == c.fence.servers[i].cfg || c.fence.rerender {
			c.go1(s, move{kind: moveCrash, server: i, arg: uint16(cfg), result: c.reboot(l, cfg, c.late(s), false)}, yield)
		}
	}
}

// doubled says whether a server like this one was looked at already.
func (c *checker) doubled(s *state, i int) bool {
	for j := range i {
		if s[i] == s[j] && c.alike(s, i, j) {
			return true
		}
	}
	return false
}

// late says whether the case's turning point was passed; boots are told apart by it.
func (c *checker) late(s state) uint16 {
	if c.fence.turned == nil {
		return 0
	}
	sent := &c.sents[s[atSent]]
	for _, q := range sent.list {
		if c.fence.turned(c.questions[q]) {
			return 1
		}
	}
	return 0
}

// go1 yields a move and what crashes inside it leave, unless nothing changes.
func (c *checker) go1(s state, m move, yield func(state, move)) {
	r := &c.results[m.result]
	if len(r.torn) > 0 {
		for _, t := range r.torn {
			torn := m
			torn.result = t
			yield(c.after(s, m.server, t), torn)
		}
		r = &c.results[m.result]
	}
	x := &c.cells[s[m.server]]
	if r.next == x.local && len(r.questions) == 0 && (len(r.answers) == 0 || subset(r.answers, x.answers)) {
		return
	}
	next := c.after(s, m.server, m.result)
	if next == s {
		return // also a disk lost on which nothing mattered
	}
	if m.kind == moveWipe {
		next[atWipes]++
		x := c.cells[next[m.server]]
		if !c.fence.copies {
			x.deaf = c.silent(&next)
		}
		next[m.server] = c.cell(x)
	}
	yield(next, m)
}

func subset(a, b []uint16) bool {
	for _, x := range a {
		if _, found := slices.BinarySearch(b, x); !found {
			return false
		}
	}
	return true
}

// proposer lists what only a server that proposes may do.
func (c *checker) proposer(s state, i int, l uint16, attempts int, yield func(state, move)) {
	w := c.waits[c.locals[l].waits]
	if w.ballot == (Ballot{}) && attempts < c.fence.attempts {
		for k, view := range c.fence.servers[i].tries {
			r := c.when(eventKey{local: l, kind: moveTry, arg: uint16(k)}, func() []Event {
				var events []Event
				if c.fence.order != nil {
					events = append(events, c.fence.order)
				}
				if events = append(events, c.view(view)); c.fence.goFit {
					events = append(events, Timer{Kind: TimerSilence}, Timer{Kind: TimerUnfit})
				}
				return append(events, Timer{Kind: TimerPropose})
			})
			if c.results[r].seen.begun > 0 {
				c.go1(s, move{kind: moveTry, server: i, arg: uint16(k), result: r}, yield)
			}
		}
	}
	c.repeats(s, i, l, yield)
	for k, e := range c.fence.acts {
		r := c.when(eventKey{local: l, kind: moveAct, arg: uint16(k)}, func() []Event { return []Event{e} })
		c.go1(s, move{kind: moveAct, server: i, arg: uint16(k), result: r}, yield)
	}
	if w != (wait{}) {
		c.path = c.path[:0]
		c.answered(s, i, l, 0, yield)
	}
}

// repeats lists what a server that proposes asks again.
func (c *checker) repeats(s state, i int, l uint16, yield func(state, move)) {
	for k, kind := range []TimerKind{TimerResend, TimerSpread, TimerStand} {
		r := c.when(eventKey{local: l, kind: moveTimer, arg: uint16(k)}, func() []Event { return []Event{Timer{Kind: kind}} })
		c.go1(s, move{kind: moveTimer, server: i, arg: uint16(k), result: r}, yield)
	}
	if c.waits[c.locals[l].waits].nonce != "" {
		view := others(c.m, c.fence.proposers, i, c.m-1)
		r := c.when(eventKey{local: l, kind: moveStand}, func() []Event { return []Event{c.view(view), Timer{Kind: TimerStand}} })
		c.go1(s, move{kind: moveStand, server: i, result: r}, yield)
	}
}

// answered delivers answers of the servers from j on to proposer i, until it
// does something.
func (c *checker) answered(s state, i int, l uint16, j int, yield func(state, move)) {
	for ; j < c.m; j++ {
		if j == i {
			continue
		}
		for _, a := range c.cells[s[j]].answers {
			m := &c.answers[a]
			if !c.awaited(*m, c.waits[c.locals[l].waits]) || m.Kind == Nack && len(c.path) > 0 {
				continue // another's, or a Nack after promises, which undoes them
			}
			r := c.answer(l, a, j)
			next := c.results[r].next
			if next == l {
				continue
			}
			c.path = append(c.path, uint16(j), a)
			if c.locals[next].waits != c.locals[l].waits {
				c.go1(s, move{kind: moveAnswered, server: i, result: r, from: c.path}, yield)
			} else {
				c.answered(s, i, next, j+1, yield)
			}
			c.path = c.path[:len(c.path)-2]
		}
	}
}

// answer is what one answer of server j makes of a local.
func (c *checker) answer(l, a uint16, j int) int32 {
	return c.when(eventKey{local: l, kind: moveAnswered, arg: a, extra: uint16(j)}, func() []Event {
		return []Event{Received{From: Sender{Inst: "answerer", HW: c.hw(j)}, Message: c.answers[a]}}
	})
}

// view shows servers, by index, to a proposer, as instances of their first life.
func (c *checker) view(servers []int) View {
	var v View
	for _, j := range servers {
		self := c.self(j)
		v.Peers = append(v.Peers, Peer{Inst: c.inst(j, 0), HW: c.hw(j), Name: self.Name, Address: self.Address, Eligible: self.Eligible})
	}
	return v
}

// reboot is a server after a crash, or after its disk was lost.
func (c *checker) reboot(l uint16, cfg int, late uint16, wiped bool) int32 {
	k := eventKey{local: l, kind: moveCrash, arg: uint16(cfg), extra: late}
	if wiped {
		k.kind = moveWipe
	}
	if i, ok := c.events[k]; ok {
		return i
	}
	from := c.locals[l]
	boot := fmt.Sprintf("boot%d", late)
	r := result{seen: coverage{crashed: 1}}
	disk, life := written(from.disk), from.life
	if wiped {
		r.seen, disk = coverage{wiped: 1}, nil
		switch {
		case c.fence.copies:
			old := c.boot(from.place, life, cfg, nil, boot).disk
			disk, life.run = &old, life.run+1
		case from.place < c.fence.proposers:
			life.inst++ // the others' instances are never heard of
		}
	}
	booted := c.boot(from.place, life, cfg, disk, boot)
	r.next, r.questions = c.local(booted), c.tells(booted.core)
	c.events[k] = c.keep(r)
	return c.events[k]
}
