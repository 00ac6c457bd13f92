package election

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"
)

// Delays. They decide who tries when, and nothing else.
const (
	rankDelay    = 5 * time.Second // between eligible servers, in the order of their hardware ids
	retryBase    = 100 * time.Millisecond
	retryMax     = 10 * time.Second
	resendBase   = 250 * time.Millisecond
	resendMax    = 5 * time.Second
	spreadBase   = 250 * time.Millisecond
	spreadMax    = 10 * time.Second
	askBase      = time.Second
	askMax       = 10 * time.Second
	unfitDelay   = 2 * time.Minute
	silenceDelay = 10 * time.Minute
)

// backoff doubles a delay n times, up to a limit.
func backoff(base, limit time.Duration, n int) time.Duration {
	for range n {
		if base >= limit {
			break
		}
		base *= 2
	}
	return min(base, limit)
}

// jitter spreads servers that failed at the same moment; it comes from instance
// and round, because the core has no randomness.
func (c *Core) jitter(limit time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(c.state.Inst + " " + strconv.FormatUint(c.state.Round, 10)))
	return time.Duration(h.Sum64() % uint64(limit))
}

// watchLeader starts and stops the patience with a leader that has no GO.
func (s *step) watchLeader() {
	l, epoch, led := s.state.Leader()
	waits := led && !s.state.Gone() && epoch < maxEpochs-1 && s.barred() == mayVote
	mine := l.Inst == s.state.Inst
	// Handing on makes sense only when somebody else may lead. Each time the
	// patience doubles, so that servers that all lack the same thing do not spend
	// the night deposing one another.
	unfit := waits && mine && !s.fit.GoFit && len(s.roll.eligible) > 1
	if unfit != s.watch.unfit {
		s.watch.unfit, s.watch.unfitDue = unfit, false
		s.setIf(unfit, TimerUnfit, backoff(unfitDelay, 32*unfitDelay, int(epoch)))
	}
	silence := waits && !mine && !s.roll.shows(l.Inst)
	if silence != s.watch.silence {
		s.watch.silence, s.watch.silenceDue = silence, false
		rank := s.rank(s.roll.voters, s.state.Hardware.HW)
		s.setIf(silence, TimerSilence, silenceDelay+time.Duration(rank)*rankDelay)
	}
}

func (s *step) setIf(on bool, k TimerKind, after time.Duration) {
	if !on {
		after = 0
	}
	s.set(k, after)
}

// intention is what this server would propose in the open slot, and how long it
// leaves the others the lead.
func (s *step) intention(slot int) (v Value, delay time.Duration, ok bool) {
	if s.barred() != mayVote || len(s.votersFor(slot)) < s.quorum(slot) {
		return Value{}, 0, false
	}
	if s.state.Gone() {
		v = Value{Kind: Lead, Leader: s.candidate, Supersedes: s.act.Dead}
		return v, 0, s.act != (Supersede{}) && s.candidate != (Leader{}) && s.keeps(s.act.LoseCluster) == ""
	}
	if slot%2 == 0 {
		if !s.self.Eligible || !s.fit.LeaderFit || s.candidate == (Leader{}) {
			return Value{}, 0, false
		}
		rank := s.rank(s.roll.eligible, s.state.Hardware.HW)
		return Value{Kind: Lead, Leader: s.candidate}, time.Duration(rank) * rankDelay, true
	}
	l, _, _ := s.state.Leader()
	switch {
	case l.Inst == s.state.Inst && s.fit.GoFit:
		return Value{Kind: Go}, 0, true
	case s.watch.unfitDue, s.watch.silenceDue:
		return Value{Kind: Abdicate}, 0, true
	}
	return Value{}, 0, false
}

// propose begins an attempt when it is this server's turn; it reports whether
// it began one.
func (s *step) propose() bool {
	slot, open := s.state.known(), !s.state.Gone() || s.act != (Supersede{})
	if s.try.running() && (!open || s.try.slot != slot || s.barred() != mayVote) {
		s.drop()
	}
	if !open || s.turn.slot != slot {
		if s.turn.armed || s.turn.cooling {
			s.set(TimerPropose, 0)
		}
		s.turn = turn{slot: slot}
	}
	if !open || s.try.running() || s.turn.cooling {
		return false
	}
	v, delay, ok := s.intention(slot)
	if !ok {
		if s.turn.armed {
			s.set(TimerPropose, 0)
		}
		s.turn = turn{slot: slot, losses: s.turn.losses}
		return false
	}
	if delay == 0 || s.turn.ready {
		s.turn = turn{slot: slot, losses: s.turn.losses}
		s.prepare(slot, v)
		return true
	}
	if !s.turn.armed || delay < s.turn.delay {
		s.turn.armed, s.turn.delay = true, delay
		s.set(TimerPropose, delay)
	}
	return false
}

// prepare opens phase 1 with a ballot that was never used, here or, as far as
// this server knows, anywhere.
func (s *step) prepare(slot int, v Value) {
	s.state.Round = max(s.state.Round, s.seen, s.peek(slot).Promised.Round) + 1
	own := s.slot(slot)
	own.Promised = Ballot{Round: s.state.Round, Inst: s.state.Inst, Run: s.run}
	s.try = attempt{slot: slot, ballot: own.Promised, asked: s.roll.insts, best: own.Accepted, value: v, votes: []string{s.state.Hardware.HW}}
	if own.Accepted != (Ballot{}) {
		s.try.value = own.Value
	}
	s.broadcast()
	s.tally()
}

// broadcast sends the question of the running phase to all who did not answer.
func (s *step) broadcast() {
	for _, p := range s.roll.peers {
		s.resendTo(p)
	}
	s.set(TimerResend, backoff(resendBase, resendMax, s.try.resends))
}

// resend asks again, or ends the attempt in favour of one that asks newcomers too.
func (s *step) resend() {
	if !s.try.running() {
		return
	}
	if slices.ContainsFunc(s.roll.peers, s.newcomer) {
		s.turn = turn{slot: s.try.slot, ready: true, losses: s.turn.losses}
		s.drop()
		return
	}
	s.try.resends++
	s.broadcast()
}

// newcomer says whether a server would have a vote in this attempt and came too
// late for it. A server that lost its disk is another instance and comes late: were
// it asked, an attempt that hears of no decision could make it vote for a GO that
// it helped to supersede.
func (s *step) newcomer(p Peer) bool {
	_, asked := slices.BinarySearch(s.try.asked, p.Inst)
	return !asked && s.counts(s.try.slot, p.HW) && !slices.Contains(s.try.votes, p.HW)
}

// resendTo asks one server, unless it has answered or came too late; it reports
// whether it did.
func (s *step) resendTo(p Peer) bool {
	if !s.try.running() || !s.counts(s.try.slot, p.HW) || slices.Contains(s.try.votes, p.HW) || s.newcomer(p) {
		return false
	}
	m := Message{Kind: Prepare, Slot: s.try.slot, Ballot: s.try.ballot, LoseCluster: s.state.Gone() && s.act.LoseCluster}
	if s.try.accepting {
		m.Kind, m.Value = Accept, s.try.value
	}
	s.send(p.Inst, m)
	return true
}

// tally goes on when enough distinct hardware answered.
func (s *step) tally() {
	if s.counted(s.try.votes) < s.quorum(s.try.slot) || s.barred() != mayVote {
		return
	}
	if s.try.accepting {
		slot, v := s.try.slot, s.try.value
		s.drop()
		s.decide(slot, v)
		s.spread.on, s.spread.tries, s.tellAll = true, 0, true
		if s.state.HoldsGo() {
			s.stand.ok = true // q electors said so since this boot
		}
		return
	}
	if s.try.best == (Ballot{}) {
		// The value is our own: whether it is still wanted counts now.
		v, _, ok := s.intention(s.try.slot)
		if !ok {
			s.drop()
			return
		}
		s.try.value = v
	}
	if s.try.ballot.Less(s.peek(s.try.slot).Promised) {
		s.lose()
		return
	}
	own := s.slot(s.try.slot)
	own.Promised, own.Accepted, own.Value = s.try.ballot, s.try.ballot, s.try.value
	s.try.accepting, s.try.resends, s.try.votes = true, 0, []string{s.state.Hardware.HW}
	s.broadcast()
	s.tally()
}

// drop ends the attempt.
func (s *step) drop() {
	s.try = attempt{}
	s.set(TimerResend, 0)
}

// lose ends the attempt and leaves the field to the other for a while.
func (s *step) lose() {
	s.drop()
	wait := backoff(retryBase, retryMax, s.turn.losses)
	s.turn = turn{slot: s.turn.slot, cooling: true, losses: s.turn.losses + 1}
	s.set(TimerPropose, wait+s.jitter(wait))
}
