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
	if m.Config != s.state.Config || m.Joining || s.cfg.Joining {
		if !m.Joining && !s.cfg.Joining {
			s.stranger(from, m)
		}
		if !m.Joining && s.continues(m.Decided) {
			s.learn(from, m) // this server's cluster was superseded
		}
		s.hearSealed(from, m)
		if m.Kind == Ask || m.Kind == Tidings {
			s.send(from.Inst, Message{Kind: Tell})
		}
		return
	}
	s.familiar(from.Inst)
	if len(s.state.Slots) > 0 || m.Sealed == (Sealed{}) {
		s.learn(from, m)
	}
	s.hearSealed(from, m)
	if m.Lowered && !s.state.Lowered {
		s.state.Lowered, s.dirty, s.check = true, true, true
	}
	switch m.Kind {
	case Prepare, Accept:
		s.vote(from, m)
	case Promise, Accepted, Nack:
		s.count(from, m)
	case Ask, Tidings:
		s.send(from.Inst, Message{Kind: Tell})
	case Stand:
		s.send(from.Inst, Message{Kind: Stands, Nonce: m.Nonce, Standing: s.confirms(from, m), Challenged: s.state.challenged()})
	case Stands:
		s.standing(from, m)
	case Tell:
		s.refused(from, m)
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
	s.roll = s.muster(s.roll.seen)
}

// familiar forgets that a server counted differently: it has other user-data now.
func (s *step) familiar(inst string) {
	if !slices.ContainsFunc(s.strangers, func(x saying) bool { return x.inst == inst }) {
		return
	}
	s.strangers = slices.DeleteFunc(slices.Clone(s.strangers), func(x saying) bool { return x.inst == inst })
	s.roll, s.check = s.muster(s.roll.seen), true
}

// continues says whether decisions are those that this server knows, GO among
// them, and more. Who shares them belongs to the same cluster, whatever numbers
// its user-data has.
func (s *step) continues(decided []Value) bool {
	known := s.state.known()
	if !s.state.everGone() || len(decided) <= known {
		return false
	}
	for i, v := range decided[:known] {
		if s.state.Slots[i].Decided != v {
			return false
		}
	}
	return true
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
// marker, in the same write, and with the decree that supersedes it the marker
// goes.
func (s *step) decide(slot int, v Value) {
	was := s.peek(slot)
	*s.slot(slot) = Slot{Decided: v, Voted: was.Accepted != (Ballot{}) && was.Value == v}
	if v.Supersedes != "" {
		s.state.Sealed, s.stand, s.spread.acks = Sealed{}, standing{}, nil
		s.act, s.refusals = Supersede{}, nil
		s.claims = slices.DeleteFunc(slices.Clone(s.claims), func(c claim) bool { return s.outdated(c.sealed) })
		s.roll = s.muster(s.roll.seen)
		s.set(TimerStand, 0)
	}
	l, _, ok := s.state.Leader()
	s.state.GoMarker = ok && s.state.Gone() && l.Inst == s.state.Inst
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
// when it matches the decree known here, else when a majority of hardware, an
// operator or this server's own user-data confirms it.
func (s *step) hearSealed(from Sender, m Message) {
	known := s.state.Sealed
	pinned := !s.cfg.Joining || m.Sealed.CAHash == s.cfg.JoinCA
	switch l, epoch, _ := s.state.Leader(); {
	case m.Sealed == (Sealed{}) || s.outdated(m.Sealed):
		return
	case s.state.IsSealed() && known.same(m.Sealed):
		if m.Sealed.Closed && !known.Closed {
			s.state.Sealed.Closed, s.dirty = true, true
		}
		return
	case s.state.IsSealed() && m.Sealed.Epoch <= known.Epoch:
		s.contradiction(fmt.Sprintf("%s says that epoch %d is sealed with CA %s, this server knows epoch %d with CA %s",
			m.Name, m.Sealed.Epoch, m.Sealed.CAHash, known.Epoch, known.CAHash))
		return
	case s.state.IsSealed() && s.state.known() > 0:
		return // a decree that supersedes this one; the server that spreads it tells how it came to be
	case pinned && s.state.Gone() && m.Sealed.same(Sealed{Epoch: epoch, CAHash: l.CAHash}):
		s.settleSealed(m.Sealed)
		return
	case pinned && s.state.Gone() && m.Sealed.Epoch <= epoch:
		s.contradiction(fmt.Sprintf("%s says that epoch %d is sealed with CA %s, but epoch %d was decreed with CA %s",
			m.Name, m.Sealed.Epoch, m.Sealed.CAHash, epoch, l.CAHash))
		return
	}
	s.claims = slices.DeleteFunc(slices.Clone(s.claims), func(c claim) bool { return c.hw == from.HW })
	s.claims = append(s.claims, claim{hw: from.HW, sealed: m.Sealed, decided: m.Decided})
	s.check = true
	agreeing := 0
	for _, c := range s.claims {
		if c.sealed.same(m.Sealed) {
			agreeing++
		}
	}
	if m.Sealed.CAHash == s.cfg.JoinCA || !s.cfg.Joining && agreeing >= Majority(s.cfg.N) {
		s.believe(m.Sealed.CAHash)
	}
}

// outdated says that a decree was superseded, as far as this server knows: who
// speaks of it has not heard yet.
func (s *step) outdated(sealed Sealed) bool {
	if s.state.known() == 0 {
		return s.state.IsSealed() && sealed.Epoch < s.state.Sealed.Epoch
	}
	return slices.Contains(s.state.VoidCAs(), sealed.CAHash)
}

// believe takes over what claims say of the cluster with this CA.
func (s *step) believe(caHash string) {
	var word *claim
	for i, c := range s.claims {
		if c.sealed.CAHash == caHash && (word == nil || prefixSays(c.decided, c.sealed)) {
			word = &s.claims[i]
		}
	}
	if word == nil {
		return
	}
	sealed := word.sealed
	if s.state.known() == 0 && prefixSays(word.decided, sealed) {
		for i, v := range word.decided {
			s.decide(i, v)
		}
	}
	s.settleSealed(sealed)
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
	slot := s.state.known()
	if m.Slot < slot {
		s.send(from.Inst, Message{Kind: Tell})
		return
	}
	if m.Slot != slot || s.barred() != mayVote || !s.counts(slot, from.HW) || !s.counts(slot, s.state.Hardware.HW) {
		return
	}
	if s.state.Gone() {
		if why := s.keeps(m.LoseCluster); why != "" {
			s.note("refused to supersede the holder of GO, as " + m.Name + " asked: " + why)
			s.send(from.Inst, Message{Kind: Tell, Refusal: why})
			return
		}
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
	case !s.mayFollow(m.Value):
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

// mayFollow says whether a value may be decided in the open slot.
func (s *step) mayFollow(v Value) bool {
	return checkPrefix(append(s.state.Decided(), v)) == nil
}

// count takes the answer to a proposal of this server.
func (s *step) count(from Sender, m Message) {
	if !s.try.running() || m.Slot != s.try.slot || m.Ballot != s.try.ballot || !s.counts(m.Slot, from.HW) {
		return
	}
	switch {
	case m.Kind == Nack:
		s.seen = max(s.seen, min(m.Promised.Round, maxRound))
		s.lose()
		return
	case m.Kind == Promise && !s.try.accepting:
		if m.Value != (Value{}) && !s.mayFollow(m.Value) {
			return // who accepted what may not be here counts for nothing
		}
		if s.try.best.Less(m.Accepted) {
			s.try.best, s.try.value = m.Accepted, m.Value
		}
	case m.Kind == Accepted && s.try.accepting:
	default:
		return
	}
	s.try.votes = with(s.try.votes, from.HW)
	s.tally()
}
