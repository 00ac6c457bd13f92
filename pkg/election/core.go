package election

import (
	"net/netip"
	"slices"
	"time"
)

// Self is this server as its peers shall see it.
type Self struct {
	Name     string
	Address  netip.Addr // private
	Eligible bool       // may become a control plane
}

// Core is one server's fence. It is a value: Step returns a new one and leaves
// the old usable, because no slice in it is ever written in place.
type Core struct {
	cfg   Config
	hash  string // of cfg
	self  Self
	state State

	started   bool
	boot, run string
	roll      roll
	fit       Fitness
	candidate Leader
	evidence  string
	conflict  string    // two decrees: a sentence; this server stops for good
	strangers []saying  // servers with another config, by inst
	claims    []claim   // sealed as others say it, while this server knows nothing itself
	act       Supersede // an operator's order under way
	refusals  []saying  // of that order
	noted     []string  // problems already said
	told      decreeKey // the decree of the last Changed

	turn   turn
	try    attempt
	seen   uint64 // highest round that a Nack told of
	watch  watch
	spread spread
	ask    asking
	stand  standing
}

// saying is a sentence about an instance.
type saying struct{ inst, text string }

// claim is one server's word that the cluster is sealed, and how it came to be.
type claim struct {
	hw      string
	sealed  Sealed
	decided []Value
}

// turn says when this server may propose in the open slot.
type turn struct {
	slot    int
	armed   bool          // TimerPropose runs for a rank
	delay   time.Duration // for which it was set
	cooling bool          // TimerPropose runs after a lost attempt
	ready   bool          // it fired
	losses  int
}

// attempt is a running proposal; the zero ballot is none.
type attempt struct {
	slot      int
	ballot    Ballot
	asked     []string // instances in sight when it began, sorted: who comes later is asked by the next attempt
	accepting bool     // phase 2
	best      Ballot   // highest accepted ballot that a promise reported
	value     Value    // its value, then the value of phase 2
	votes     []string // hw that answered in this phase, sorted
	resends   int
}

func (a attempt) running() bool { return a.ballot != Ballot{} }

// watch holds the two patience timers for a leader without GO.
type watch struct {
	unfit, unfitDue     bool
	silence, silenceDue bool
}

// spread says to whom decisions must still be told. Only the server that
// decided, or leads, spreads; the others are asked.
type spread struct {
	on    bool
	acks  []ack // by inst
	armed bool
	tries int
}

type ack struct {
	inst  string
	known int // decisions
	seal  int // see sealing
}

type asking struct {
	armed bool
	tries int
}

type standing struct {
	ok    bool // GO was decided or confirmed since this boot
	votes []string
	nays  []string // names of those who know of a promise after this GO
	armed bool
	tries int
}

// New makes the core of a server from its settled state (see Settle). Nothing
// happens before Start.
func New(cfg Config, self Self, state State) Core {
	c := Core{cfg: cfg, hash: cfg.Hash(), self: self, state: state}
	c.roll = c.muster(nil)
	c.told = c.key()
	return c
}

// State returns the state as of the last Step; it is on disk once the effects of
// that Step were carried out.
func (c Core) State() State { return c.state }

// step is one Step under way.
type step struct {
	Core
	dirty bool // the state must be persisted
	owned bool // the slots were cloned in this step
	sends []Send
	rest  []Effect
	check bool // problems may have changed
	// tellAll asks for a Tidings to every server that is behind.
	tellAll bool
}

// Step takes an event. The effects must be carried out in order; see Effect.
func (c Core) Step(e Event) (Core, []Effect) {
	s := step{Core: c}
	switch e := e.(type) {
	case Start:
		s.start(e)
	case View:
		s.look(e)
	case Fitness:
		s.fit = e
	case Candidate:
		s.nominate(e)
	case Evidence:
		s.evidence, s.check = e.What, true
	case InitDone:
		s.seal(e)
	case Closed:
		s.close()
	case Lower, Supersede, Approve:
		s.obey(e)
	case Timer:
		s.timer(e.Kind)
	case Received:
		s.receive(e.From, e.Message)
	}
	s.drive()
	return s.flush()
}

func (s *step) start(e Start) {
	if s.started {
		return
	}
	s.started, s.boot, s.run, s.check = true, e.Boot, e.Run, true
	if s.foreign() {
		return
	}
	// A new instance is on disk before anybody hears of it.
	s.dirty = s.dirty || s.state.Seq == 0
	s.stand.ok = e.Stands
	if l, _, ok := s.state.Leader(); ok && l.Inst == s.state.Inst {
		s.spread.on, s.tellAll = true, true
	}
}

func (s *step) nominate(e Candidate) {
	l := e.Leader
	if l.HW != s.state.Hardware.HW || l.Inst != s.state.Inst {
		s.note("the candidate names instance " + l.Inst + ", this server is " + s.state.Inst + ": not proposed")
		return
	}
	if err := l.check(); err != nil {
		s.note("this server cannot be proposed: " + err.Error())
		return
	}
	s.candidate = l
}

func (s *step) timer(k TimerKind) {
	switch k {
	case TimerPropose:
		if s.turn.armed || s.turn.cooling {
			s.turn.armed, s.turn.cooling, s.turn.ready = false, false, true
		}
	case TimerResend:
		s.resend()
	case TimerSpread:
		s.spread.armed, s.tellAll = false, true
	case TimerAsk:
		s.ask.armed = false
	case TimerUnfit:
		s.watch.unfitDue = s.watch.unfit
	case TimerSilence:
		s.watch.silenceDue = s.watch.silence
	case TimerStand:
		s.stand.armed = false
	}
}

// drive does what the new situation allows.
func (s *step) drive() {
	if !s.started || s.foreign() {
		return
	}
	s.watchLeader()
	for s.propose() {
		s.watchLeader()
	}
	s.askStand()
	s.askAround()
	if s.tellAll {
		s.tellBehind()
	}
}

// flush puts the effects in their order: what was promised is on disk before
// anyone is told.
func (s *step) flush() (Core, []Effect) {
	out := make([]Effect, 0, 2+len(s.sends)+len(s.rest))
	if s.dirty {
		s.state.Seq++
		out = append(out, Persist{State: s.state})
	}
	if len(s.sends) > 0 {
		header := s.header()
		for _, m := range s.sends {
			m.Message.Version, m.Message.SpecID, m.Message.Config = header.Version, header.SpecID, header.Config
			m.Message.N, m.Message.Name = header.N, header.Name
			m.Message.Decided, m.Message.Sealed = header.Decided, header.Sealed
			m.Message.Joining, m.Message.Lowered = header.Joining, header.Lowered
			out = append(out, m)
		}
	}
	if s.check {
		s.noteProblems()
	}
	out = append(out, s.rest...)
	if key := s.key(); s.started && key != s.told {
		s.told = key
		out = append(out, Changed{Decree: s.Decree()})
	}
	return s.Core, out
}

// header is what every message carries.
func (s *step) header() Message {
	m := Message{Version: MessageVersion, SpecID: s.cfg.SpecID, Config: s.hash, N: s.cfg.N, Name: s.self.Name, Sealed: s.state.Sealed,
		Joining: s.cfg.Joining, Lowered: s.state.Lowered}
	if !s.reconfigured() {
		m.Decided = s.state.Decided()
	}
	return m
}

func (s *step) send(to string, m Message) { s.sends = append(s.sends, Send{To: to, Message: m}) }

func (s *step) set(k TimerKind, after time.Duration) {
	s.rest = append(s.rest, SetTimer{Kind: k, After: after})
}

func (s *step) note(text string) { s.rest = append(s.rest, Note{Text: text}) }

// noteProblems says each problem once, and again when it went and came back.
func (s *step) noteProblems() {
	problems := s.Problems()
	for _, p := range problems {
		if !slices.Contains(s.noted, p) {
			s.note(p)
		}
	}
	s.noted = problems
}

// slot gives a slot to write to.
func (s *step) slot(i int) *Slot {
	if !s.owned {
		s.state.Slots, s.owned = slices.Clone(s.state.Slots), true
	}
	for len(s.state.Slots) <= i {
		s.state.Slots = append(s.state.Slots, Slot{})
	}
	s.dirty = true
	return &s.state.Slots[i]
}

// peek reads a slot; unused ones are empty.
func (c *Core) peek(i int) Slot {
	if i < len(c.state.Slots) {
		return c.state.Slots[i]
	}
	return Slot{}
}

// counts says whether hardware has a vote in a slot.
func (c *Core) counts(slot int, hw string) bool {
	return c.cfg.votes(hw) && !slices.Contains(c.state.superseded(slot), hw)
}

// quorum is the number of votes that decide a slot. Whatever comes after a GO
// that is superseded is decided by a majority: with it, N = 3 has a way on
// without the dead server.
func (c *Core) quorum(slot int) int {
	if c.state.Lowered || len(c.state.superseded(slot)) > 0 {
		return min(c.cfg.Q, Majority(c.cfg.N))
	}
	return c.cfg.Q
}

// votersFor is the hardware in sight that has a vote in a slot, sorted.
func (c *Core) votersFor(slot int) []string {
	dead := c.state.superseded(slot)
	if len(dead) == 0 {
		return c.roll.voters
	}
	return slices.DeleteFunc(slices.Clone(c.roll.voters), func(hw string) bool { return slices.Contains(dead, hw) })
}

// foreign says that the state belongs to another cluster.
func (c *Core) foreign() bool { return c.state.SpecID != c.cfg.SpecID }

// reconfigured says that the state was begun under other numbers, where they
// matter: not after sealed, and not to a server that joins.
func (c *Core) reconfigured() bool {
	return c.state.Config != c.hash && !c.state.IsSealed() && !c.cfg.Joining
}
