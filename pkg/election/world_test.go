package election

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mustermetal/muster/pkg/cluster"
)

const testSpec = "00112233445566778899aabbccddeeff"

// server is one machine in a test: a disk and, while it runs, a core.
type server struct {
	hw    string
	cfg   Config
	self  Self
	disk  State
	core  Core
	up    bool
	boot  int
	clock map[TimerKind]time.Duration // absolute virtual time
	notes []string
}

type packet struct {
	from Sender
	to   string
	m    Message
}

// world is a set of servers with a network that a test controls.
type world struct {
	t       testing.TB
	servers []*server
	net     []packet
	now     time.Duration
	insts   int
	goHeld  map[string]bool // instances that ever held GO with the marker on disk
	plain   bool            // messages skip their codec
}

func newWorld(t testing.TB, n int, rule string) *world {
	w := &world{t: t, goHeld: map[string]bool{}}
	for range n {
		w.add(testConfig(n, rule))
	}
	return w
}

func testConfig(n int, rule string) Config {
	return FromSpec(cluster.Spec{ID: testSpec, Servers: cluster.Servers{Expect: n, Quorum: rule}})
}

// add racks one more server with this configuration.
func (w *world) add(cfg Config) *server {
	i := len(w.servers)
	s := &server{hw: fmt.Sprintf("hw%02d", i), cfg: cfg, clock: map[TimerKind]time.Duration{}}
	s.self = Self{Name: fmt.Sprintf("cp%d", i), Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i + 1)}), Eligible: true}
	w.servers = append(w.servers, s)
	return s
}

// bootUp starts a server from its disk, fit for everything.
func (w *world) bootUp(s *server) {
	w.insts++
	var found *State
	if s.disk.Seq > 0 {
		data, err := EncodeState(s.disk)
		if err != nil {
			w.t.Fatal(err)
		}
		st, err := DecodeState(data)
		if err != nil {
			w.t.Fatal(err)
		}
		found = &st
	}
	st, _, _ := Settle(found, s.cfg, Hardware{HW: s.hw}, fmt.Sprintf("inst%03d", w.insts))
	s.core, s.up = New(s.cfg, s.self, st), true
	s.boot++
	clear(s.clock)
	w.step(s, Start{Boot: fmt.Sprintf("%s-%d", s.hw, s.boot), Run: fmt.Sprintf("run%d", w.insts)})
	if s.up {
		inst := s.core.State().Inst
		w.step(s, Candidate{Leader{HW: s.hw, Inst: inst, Name: s.self.Name, Address: s.self.Address, CAHash: "sha256:ca-" + inst, AgentCAHash: "sha256:agent-" + inst}})
	}
	if s.up {
		w.step(s, Fitness{LeaderFit: true, GoFit: true})
	}
}

func (w *world) bootAll() {
	for _, s := range w.servers {
		w.bootUp(s)
	}
}

// step gives a server an event and carries out the effects.
func (w *world) step(s *server, e Event) {
	if !s.up {
		return
	}
	var effects []Effect
	s.core, effects = s.core.Step(e)
	for _, effect := range effects {
		switch effect := effect.(type) {
		case Persist:
			if effect.State.Seq != s.disk.Seq+1 && s.disk.Inst == effect.State.Inst {
				w.t.Fatalf("%s persists seq %d after %d", s.hw, effect.State.Seq, s.disk.Seq)
			}
			s.disk = effect.State
			if s.disk.HoldsGo() {
				w.goHeld[s.disk.Inst] = true
			}
		case Send:
			w.net = append(w.net, packet{from: Sender{Inst: s.core.State().Inst, HW: s.hw}, to: effect.To, m: w.wire(effect.Message)})
		case SetTimer:
			delete(s.clock, effect.Kind)
			if effect.After > 0 {
				s.clock[effect.Kind] = w.now + effect.After
			}
		case Note:
			s.notes = append(s.notes, effect.Text)
		}
	}
}

// wire sends a message through its codec.
func (w *world) wire(m Message) Message {
	if w.plain {
		return m
	}
	data, err := EncodeMessage(m)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := DecodeMessage(data)
	if err != nil {
		w.t.Fatalf("%s: %v", data, err)
	}
	return out
}

// meet shows servers to one another.
func (w *world) meet(group ...*server) {
	for _, s := range group {
		w.step(s, w.view(s, group))
	}
}

func (w *world) view(s *server, group []*server) View {
	var v View
	for _, p := range group {
		if p != s && p.up {
			v.Peers = append(v.Peers, Peer{Inst: p.core.State().Inst, HW: p.hw, Name: p.self.Name, Address: p.self.Address, Eligible: p.self.Eligible, Joining: p.cfg.Joining})
		}
	}
	return v
}

func (w *world) deliver(p packet) {
	for _, s := range w.servers {
		if s.up && s.core.State().Inst == p.to {
			w.step(s, Received{From: p.from, Message: p.m})
			return
		}
	}
}

// quiet delivers everything in order until nothing is under way, and returns
// how many messages that took.
func (w *world) quiet() (n int) {
	for len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		w.deliver(p)
		if n++; n > 100_000 {
			w.t.Fatal("the servers never stop talking")
		}
	}
	return n
}

// run lets virtual time pass on a quiet network.
func (w *world) run(d time.Duration) {
	for end := w.now + d; ; {
		w.quiet()
		var due *server
		var kind TimerKind
		at := end + 1
		for _, s := range w.servers {
			for _, k := range sorted(s.clock) {
				if s.up && s.clock[k] < at {
					due, kind, at = s, k, s.clock[k]
				}
			}
		}
		if due == nil {
			w.now = end
			return
		}
		w.now = at
		delete(due.clock, kind)
		w.step(due, Timer{Kind: kind})
	}
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// wipe takes a server's disk away.
func (s *server) wipe() { s.up, s.disk = false, State{} }

func (w *world) phases() string {
	var out []string
	for _, s := range w.servers {
		switch {
		case !s.up:
			out = append(out, "off")
		default:
			out = append(out, string(s.core.Decree().Phase))
		}
	}
	return strings.Join(out, " ")
}

func (w *world) wantPhases(want string) {
	w.t.Helper()
	if got := w.phases(); got != want {
		for _, s := range w.servers {
			if s.up {
				w.t.Logf("%s: %s", s.self.Name, s.core.Explain())
			}
		}
		w.t.Fatalf("phases are %q, expected %q", got, want)
	}
}

// addresses compares netip.Addr by ==, as the core does.
var addresses = cmpopts.EquateComparable(netip.Addr{})
