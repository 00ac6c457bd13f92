package election

import (
	"cmp"
	"fmt"
	"slices"
)

// receive handles a message.
func (s *step) receive(from Sender, m Message) {
	if !s.started || s.foreign() || m.SpecID != s.cfg.SpecID || from.Inst == s.state.Inst {
		return
	}
	s.roll.call(from.HW, m.Name)
	s.acknowledge(from.Inst, m)
	if m.Config != s.state.Config {
		s.stranger(from, m)
		s.hearSealed(from, m)
		if m.Kind == Ask || m.Kind == Tidings {
			s.send(from.Inst, Message{Kind: Tell})
		}
		return
	}
	if len(s.state.Slots) > 0 || m.Sealed == (Sealed{}) {
		s.learn(from, m)
	}
	s.hearSealed(from, m)
	switch m.Kind {
	case Prepare, Accept:
		s.vote(from, m)
	case Promise, Accepted, Nack:
		s.count(from, m)
	case Ask, Tidings:
		s.send(from.Inst, Message{Kind: Tell})
	case Stand:
		s.send(from.Inst, Message{Kind: Stands, Nonce: m.Nonce, Standing: s.confirms(from, m)})
	case Stands:
		if m.Nonce == s.boot && m.Standing && s.cfg.votes(from.HW) {
			s.stand.votes = with(s.stand.votes, from.HW)
		}
	}
}

// stranger remembers a server that counts differently.
func (s *step) stranger(from Sender, m Message) {
	text := fmt.Sprintf("%s carries expect: %d, this server %d", m.Name, m.N, s.cfg.N)
	if m.N == s.cfg.N {
		text = fmt.Sprintf("%s carries another quorum rule or other electors than this server", m.Name)
	}
	if s.state.IsSealed() {
		text += "; the cluster is sealed, so it no longer matters"
	} else {
		text += ": they do not count each other's votes; render user-data once and give the same to every server"
	}
	at, found := slices.BinarySearchFunc(s.strangers, from.Inst, func(x saying, inst string) int { return cmp.Compare(x.inst, inst) })
	if found && s.strangers[at].text == text || len(s.strangers) >= pastLimit {
		return
	}
	s.check = true
	if found {
		s.strangers = slices.Clone(s.strangers)
		s.strangers[at].text = text
		return
	}
	s.strangers = slices.Insert(slices.Clone(s.strangers), at, saying{inst: from.Inst, text: text})
}

// learn takes over decisions that this server did not know.
func (s *step) learn(from Sender, m Message) {
	known := s.state.known()
	for i, v := range m.Decided {
		if i < known && s.state.Slots[i].Decided != v {
			s.contradiction(fmt.Sprintf("%s says that slot %d decided %s, this server knows %s", m.Name, i, v.describe(), s.state.Slots[i].Decided.describe()))
			return
		}
	}
	if len(m.Decided) <= known || checkPrefix(m.Decided) != nil {
		return
	}
	for i := known; i < len(m.Decided); i++ {
		s.decide(i, m.Decided[i])
	}
}

// decide writes a decision down. With GO for this very instance comes the
// marker, in the same write.
func (s *step) decide(slot int, v Value) {
	*s.slot(slot) = Slot{Decided: v}
	if l, _, ok := s.state.Leader(); ok && s.state.Gone() && l.Inst == s.state.Inst {
		s.state.GoMarker = true
	}
	s.ask.tries, s.check = 0, true
}

func (v Value) describe() string {
	if v.Kind == Lead {
		return fmt.Sprintf("%s %s (%s)", v.Kind, v.Leader.Name, v.Leader.Inst)
	}
	return string(v.Kind)
}

// contradiction stops this server: two decrees exist, which the fence excludes
// while no more servers were wiped or added than it tolerates.
func (s *step) contradiction(text string) {
	if s.conflict == "" {
		s.conflict = text + ": more servers were wiped or added than the quorum tolerates; this server stops; " +
			"find out which servers belong to the cluster and switch the others off"
		s.check = true
	}
}

// hearSealed takes another server's word that the cluster is sealed: at once
// when it matches the decree known here, from a majority of hardware otherwise.
func (s *step) hearSealed(from Sender, m Message) {
	if m.Sealed == (Sealed{}) {
		return
	}
	same := func(a, b Sealed) bool { return a.Epoch == b.Epoch && a.CAHash == b.CAHash }
	if s.state.IsSealed() {
		if !same(s.state.Sealed, m.Sealed) {
			s.contradiction(fmt.Sprintf("%s says that epoch %d is sealed with CA %s, this server knows epoch %d with CA %s",
				m.Name, m.Sealed.Epoch, m.Sealed.CAHash, s.state.Sealed.Epoch, s.state.Sealed.CAHash))
		}
		return
	}
	if s.state.Gone() {
		l, epoch, _ := s.state.Leader()
		if !same(Sealed{Epoch: epoch, CAHash: l.CAHash}, m.Sealed) {
			s.contradiction(fmt.Sprintf("%s says that epoch %d is sealed with CA %s, but epoch %d was decreed with CA %s",
				m.Name, m.Sealed.Epoch, m.Sealed.CAHash, epoch, l.CAHash))
			return
		}
		s.settleSealed(m.Sealed)
		return
	}
	s.claims = slices.DeleteFunc(slices.Clone(s.claims), func(c claim) bool { return c.hw == from.HW })
	s.claims = append(s.claims, claim{hw: from.HW, sealed: m.Sealed})
	s.check = true
	agreeing := 0
	for _, c := range s.claims {
		if same(c.sealed, m.Sealed) {
			agreeing++
		}
	}
	if agreeing < Majority(s.cfg.N) {
		return
	}
	if len(s.state.Slots) == 0 && prefixSays(m.Decided, m.Sealed) {
		for i, v := range m.Decided {
			s.decide(i, v)
		}
	}
	s.settleSealed(m.Sealed)
}

func (s *step) settleSealed(sealed Sealed) {
	s.state.Sealed, s.claims, s.dirty, s.check = sealed, nil, true, true
}

// prefixSays says whether decisions lead to what is said to be sealed.
func prefixSays(decided []Value, sealed Sealed) bool {
	if checkPrefix(decided) != nil {
		return false
	}
	s := State{Slots: make([]Slot, len(decided))}
	for i, v := range decided {
		s.Slots[i].Decided = v
	}
	l, epoch, ok := s.Leader()
	return ok && s.Gone() && epoch == sealed.Epoch && l.CAHash == sealed.CAHash
}

// vote answers Prepare and Accept.
func (s *step) vote(from Sender, m Message) {
	slot, open := s.state.open()
	if !open || m.Slot < slot {
		s.send(from.Inst, Message{Kind: Tell})
		return
	}
	if m.Slot != slot || s.barred() != mayVote || !s.cfg.votes(from.HW) {
		return
	}
	mine := s.peek(slot)
	answer := Message{Slot: slot, Ballot: m.Ballot}
	switch {
	case m.Ballot.Less(mine.Promised):
		answer.Kind, answer.Promised = Nack, mine.Promised
	case m.Kind == Prepare:
		if mine.Promised != m.Ballot {
			s.slot(slot).Promised = m.Ballot
		}
		answer.Kind, answer.Accepted, answer.Value = Promise, mine.Accepted, mine.Value
	case m.Value.fits(slot) != nil:
		return
	default:
		if mine.Accepted != m.Ballot {
			own := s.slot(slot)
			own.Promised, own.Accepted, own.Value = m.Ballot, m.Ballot, m.Value
		}
		answer.Kind = Accepted
	}
	s.send(from.Inst, answer)
}

// count takes the answer to a proposal of this server.
func (s *step) count(from Sender, m Message) {
	if !s.try.running() || m.Slot != s.try.slot || m.Ballot != s.try.ballot || !s.cfg.votes(from.HW) {
		return
	}
	switch {
	case m.Kind == Nack:
		s.seen = max(s.seen, min(m.Promised.Round, maxRound))
		s.lose()
		return
	case m.Kind == Promise && !s.try.accepting:
		if s.try.best.Less(m.Accepted) && m.Value.fits(m.Slot) == nil {
			s.try.best, s.try.value = m.Accepted, m.Value
		}
	case m.Kind == Accepted && s.try.accepting:
	default:
		return
	}
	s.try.votes = with(s.try.votes, from.HW)
	s.tally()
}
