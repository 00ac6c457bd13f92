package election

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// machine is one server of a simulation: user-data, a disk, and while it is up a
// core.
type machine struct {
	id      int
	hw      string
	cfg     Config
	self    Self
	disk    disk
	copies  []disk // older contents of the disk, to be put back
	harmed  bool   // its memory failed once: it counts in the law
	putBack bool   // its disk was put back once
	outside bool   // not among the electors, or joining: it has no vote
	dead    bool   // an operator confirmed it, and no other decree was decided yet
	traces  bool   // of a cluster, without a state (Evidence)
	strange bool   // runs with another configuration now

	up      bool
	core    Core
	boot    int
	checked uint64 // write up to which its state was checked
	mark    mark   // in /run: the GO that was confirmed in this boot
	misses  bool   // the holder of GO; for a mutant
	clock   [len(allTimers)]time.Duration
	calm    int // Ask timers since the last write anywhere; see heal
}

// mark says which GO of which instance stands.
type mark struct {
	inst  string
	epoch uint64
}

// confirms says whether the mark is for the GO that a state holds.
func (k mark) confirms(s State) bool {
	_, epoch, ok := s.Leader()
	return ok && s.HoldsGo() && k == mark{inst: s.Inst, epoch: epoch}
}

var allTimers = [...]TimerKind{TimerPropose, TimerResend, TimerSpread, TimerAsk, TimerUnfit, TimerSilence, TimerStand}

// flight is a message under way.
type flight struct {
	from   *machine
	sender Sender
	to     string
	m      Message
}

// size is a cluster of a simulation. harm is how many servers are wiped, put
// back or added at most; the law allows 2q-N-1.
type size struct {
	n, q, harm int
}

// sim is one schedule under way. The core, the codec of the state and the rule
// of its two files are the real ones; disk, network and clock are models.
type sim struct {
	rnd      *rand.Rand
	size     size
	mode     mode
	mut      mutant
	machines []*machine
	flights  []flight
	cut      [16]uint16 // cut[i] has bit j: nothing gets from i to j
	now      time.Duration
	insts    int
	runs     int
	harm     int // done so far
	limit    int // of harm
	hard     int // of harm by extra servers and disks put back
	steps    int
	calm     bool // no more crashes
	codec    bool // messages go through their codec
	rates    rates

	held    []string // instances that would have run kubeadm init
	decrees []Value  // what was decided, as the first server knew it
	sealed  []Sealed // by epoch
	deaths  []death
	failure string
	breach  bool // the failure is two decrees
	seen    feature

	tracing bool
	trace   []string
}

// say writes a line of the trace.
func (w *sim) say(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%4d  ", w.steps)+fmt.Sprintf(format, args...))
	}
}

func (w *sim) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.say("FAILED: %s", w.failure)
	}
}

// breaks ends the schedule with two decrees.
func (w *sim) breaks(format string, args ...any) {
	w.breach = w.breach || w.failure == ""
	w.fail(format, args...)
}

// start boots a machine from its disk, as the agent does: judge the two files,
// settle, discard a former life.
func (w *sim) start(m *machine) {
	m.disk.mount()
	found, problem := Newest(m.disk.files())
	w.insts++
	st, origin, _ := Settle(found, m.cfg, Hardware{HW: m.hw}, fmt.Sprintf("i%03d", w.insts))
	if problem != "" {
		w.saw(sawDamage)
	}
	if origin == Fresh && m.disk.any() {
		for _, f := range m.disk.removal() {
			m.disk.remove(f)
			if w.crashes(1) {
				w.say("%s loses power while it discards its former life", m.self.Name)
				m.disk.powerLoss(w)
				return
			}
		}
	}
	m.core, m.up, m.misses, m.checked, m.clock = New(m.cfg, m.self, st), true, false, 0, [len(allTimers)]time.Duration{}
	if w.mut.booted != nil {
		w.mut.booted(w, m)
	}
	w.say("%s starts as %s (%s %s)", m.self.Name, st.Inst, origin, problem)
	if m.traces && m.up {
		w.step(m, Evidence{What: "etcd data is there"})
	}
	w.runs++
	w.step(m, Start{Boot: fmt.Sprintf("cp%d-%d", m.id, m.boot), Run: fmt.Sprintf("r%03d", w.runs), Stands: m.mark.confirms(st)})
	w.step(m, Candidate{leaderFor(m, st.Inst)})
	if !w.chance(8) {
		w.step(m, Fitness{LeaderFit: true, GoFit: !w.chance(6)})
	}
}

func leaderFor(m *machine, inst string) Leader {
	return Leader{HW: m.hw, Inst: inst, Name: m.self.Name, Address: m.self.Address, CAHash: "sha256:ca-" + inst, AgentCAHash: "sha256:agent-" + inst}
}

// stop ends the agent; with power loss the boot ends too, and what was not
// synced is gone.
func (w *sim) stop(m *machine, power bool) {
	m.up = false
	if power {
		m.boot++
		m.mark = mark{}
		m.disk.powerLoss(w)
	}
	w.say("%s is down (power lost: %v)", m.self.Name, power)
}

// crashes decides whether a machine dies now.
func (w *sim) crashes(scale int) bool { return !w.calm && w.chance(w.rates.crash*scale) }

// step gives a machine an event and carries out the effects; it may die before
// and in each of them.
func (w *sim) step(m *machine, e Event) {
	if !m.up || w.failure != "" {
		return
	}
	if w.mut.event != nil {
		e = w.mut.event(w, m, e)
	}
	before := m.core.state.Seq
	var effects []Effect
	m.core, effects = m.core.Step(e)
	if w.mut.effects != nil {
		effects = w.mut.effects(w, m, effects)
	}
	if w.tracing {
		w.say("%s <- %s", m.self.Name, describeEvent(e))
	}
	dies := -1
	if len(effects) > 0 && w.crashes(1) {
		dies = w.rnd.IntN(len(effects))
	}
	silenced := w.rates.duel && w.decides(effects) && w.chance(2)
	sender := Sender{Inst: m.core.state.Inst, HW: m.hw}
	for i, effect := range effects {
		if i == dies {
			w.die(m, effect)
			return
		}
		w.carryOut(m, sender, effect)
		if _, ok := effect.(Persist); ok && silenced {
			w.check(m)
			w.say("%s decided and falls silent", m.self.Name)
			w.stop(m, w.chance(2))
			return
		}
	}
	if m.core.state.Seq != before && m.core.state.Seq != m.disk.seq() {
		w.fail("%s has state %d in memory and %d on disk", m.self.Name, m.core.state.Seq, m.disk.seq())
	}
	w.check(m)
}

// decides says whether effects write down a decision that nobody knows yet.
func (w *sim) decides(effects []Effect) bool {
	if len(effects) == 0 {
		return false
	}
	p, ok := effects[0].(Persist)
	return ok && p.State.known() > len(w.decrees)
}

// die ends a machine before an effect, or within it when it is a write.
func (w *sim) die(m *machine, effect Effect) {
	if p, ok := effect.(Persist); ok {
		stage := stage(w.rnd.IntN(int(stages)))
		m.disk.write(p.State, stage)
		w.say("%s dies while it writes state %d: %s", m.self.Name, p.State.Seq, stage)
		w.saw([stages]feature{sawTornWrite, sawTornWrite, sawUnsynced, sawUntold}[stage])
	} else {
		w.say("%s dies before %s", m.self.Name, describeEffect(effect))
	}
	w.stop(m, w.rnd.IntN(3) > 0)
}

func (w *sim) carryOut(m *machine, from Sender, effect Effect) {
	switch effect := effect.(type) {
	case Persist:
		m.disk.write(effect.State, synced)
		if w.chance(w.rates.copy) {
			m.copies = append(m.copies, m.disk)
		}
		for _, x := range w.machines {
			x.calm = 0
		}
		if w.tracing {
			w.say("     %s writes %s", m.self.Name, describeState(effect.State))
		}
	case Send:
		w.checkVoice(m, effect.Message.Kind)
		if w.rates.duel && (effect.Message.Kind == Ask || effect.Message.Kind == Tell || effect.Message.Kind == Tidings) && !w.chance(4) {
			return // lost: news would end the race
		}
		if v := effect.Message.Value; effect.Message.Kind == Accept && (v.Kind == Lead && v.Leader.Inst != from.Inst || v.Kind == Go && !m.leads()) {
			w.saw(sawCompleted)
		}
		w.flights = append(w.flights, flight{from: m, sender: from, to: effect.To, m: w.wire(effect.Message)})
		if w.tracing {
			w.say("     %s sends to %s: %s", m.self.Name, effect.To, describeMessage(effect.Message))
		}
	case SetTimer:
		at := slices.Index(allTimers[:], effect.Kind)
		m.clock[at] = 0
		if effect.After > 0 {
			m.clock[at] = w.now + effect.After
		}
	case Changed:
		if d := effect.Decree; d.Stands {
			m.mark = mark{inst: from.Inst, epoch: d.Epoch}
			w.checkRisen(m, from.Inst)
		}
	}
}

// wire sends a message through its codec.
func (w *sim) wire(m Message) Message {
	if !w.codec {
		return m
	}
	data, err := EncodeMessage(m)
	if err != nil {
		w.fail("%v", err)
		return m
	}
	out, err := DecodeMessage(data)
	if err != nil {
		w.fail("%s: %v", data, err)
	}
	return out
}

// deliver hands a message to the instance it is for, if that lives and is in
// reach.
func (w *sim) deliver(f flight) {
	for _, m := range w.machines {
		if m.up && m.core.state.Inst == f.to {
			if f.m.Kind == Stands && f.m.Standing {
				w.saw(sawConfirmed)
			}
			if w.cut[f.from.id]&(1<<m.id) == 0 {
				w.step(m, Received{From: f.sender, Message: f.m})
			}
			return
		}
	}
}

// leads says whether a machine leads, as far as it knows.
func (m *machine) leads() bool {
	l, _, ok := m.core.state.Leader()
	return ok && l.Inst == m.core.state.Inst
}

// view is what gossip shows a machine when it is right.
func (w *sim) view(m *machine) View {
	v := View{Peers: make([]Peer, 0, len(w.machines))}
	for _, p := range w.machines {
		if p != m && p.up && w.cut[p.id]&(1<<m.id) == 0 && w.cut[m.id]&(1<<p.id) == 0 {
			v.Peers = append(v.Peers, peerOf(p))
		}
	}
	return v
}

func peerOf(p *machine) Peer {
	return Peer{Inst: p.core.state.Inst, HW: p.hw, Name: p.self.Name, Address: p.self.Address, Eligible: p.self.Eligible, Joining: p.cfg.Joining}
}
