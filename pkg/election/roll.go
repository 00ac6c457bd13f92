package election

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// roll is what a View means for the fence, worked out once.
type roll struct {
	peers    []Peer   // without this instance, by hw and inst
	insts    []string // of peers, sorted
	hardware []string // distinct hw here, this server's among them, sorted
	doubled  []string // hw that two live instances share, sorted
	voters   []string // hw that may vote, sorted
	eligible []string // voters that may lead, sorted
	twin     string   // this very instance at another address: a sentence
	seen     []Peer   // as the View had it
	past     []Peer   // last sight of every hw, by hw: names for who is missing
}

// pastLimit bounds the memory of servers that went away.
const pastLimit = 4096

func (s *step) look(v View) {
	before := s.roll
	s.roll = s.muster(v.Peers)
	s.check = true
	s.strangers = slices.DeleteFunc(slices.Clone(s.strangers), func(x saying) bool { return !s.roll.shows(x.inst) })
	s.spread.acks = slices.DeleteFunc(slices.Clone(s.spread.acks), func(a ack) bool { return !s.roll.shows(a.inst) })
	if !s.started || s.foreign() {
		return
	}
	for _, p := range s.roll.peers {
		if before.shows(p.Inst) {
			continue
		}
		if !s.resendTo(p) && s.behind(p.Inst) {
			s.send(p.Inst, Message{Kind: Tidings})
		}
		if s.stand.armed {
			s.send(p.Inst, s.standQuestion())
		}
	}
	if s.try.running() {
		s.tally() // votes of hardware that no longer lives twice count again
	}
	if s.spread.on && !s.spread.armed && slices.ContainsFunc(s.roll.peers, func(p Peer) bool { return s.behind(p.Inst) }) {
		s.spread.armed, s.spread.tries = true, 0
		s.set(TimerSpread, spreadBase)
	}
}

// muster calls the roll.
func (c *Core) muster(seen []Peer) roll {
	r := roll{seen: seen, past: c.roll.past}
	self := Peer{Inst: c.state.Inst, HW: c.state.Hardware.HW, Name: c.self.Name, Address: c.self.Address, Eligible: c.self.Eligible, Joining: c.cfg.Joining}
	last := c.state.known() - 1 // after GO its holder still counts, until it is superseded
	for _, p := range seen {
		switch {
		case p.Inst != self.Inst:
			r.peers = append(r.peers, p)
		case p.Address.IsValid() && p.Address != self.Address:
			r.twin = fmt.Sprintf("this server's instance %s answers at %s too: two servers run from copies of one disk, both stop; "+
				"switch one off, remove /var/lib/muster on it and boot it anew: then the other goes on by itself; where it never boots again, systemctl restart muster on the other", p.Inst, p.Address)
		}
	}
	slices.SortFunc(r.peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.HW, b.HW), cmp.Compare(a.Inst, b.Inst), a.Address.Compare(b.Address))
	})
	r.peers = slices.CompactFunc(r.peers, func(a, b Peer) bool { return a == b })
	for _, p := range r.peers {
		r.insts = append(r.insts, p.Inst)
	}
	slices.Sort(r.insts)
	lives := slices.DeleteFunc(append(slices.Clone(r.peers), self), func(p Peer) bool { return p.Joining })
	slices.SortStableFunc(lives, func(a, b Peer) int { return cmp.Compare(a.HW, b.HW) })
	for i := 0; i < len(lives); {
		j := i + 1
		for j < len(lives) && lives[j].HW == lives[i].HW {
			j++
		}
		hw := lives[i].HW
		if j-i == 1 && c.strange(lives[i].Inst) {
			i = j // it counts by other numbers, so it is no elector here
			continue
		}
		r.hardware = append(r.hardware, hw)
		switch {
		case j-i > 1:
			r.doubled = append(r.doubled, hw)
		case c.counts(last, hw):
			r.voters = append(r.voters, hw)
			if lives[i].Eligible {
				r.eligible = append(r.eligible, hw)
			}
		}
		i = j
	}
	r.remember()
	return r
}

// strange says whether a server is known to count by other numbers. Once sealed
// that no longer matters.
func (c *Core) strange(inst string) bool {
	return !c.state.IsSealed() && slices.ContainsFunc(c.strangers, func(x saying) bool { return x.inst == inst })
}

// remember adds those here to the memory of names.
func (r *roll) remember() {
	past := slices.Clone(r.past)
	for _, p := range r.peers {
		at, found := slices.BinarySearchFunc(past, p.HW, func(q Peer, hw string) int { return cmp.Compare(q.HW, hw) })
		switch {
		case found:
			// Gossip may not carry names; the one a message brought is kept.
			p.Name = cmp.Or(p.Name, past[at].Name)
			past[at] = p
		case len(past) < pastLimit:
			past = slices.Insert(past, at, p)
		}
	}
	r.past = past
}

func (r *roll) shows(inst string) bool {
	_, found := slices.BinarySearch(r.insts, inst)
	return found
}

// call notes the name that a server gave itself in a message.
func (r *roll) call(hw, name string) {
	at, found := slices.BinarySearchFunc(r.past, hw, func(q Peer, hw string) int { return cmp.Compare(q.HW, hw) })
	if found && r.past[at].Name == "" && name != "" {
		r.past = slices.Clone(r.past)
		r.past[at].Name = name
	}
}

// name is how a person knows a server.
func (r *roll) name(hw string) string {
	at, found := slices.BinarySearchFunc(r.past, hw, func(q Peer, hw string) int { return cmp.Compare(q.HW, hw) })
	if found && r.past[at].Name != "" {
		return r.past[at].Name
	}
	return "hardware " + hw
}

// rank is this server's place in the order of proposers: those who led and gave
// up come last, then the order of the hardware id.
func (c *Core) rank(among []string, hw string) int {
	led := func(hw string) (n int) {
		for i := 0; i < len(c.state.Slots); i += 2 {
			if c.state.Slots[i].Decided.Leader.HW == hw {
				n++
			}
		}
		return n
	}
	mine, rank := led(hw), 0
	for _, other := range among {
		if l := led(other); l < mine || l == mine && other < hw {
			rank++
		}
	}
	return rank
}

// bar is why a server takes no part.
type bar int

const (
	mayVote bar = iota
	barForeign
	barConflict
	barTwin
	barReconfigured
	barNoElector
	barJoining
	barSuperseded
	barEvidence
	barDoubled
	barSurplus
	barClaims
)

// barred says whether this server may vote and propose, and if not, why.
func (c *Core) barred() bar {
	if b := c.barredItself(); b != mayVote {
		return b
	}
	switch {
	case c.surplus() > Tolerated(c.cfg.N, c.quorum(c.state.known())):
		return barSurplus
	case len(c.claims) > 0 && !c.state.IsSealed():
		return barClaims
	}
	return mayVote
}

// barredItself leaves out what the other servers are the cause of.
func (c *Core) barredItself() bar {
	hw := c.state.Hardware.HW
	switch {
	case c.foreign():
		return barForeign
	case c.conflict != "":
		return barConflict
	case c.roll.twin != "":
		return barTwin
	case c.reconfigured():
		return barReconfigured
	case c.cfg.Joining:
		return barJoining
	case !c.cfg.votes(hw):
		return barNoElector
	case c.state.Superseded():
		return barSuperseded
	case c.evidence != "" && !c.state.everGone() && !c.state.IsSealed():
		return barEvidence
	case slices.Contains(c.roll.doubled, hw):
		return barDoubled
	}
	return mayVote
}

// surplus is how many servers are here beyond those expected. Named electors
// make it meaningless.
func (c *Core) surplus() int {
	if len(c.cfg.Electors) > 0 {
		return 0
	}
	return len(c.roll.hardware) - c.cfg.N
}

// counted is the number of votes that count: one per hardware, none from
// hardware that lives twice.
func (c *Core) counted(votes []string) int {
	n := len(votes)
	for _, hw := range c.roll.doubled {
		if _, found := slices.BinarySearch(votes, hw); found {
			n--
		}
	}
	return n
}

// with returns a sorted set with one more member, leaving the old as it was.
func with(set []string, x string) []string {
	at, found := slices.BinarySearch(set, x)
	if found {
		return set
	}
	out := make([]string, 0, len(set)+1)
	return append(append(append(out, set[:at]...), x), set[at:]...)
}

func (c *Core) names(hardware []string) string {
	var out []string
	for _, hw := range hardware {
		if hw == c.state.Hardware.HW {
			out = append(out, c.self.Name)
		} else {
			out = append(out, c.roll.name(hw))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
