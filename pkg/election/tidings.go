package election

import (
	"cmp"
	"slices"
)

// seal takes the GO holder's word that its control plane runs.
func (s *step) seal(e InitDone) {
	if s.state.IsSealed() {
		return
	}
	if !s.state.HoldsGo() {
		s.note("kubeadm init is reported done, but this server does not hold GO: not sealed")
		return
	}
	l, epoch, _ := s.state.Leader()
	s.settleSealed(Sealed{Epoch: epoch, CAHash: l.CAHash, Endpoint: e.Endpoint})
	s.spread.on, s.spread.tries, s.tellAll = true, 0, true
}

// close takes a control plane's word that etcd has become the authority. It is
// repeated after each start of its agent, so that nobody misses it.
func (s *step) close() {
	if !s.state.IsSealed() {
		s.note("a second etcd member is reported to vote, but the cluster is not sealed: ignored")
		return
	}
	if !s.state.Sealed.Closed {
		s.state.Sealed.Closed, s.dirty = true, true
	}
	s.spread.on, s.spread.tries, s.tellAll = true, 0, true
}

// sealing is how far a cluster is, as one server knows it: 0 not sealed in this
// epoch, 1 sealed, 2 closed.
func (s *step) sealing(x Sealed) int {
	_, epoch, _ := s.state.Leader()
	switch {
	case x == Sealed{} || x.Epoch < epoch:
		return 0
	case x.Closed:
		return 2
	}
	return 1
}

// acknowledge notes how much a server knows.
func (s *step) acknowledge(inst string, m Message) {
	if !s.spread.on || !s.roll.shows(inst) {
		return
	}
	now := ack{inst: inst, known: len(m.Decided), seal: s.sealing(m.Sealed)}
	at, found := slices.BinarySearchFunc(s.spread.acks, inst, func(a ack, inst string) int { return cmp.Compare(a.inst, inst) })
	if found && (s.spread.acks[at] == now || now.known < s.spread.acks[at].known) {
		return // nothing new, or a message that was overtaken
	}
	acks := slices.Clone(s.spread.acks)
	if found {
		now.seal = max(now.seal, acks[at].seal)
		acks[at] = now
	} else {
		acks = slices.Insert(acks, at, now)
	}
	s.spread.acks = acks
}

// behind says whether a server must be told something by this one.
func (s *step) behind(inst string) bool {
	if !s.spread.on || s.reconfigured() {
		return false
	}
	var a ack
	at, found := slices.BinarySearchFunc(s.spread.acks, inst, func(a ack, inst string) int { return cmp.Compare(a.inst, inst) })
	if found {
		a = s.spread.acks[at]
	}
	return a.seal < s.sealing(s.state.Sealed) || a.seal == 0 && a.known < s.state.known()
}

// tellBehind sends the decisions to everyone who is behind and who gets no
// other message in this step anyway, and comes back while there is anyone.
func (s *step) tellBehind() {
	reached := map[string]bool{}
	for _, m := range s.sends {
		reached[m.To] = true
	}
	any := false
	for _, p := range s.roll.peers {
		if !s.behind(p.Inst) {
			continue
		}
		any = true
		if !reached[p.Inst] {
			s.send(p.Inst, Message{Kind: Tidings})
		}
	}
	s.spread.armed = any
	if any {
		s.set(TimerSpread, backoff(spreadBase, spreadMax, s.spread.tries))
		s.spread.tries++
	}
}

// askFew is how many servers are asked at a time beside the leader.
const askFew = 3

// askAround asks what is decided, until the cluster is sealed. The GO holder
// makes the next news itself.
func (s *step) askAround() {
	if s.ask.armed || s.state.IsSealed() || s.state.HoldsGo() || len(s.roll.peers) == 0 {
		return
	}
	leader, _, led := s.state.Leader()
	peers := s.roll.peers
	asked := make([]string, 0, askFew+1)
	if led && s.roll.shows(leader.Inst) {
		asked = append(asked, leader.Inst)
	}
	// Servers start at different places of the same list.
	start := int(s.jitter(1<<30)) + s.ask.tries*askFew
	for i := range min(askFew, len(peers)) {
		asked = append(asked, peers[(start+i)%len(peers)].Inst)
	}
	if len(s.claims) > 0 {
		for _, p := range peers { // a majority must be heard, so all are asked
			if !slices.ContainsFunc(s.claims, func(c claim) bool { return c.hw == p.HW }) {
				asked = append(asked, p.Inst)
			}
		}
	}
	slices.Sort(asked)
	for _, inst := range slices.Compact(asked) {
		s.send(inst, Message{Kind: Ask})
	}
	s.ask.armed = true
	s.set(TimerAsk, backoff(askBase, askMax, s.ask.tries))
	s.ask.tries++
}

// askStand asks, after a boot, whether this server's GO was superseded while it
// was away. Those who supersede are a majority without this server, so a
// majority with it holds at least one of them.
func (s *step) askStand() {
	if s.stand.ok || s.state.IsSealed() || !s.state.HoldsGo() || s.barredItself() != mayVote {
		return
	}
	if 1+s.counted(s.stand.votes) >= Majority(s.cfg.N) {
		s.stand.ok = true
		s.set(TimerStand, 0)
		return
	}
	if s.stand.armed {
		return
	}
	for _, p := range s.roll.peers {
		if !slices.Contains(s.stand.votes, p.HW) {
			s.send(p.Inst, s.standQuestion())
		}
	}
	s.stand.armed = true
	s.set(TimerStand, backoff(askBase, askMax, s.stand.tries))
	s.stand.tries++
}

// standing takes the answer to it.
func (s *step) standing(from Sender, m Message) {
	switch {
	case m.Nonce != s.boot || !s.cfg.votes(from.HW):
	case m.Standing:
		s.stand.votes = with(s.stand.votes, from.HW)
	case m.Challenged:
		s.stand.nays = with(s.stand.nays, m.Name)
	}
}

func (s *step) standQuestion() Message { return Message{Kind: Stand, Nonce: s.boot} }

// confirms answers Stand: the asker leads the newest decree known here, this
// very instance voted for its GO, and nothing was promised after it. An instance
// that did not vote may have forgotten a promise, so its word is worth nothing.
func (s *step) confirms(from Sender, m Message) bool {
	n := s.state.known()
	l, _, ok := s.state.Leader()
	return ok && s.state.Gone() && l.Inst == from.Inst && len(m.Decided) == n &&
		!s.state.challenged() && s.state.Slots[n-1].Voted && s.barredItself() == mayVote
}
