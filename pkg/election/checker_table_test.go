package election

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// A local is one server by itself: a real Core, and the disk below it. However
// many schedules there are, a server is in few locals; what each of them does
// with an event is worked out once, by Core.Step, and kept in a table. The search
// then handles numbers only, and still every transition is the core's own.
type local struct {
	place int // which server; servers that never propose share one place per group
	life  life
	cfg   int // which of the case's configurations it was booted with
	core  Core
	disk  State
	waits uint16 // for which answers
	holds bool   // it may run kubeadm init
}

// life counts the instances of a server, and how often this one's disk was put
// back from an old copy.
type life struct{ inst, run int }

// wait is what a server's volatile state counts answers for. The zero wait is
// none. No attempt's ballot is ever used again, so an answer that nobody waits for
// is one that the core ignores for ever.
type wait struct {
	ballot    Ballot
	accepting bool
	nonce     string // of Stand
}

// question is a message that any server may be given at any time, or a fact that
// the search remembers for the property.
type question struct {
	from Sender
	m    Message
	fact string
}

// result is what an event makes of a local.
type result struct {
	next      uint16
	questions []uint16 // and facts that it adds, sorted
	answers   []uint16 // it sends, sorted
	torn      []int32  // what is left when the server dies between two effects and that is news
	seen      coverage
}

// table is the memory of Core.Step.
type table struct {
	fence     *fenceCase
	t         testing.TB
	locals    []local
	questions []question
	answers   []Message
	waits     []wait
	results   []result
	ids       map[string]uint16
	asked     [][]int32          // results by local and question, 0 unknown, else index+1
	events    map[eventKey]int32 // results of all else
}

type eventKey struct {
	local      uint16
	kind       moveKind
	arg, extra uint16
}

func newTable(t testing.TB, f *fenceCase) *table {
	x := &table{fence: f, t: t, ids: map[string]uint16{}, events: map[eventKey]int32{}}
	x.wait(wait{})
	return x
}

// intern numbers things by what they are.
func (x *table) intern(kind string, v any, next int) (id uint16, known bool) {
	key := fmt.Sprintf("%s %+v", kind, v)
	if id, known = x.ids[key]; known {
		return id, true
	}
	if next >= 1<<16 {
		x.t.Fatalf("more than %d of %s: the search has to be smaller", next, kind)
	}
	x.ids[key] = uint16(next)
	return uint16(next), false
}

func (x *table) wait(w wait) uint16 {
	id, known := x.intern("wait", w, len(x.waits))
	if !known {
		x.waits = append(x.waits, w)
	}
	return id
}

// bare leaves out what only decides when something happens and what is said of
// it: in the search timers fire at any moment, every message ever sent may come
// again, and nobody reads the notes. Ask is left out because its answer tells the
// decisions of a server, which the search delivers anyway.
func bare(c Core) Core {
	c.state = bareState(c.state)
	c.strangers, c.noted, c.refusals, c.stand.nays = nil, nil, nil, nil
	c.turn, c.try.resends = turn{slot: c.turn.slot}, 0
	if c.seen <= c.state.Round {
		c.seen = 0 // the next round is above both
	}
	c.spread.tries, c.spread.acks, c.spread.armed = 0, nil, false
	c.ask = asking{armed: true}
	if c.stand.tries = 0; c.stand.ok {
		c.stand.votes = nil
	}
	return c
}

// bareState forgets how often a state was written; only never matters.
func bareState(s State) State {
	s.Seq = min(s.Seq, 1)
	return s
}

func (x *table) local(l local) uint16 {
	if !l.core.try.running() {
		// A server that does nothing sees nobody: views change at any moment. An order
		// on which it does nothing may as well be given later.
		l.core = x.silently(l.core, View{})
		l.core.act = Supersede{}
	}
	l.core, l.disk, l.waits, l.holds = bare(l.core), bareState(l.disk), 0, false
	id, known := x.intern("local", l, len(x.locals))
	if known {
		return id
	}
	w := wait{ballot: l.core.try.ballot, accepting: l.core.try.accepting}
	if l.core.state.HoldsGo() && !l.core.stand.ok {
		w.nonce = l.core.boot
	}
	l.waits = x.wait(w)
	l.holds = l.core.Decree().Stands
	x.locals = append(x.locals, l)
	x.asked = append(x.asked, nil)
	return id
}

// silently gives a core an event on which it has nothing to say or to write.
func (x *table) silently(c Core, e Event) Core {
	c, effects := c.Step(e)
	for _, effect := range effects {
		switch effect.(type) {
		case Send, Persist:
			x.t.Fatalf("%T made a server do %+v", e, effect)
		}
	}
	return c
}

func (x *table) inst(place, n int) string { return fmt.Sprintf("inst%d.%d", place, n) }
func (x *table) hw(place int) string      { return fmt.Sprintf("hw%d", place) }

func (x *table) self(place int) Self {
	return Self{Name: fmt.Sprintf("cp%d", place), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(place + 1)}), Eligible: place < x.fence.proposers}
}

// boot starts a server from its disk; no state at all is a wiped or a new one.
func (x *table) boot(place int, life life, cfg int, disk *State, boot string) local {
	st, _, _ := Settle(disk, x.fence.cfgs[cfg], Hardware{HW: x.hw(place)}, x.inst(place, life.inst))
	l := local{place: place, life: life, cfg: cfg, core: New(x.fence.cfgs[cfg], x.self(place), st), disk: st}
	if disk == nil {
		l.disk = State{}
	}
	events := []Event{Start{Boot: x.hw(place) + "-" + boot, Run: x.run(life)}}
	if place < x.fence.proposers {
		ca := "sha256:" + st.Inst
		self := x.self(place)
		events = append(events, Candidate{Leader{HW: x.hw(place), Inst: st.Inst, Name: self.Name, Address: self.Address, CAHash: ca, AgentCAHash: ca}},
			Fitness{LeaderFit: true, GoFit: x.fence.goFit})
	}
	for _, e := range events {
		var effects []Effect
		l.core, effects = l.core.Step(e)
		for _, effect := range effects {
			if p, ok := effect.(Persist); ok {
				l.disk = p.State
			}
			if s, ok := effect.(Send); ok {
				x.t.Fatalf("a server that sees nobody sent %+v at boot", s)
			}
		}
	}
	return l
}

// run is Start.Run. It is new with every boot; here only where a copy of the disk
// was put back, which is less, and all that ballots need.
func (x *table) run(l life) string {
	if x.fence.mutant == oneRun {
		return "run"
	}
	return fmt.Sprintf("run%d", l.run)
}

// step gives a local events, one after the other, and works out what is left:
// the effects in order, and the crash between any two of them.
func (x *table) step(from uint16, events ...Event) int32 {
	l := x.locals[from]
	l.core = bare(l.core)
	var r result
	for _, e := range events {
		var effects []Effect
		l.core, effects = l.core.Step(e)
		if x.fence.mutant == sendFirst {
			slices.SortStableFunc(effects, func(a, b Effect) int { return rank(a) - rank(b) })
		}
		for _, effect := range effects {
			switch effect := effect.(type) {
			case Persist:
				if len(r.questions)+len(r.answers) > 0 {
					// Something was heard that is not on the disk yet. Any other crash inside
					// this step leaves what a crash before or after it leaves, with messages lost.
					r.torn = append(r.torn, x.keep(x.crashed(l, r)))
				}
				if x.fence.mutant != noDisk {
					l.disk = effect.State
				}
			case Send:
				x.sent(&r, l, effect.Message)
			}
		}
	}
	if x.fence.mutant == credulous {
		l.core.state, l.disk = witness(l.core.state), witness(l.disk)
	}
	if l.disk.HoldsGo() {
		x.fact(&r, "GO is held by "+l.disk.Inst)
	}
	if d := l.core.Decree(); d.Stands {
		x.fact(&r, fmt.Sprintf("GO of epoch %d stands on %s since %s", d.Epoch, d.Leader.Inst, l.core.boot))
	}
	if l.core.conflict != "" {
		x.fact(&r, "a server stopped at two decrees")
	}
	if was := x.locals[from].core.state; l.core.state.known() > was.known() || l.core.state.Lowered != was.Lowered {
		r.questions = append(r.questions, x.tells(l.core)...)
	}
	r.next = x.local(l)
	x.cover(&r, x.locals[from], x.locals[r.next])
	return x.keep(r)
}

// rank puts Sends before Persists, which is wrong: see TestCheckerFindsMutants.
func rank(e Effect) int {
	if _, ok := e.(Send); ok {
		return 0
	}
	return 1
}

func (x *table) keep(r result) int32 {
	slices.Sort(r.questions)
	r.questions = slices.Compact(r.questions)
	slices.Sort(r.answers)
	r.answers = slices.Compact(r.answers)
	x.results = append(x.results, r)
	return int32(len(x.results) - 1)
}

// crashed is a server that died with what is on its disk, having sent what r says.
func (x *table) crashed(l local, r result) result {
	l = x.boot(l.place, l.life, l.cfg, written(l.disk), strings.TrimPrefix(l.core.boot, x.hw(l.place)+"-"))
	return result{
		next: x.local(l), questions: append(x.tells(l.core), r.questions...), answers: slices.Clone(r.answers), seen: coverage{crashed: 1},
	}
}

// written is nil for a disk that nothing was written to.
func written(s State) *State {
	if s.Seq == 0 {
		return nil
	}
	return &s
}

func (x *table) fact(r *result, text string) {
	r.questions = append(r.questions, x.ask(question{fact: text}))
}

// tells is what a server says when it is asked what is decided.
func (x *table) tells(c Core) (news []uint16) {
	if c.state.known() == 0 && !c.state.Lowered {
		return nil
	}
	_, effects := c.Step(Received{From: Sender{Inst: "asker", HW: "asker"}, Message: Message{Kind: Ask, SpecID: c.cfg.SpecID, Config: c.hash}})
	for _, effect := range effects {
		if s, ok := effect.(Send); ok && s.Message.Kind == Tell && s.To == "asker" {
			news = append(news, x.news(s.Message)...)
		}
	}
	return news
}

// news is a message's header: what is decided.
func (x *table) news(m Message) []uint16 {
	if len(m.Decided) == 0 && !m.Lowered {
		return nil
	}
	tell := Message{Version: m.Version, Kind: Tell, SpecID: m.SpecID, Config: m.Config, N: m.N, Decided: m.Decided, Lowered: m.Lowered}
	return []uint16{x.ask(question{from: Sender{Inst: "teller", HW: "teller"}, m: tell})}
}

func (x *table) ask(q question) uint16 {
	q.m.Name = ""
	id, known := x.intern("question", q, len(x.questions))
	if !known {
		x.questions = append(x.questions, q)
	}
	return id
}

// sent sorts a message in. What it tells of decisions may reach anyone by itself,
// later: a server that knows them tells them again and again.
func (x *table) sent(r *result, l local, m Message) {
	r.questions = append(r.questions, x.news(m)...)
	switch m.Kind {
	case Prepare, Accept, Stand:
		r.questions = append(r.questions, x.ask(question{from: Sender{Inst: l.core.state.Inst, HW: x.hw(l.place)}, m: m}))
	case Promise, Nack, Accepted, Stands:
		m.Name = ""
		id, known := x.intern("answer", m, len(x.answers))
		if !known {
			x.answers = append(x.answers, m)
		}
		r.answers = append(r.answers, id)
	}
}

// on is the result of delivering a question.
func (x *table) on(l, q uint16) int32 {
	row := x.asked[l]
	if int(q) >= len(row) {
		row = append(row, make([]int32, len(x.questions)-len(row))...)
		x.asked[l] = row
	}
	if row[q] == 0 {
		i := x.step(l, Received{From: x.questions[q].from, Message: x.questions[q].m})
		x.asked[l][q] = i + 1
		return i
	}
	return row[q] - 1
}

// when is the result of any other event.
func (x *table) when(k eventKey, events func() []Event) int32 {
	if i, ok := x.events[k]; ok {
		return i
	}
	i := x.step(k.local, events()...)
	x.events[k] = i
	return i
}
