package election

import (
	"fmt"
	"math/bits"
	"syscall"
	"testing"
	"time"
)

// The exhaustive checker of the fence. It searches, breadth first, all that N + x
// servers can come to: any message may be lost, doubled, delayed for ever and
// overtaken (what was sent is a set that only grows, and anything in it may be
// delivered at any time), a server may crash between any two effects, lose its disk
// (W times in all), and see any timer fire at any moment. Every transition is
// Core.Step's, see table. Attempts to propose are bounded, by B in all.
//
// What makes it small, and why nothing is missed:
//
//  1. A question (Prepare, Accept, news of decisions) goes to no server in
//     particular: views change at any moment. So each may be delivered to anybody,
//     which is more than happens: an attempt asks whom it saw when it began.
//  2. Answers are kept with who gave them, and only while somebody waits for them:
//     the core ignores answers to any but the running ballot and phase, and no
//     ballot runs twice.
//  3. Until enough hardware answered, a proposer only counts. Nothing else that it
//     does depends on the count, so all answers of a quorum are delivered in one
//     step, in the order of the servers. That the order does not matter is tested
//     by TestTallyOrder.
//  4. Servers that never propose differ in their names only. One core serves for
//     all of them, and states that are permutations of each other are one. Proposers
//     are the first servers; the others see nobody, which lets them vote always:
//     what a server sees can only stop it.
//  5. A wiped server comes back as another instance of the same hardware. What it
//     said before stays in the network. A message is for one instance, so the new
//     one gets no question that was asked for the last time before it was born.
//  6. Where one slot is searched, news of the decision is not delivered: who knows
//     it says nothing else any more (TestLearnedIsSilent), as if all messages to it
//     were lost.
//  7. Once all B attempts were made, what can only stop somebody is left out: crashes,
//     Nacks, Prepares of attempts that are over, and Accepts of such while nobody asks
//     for promises any more. Each of them takes from what a server may still do, and
//     losing messages is a schedule too. A proposer that is done is then one of those
//     that never propose.
//
// TestReductionsAgree searches small cases without 6 and 7 too. What follows a
// decided GO has more: see checker_after_test.go.

// maxServers bounds a case, so that a state has a fixed size.
const maxServers = 6

// state is one situation of all servers: a cell for each, then what was sent,
// then wipes. Everything in it is a number of the table.
type state [maxServers + 2]uint16

const (
	atSent  = maxServers
	atWipes = maxServers + 1
)

// cell is a server with the answers that it gave and somebody still waits for,
// and, once its disk was lost, the set of what nobody says any more since then.
type cell struct {
	local   uint16
	deaf    uint16   // index into sents
	answers []uint16 // sorted
}

// set holds up to 1024 questions.
type set [16]uint64

func (s set) with(q uint16) set { s[q/64] |= 1 << (q % 64); return s }
func (s set) has(q uint16) bool { return s[q/64]&(1<<(q%64)) != 0 }
func (s set) each(do func(q uint16)) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			do(uint16(64*i + bits.TrailingZeros64(w)))
		}
	}
}

// sent is what was ever sent, with what follows from it alone.
type sent struct {
	set      set
	list     []uint16 // deliverable questions
	attempts int
	broken   string // the property does not hold: why
}

// moveKind tells the transitions apart.
type moveKind uint8

const (
	moveAsked moveKind = iota
	moveAnswered
	moveTry
	moveTimer
	moveCrash
	moveWipe
	moveAct
	moveStand
)

// move is one transition, for the trace.
type move struct {
	kind   moveKind
	server int
	arg    uint16
	result int32
	from   []uint16 // moveAnswered: pairs of server and answer
}

// checker searches one case.
type checker struct {
	*table
	m      int      // servers
	names  []string // of the servers, at the beginning of the search
	cells  []cell
	sents  []sent
	sets   map[set]uint16
	cellz  map[string]uint16
	swaps  map[[3]uint32]uint16 // cells after a result, by cell, result and who waits
	waitz  map[waiters]uint32
	heirs  map[uint16]uint16    // cells of retired proposers
	said   map[[2]uint32]uint16 // sets after a result
	births map[[2]uint32]uint16 // what is no longer said, by set and who waits
	lives  map[[2]uint32]uint16 // sets without what no longer matters, by set and who waits

	states []state
	parent []uint32
	seen   []uint32 // open addressing: index into states plus one
	moves  int
	cov    coverage
	path   []uint16 // scratch of answered
	past   bool     // the prologue is over
}

func newChecker(t testing.TB, f *fenceCase) *checker {
	c := &checker{table: newTable(t, f), m: len(f.servers), sets: map[set]uint16{}, cellz: map[string]uint16{}, swaps: map[[3]uint32]uint16{}, waitz: map[waiters]uint32{}, heirs: map[uint16]uint16{}, lives: map[[2]uint32]uint16{}, said: map[[2]uint32]uint16{}, births: map[[2]uint32]uint16{}, seen: make([]uint32, 1<<12)}
	if c.m > maxServers {
		t.Fatalf("%d servers, expected at most %d", c.m, maxServers)
	}
	return c
}

// verdict is what a search found.
type verdict struct {
	broken string // empty: safe
	trace  []string
	full   bool // the whole space was searched
	states int
	moves  int
	took   time.Duration // of a processor
	cov    coverage
}

// run searches until nothing is left, or the property is broken, or limit states
// were seen.
func (c *checker) run(limit int) verdict {
	began := processorTime()
	c.visit(c.prologue(), 0)
	c.past = true
	v := verdict{full: true}
	for i := 0; i < len(c.states); i++ {
		if len(c.states) > limit {
			v.full = false
			break
		}
		at := c.states[i]
		if s := &c.sents[at[atSent]]; s.broken != "" {
			v.broken, v.trace = s.broken, c.trace(uint32(i))
			break
		}
		if c.sents[at[atSent]].attempts > c.fence.attempts+c.fence.beyond {
			continue // a decision began another attempt by itself
		}
		c.successors(at, func(next state, m move) {
			c.moves++
			c.cov.add(c.results[m.result].seen)
			c.canon(&next, nil)
			c.visit(next, uint32(i))
		})
	}
	v.states, v.moves, v.took, v.cov = len(c.states), c.moves, processorTime()-began, c.cov
	return v
}

// processorTime is what this process used. The clock would measure what else runs
// on the machine.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// visit adds a state that was not seen before.
func (c *checker) visit(s state, parent uint32) {
	if 2*len(c.states) >= len(c.seen) {
		c.seen = make([]uint32, 4*len(c.seen))
		for i := range c.states {
			*c.find(&c.states[i]) = uint32(i + 1)
		}
	}
	if at := c.find(&s); *at == 0 {
		c.states, c.parent = append(c.states, s), append(c.parent, parent)
		*at = uint32(len(c.states))
	}
}

func (c *checker) find(s *state) *uint32 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i += 4 {
		w := uint64(s[i]) | uint64(s[i+1])<<16 | uint64(s[i+2])<<32 | uint64(s[i+3])<<48
		h = (h ^ w) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	for mask := uint64(len(c.seen) - 1); ; h++ {
		at := &c.seen[h&mask]
		if *at == 0 || c.states[*at-1] == *s {
			return at
		}
	}
}

// canon sorts servers that are alike; names, when given, are sorted along.
func (c *checker) canon(s *state, names []string) {
	if c.fence.reduced || c.superseding() {
		c.reduce(s)
	}
	for i := 1; i < c.m; i++ {
		for j, k := i, i-1; k >= 0; k-- {
			if c.alike(s, j, k) && s[j] < s[k] {
				s[j], s[k] = s[k], s[j]
				if names != nil {
					names[j], names[k] = names[k], names[j]
				}
				j = k
			}
		}
	}
}

// alike says whether two servers differ in their names only.
func (c *checker) alike(s *state, i, j int) bool {
	p := c.fence.proposers
	return c.fence.servers[i].group == c.fence.servers[j].group && c.locals[c.cells[s[i]].local].place >= p && c.locals[c.cells[s[j]].local].place >= p
}

// place is the server whose core stands for server i.
func (c *checker) place(i int) int {
	for i > c.fence.proposers && c.fence.servers[i].group == c.fence.servers[i-1].group {
		i--
	}
	return i
}

// first is the situation at the beginning.
func (c *checker) first() state {
	var s state
	all := set{}
	for i, server := range c.fence.servers {
		l := c.boot(c.place(i), life{}, server.cfg, c.fence.disk(c.table, i), "boot0")
		s[i] = c.cell(cell{local: c.local(l), deaf: c.sent(set{})})
		for _, q := range c.tells(l.core) {
			all = all.with(q)
		}
	}
	s[atSent] = c.sent(all)
	c.canon(&s, nil)
	return s
}

func (c *checker) String() string {
	return fmt.Sprintf("%d locals, %d cells, %d questions, %d sets, %d results", len(c.locals), len(c.cells), len(c.questions), len(c.sents), len(c.results))
}
