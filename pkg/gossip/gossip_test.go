package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testPort = 9760

var testKey = bytes.Repeat([]byte{7}, 32)

func inst(i int) string     { return fmt.Sprintf("%032x", i) }
func hw(i int) string       { return fmt.Sprintf("ff%030x", i) }
func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}) }
func first(n int) []netip.Addr {
	var seeds []netip.Addr
	for i := range n {
		seeds = append(seeds, addr(i+1))
	}
	return seeds
}

// node is a running group and what ends it.
type node struct {
	*Group
	port *port
	stop func()
}

// start runs node i of a cluster in the bubble of a synctest.
func start(t *testing.T, w *wire, i int, seeds []netip.Addr, change ...func(*Config)) *node {
	t.Helper()
	at := addr(i)
	config := Config{Inst: inst(i), HW: hw(i), Address: at, Port: testPort, Label: "0123456789abcdef", Key: testKey}
	for _, c := range change {
		c(&config)
	}
	var p *port
	if config.Transport == nil {
		p = w.plug(config.Address)
		config.Transport = p
	}
	g, err := Join(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, func() []netip.Addr { return seeds }, nil) }()
	var once sync.Once
	n := &node{Group: g, port: p}
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Run ended with %v", err)
			}
		})
	}
	return n
}

// crash takes the node off the wire without a word.
func (n *node) crash() {
	_ = n.port.Shutdown()
	n.stop()
	_ = n.list.Shutdown()
}

// end stops all nodes and lets memberlist's own timers run out in the bubble.
func end(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.stop()
		_ = n.list.Shutdown()
	}
	time.Sleep(3 * time.Minute) // virtual, as every sleep here: synctest
}

// within waits until what holds, and returns how long that took in bubble time.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func everybodySees(n int, nodes ...*node) func() bool {
	return func() bool {
		return !slices.ContainsFunc(nodes, func(x *node) bool { return len(x.Peers()) != n })
	}
}

func TestConverge(t *testing.T) {
	for _, n := range []int{1, 3, 5, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(0.02)
				var nodes []*node
				for i := range n {
					nodes = append(nodes, start(t, w, i+1, first(3), func(c *Config) { c.Flags = Eligible }))
				}
				// Re-joins every 10 s bound the tail that a lost message makes.
				took := within(t, 25*time.Second, "all see all", everybodySees(n, nodes...))
				t.Logf("%d nodes, 2 %% loss: all see all after %v", n, took)
				for i, p := range nodes[n-1].Peers() {
					want := Peer{Inst: inst(i + 1), HW: hw(i + 1), Address: addr(i + 1), Flags: Eligible}
					if p != want {
						t.Errorf("peer %d is %+v; want %+v", i, p, want)
					}
				}
				alive := n
				if n >= 3 {
					nodes[1].crash()
					rest := slices.Delete(slices.Clone(nodes), 1, 2)
					alive--
					within(t, 30*time.Second, "the death is seen", everybodySees(alive, rest...))
				}
				late := start(t, w, n+1, first(3))
				within(t, 25*time.Second, "the late starter sees all", everybodySees(alive+1, late))
				end(t, append(nodes, late)...)
			})
		})
	}
}

// Seeds that do not answer take 10 s each to say so; nobody waits for them.
func TestDeadSeedsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		seeds := []netip.Addr{addr(101), addr(102), addr(103), addr(1)}
		a, b := start(t, w, 1, seeds), start(t, w, 2, seeds)
		if took := within(t, 2*time.Second, "both see both", everybodySees(2, a, b)); took > time.Second {
			t.Errorf("took %v", took)
		}
		end(t, a, b)
	})
}

// A server whose seed comes up a minute later finds it, though the seed does not
// know whom to ask.
func TestSeedComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		early := start(t, w, 2, first(1))
		time.Sleep(time.Minute)
		late := start(t, w, 1, nil)
		within(t, 30*time.Second, "they meet", everybodySees(2, early, late))
		end(t, early, late)
	})
}

// A network that was cut for minutes heals, though all were settled long ago.
func TestCutNetworkHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		settled := func(c *Config) { c.Settled = func() bool { return true } }
		var nodes []*node
		for i := range 6 {
			nodes = append(nodes, start(t, w, i+1, []netip.Addr{addr(1), addr(6)}, settled))
		}
		// Settled nodes look for more about once a minute: that bounds the tail.
		within(t, 2*time.Minute, "all see all", everybodySees(6, nodes...))
		w.isolate(addr(4), addr(5), addr(6))
		within(t, time.Minute, "the halves see themselves", everybodySees(3, nodes...))
		time.Sleep(10 * time.Minute)
		w.isolate()
		within(t, 3*time.Minute, "all see all again", everybodySees(6, nodes...))
		end(t, nodes...)
	})
}

func TestFlagsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0.02)
		a, b := start(t, w, 1, first(2)), start(t, w, 2, first(2))
		within(t, 5*time.Second, "both see both", everybodySees(2, a, b))
		for len(b.Changes()) > 0 {
			<-b.Changes()
		}
		a.SetFlags(Decided)
		a.SetFlags(Decided | Sealed)
		a.SetFlags(Decided | Sealed)
		<-b.Changes()
		within(t, 45*time.Second, "b knows", func() bool { return b.Peers()[0].Flags == Decided|Sealed })
		if got := a.Peers()[0].Flags; got != Decided|Sealed {
			t.Errorf("a says of itself %v", got)
		}
		end(t, a, b)
	})
}

func TestStrangersStayOut(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"other key":   func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 32) },
		"other label": func(c *Config) { c.Label = "fedcba9876543210" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(0)
				a, b := start(t, w, 1, first(2)), start(t, w, 2, first(2), change)
				time.Sleep(time.Minute)
				if !everybodySees(1, a, b)() {
					t.Errorf("they see each other: %v, %v", a.Peers(), b.Peers())
				}
				end(t, a, b)
			})
		})
	}
}

// The key changes while all are there: first each accepts the new one, then each uses
// it, then each forgets the old one, server by server. Whoever is up sees all others
// that are.
func TestKeyChanges(t *testing.T) {
	old, next := testKey, bytes.Repeat([]byte{8}, 32)
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		nodes := make([]*node, 3)
		begin := func(i int, key []byte, accept ...[]byte) {
			nodes[i] = start(t, w, i+1, first(3), func(c *Config) { c.Key, c.Accept = key, accept })
		}
		for i := range nodes {
			begin(i, old)
		}
		within(t, 25*time.Second, "all see all", everybodySees(3, nodes...))
		for _, step := range []struct {
			name   string
			key    []byte
			accept [][]byte
		}{{"accept", old, [][]byte{next}}, {"use", next, [][]byte{old}}, {"forget", next, nil}} {
			for i := range nodes {
				nodes[i].stop()
				_ = nodes[i].list.Shutdown()
				begin(i, step.key, step.accept...)
				within(t, 25*time.Second, fmt.Sprintf("%s at %d: all see all", step.name, i), everybodySees(3, nodes...))
				for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(time.Second) {
					if !everybodySees(3, nodes...)() {
						t.Fatalf("%s at %d: one is out of sight later", step.name, i)
					}
				}
			}
		}
		stranger := start(t, w, 4, first(3), func(c *Config) { c.Key = old })
		time.Sleep(time.Minute)
		if !everybodySees(3, nodes...)() || len(stranger.Peers()) != 1 {
			t.Errorf("the old key is good still: %v", stranger.Peers())
		}
		end(t, append(nodes, stranger)...)
	})
}

// Both owners of one instance, and everybody else, are told.
func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		var mu sync.Mutex
		told := map[int][]Conflict{}
		listen := func(who int) func(*Config) {
			return func(c *Config) {
				c.Conflict = func(x Conflict) {
					mu.Lock()
					defer mu.Unlock()
					told[who] = append(told[who], x)
				}
			}
		}
		a := start(t, w, 1, first(2), listen(1))
		b := start(t, w, 2, first(2), listen(2))
		within(t, 5*time.Second, "both see both", everybodySees(2, a, b))
		clone := start(t, w, 3, first(2), listen(3), func(c *Config) { c.Inst = inst(1) })
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		want := map[int][]Conflict{
			1: {{Inst: inst(1), Addresses: [2]netip.Addr{addr(1), addr(3)}}},
			2: {{Inst: inst(1), Addresses: [2]netip.Addr{addr(1), addr(3)}}},
			3: {{Inst: inst(1), Addresses: [2]netip.Addr{addr(3), addr(1)}}},
		}
		if diff := cmp.Diff(want, told, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		end(t, a, b, clone)
	})
}

// A copy that became another server, and is a copy again, is told of again.
func TestConflictAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		var told atomic.Int32
		a := start(t, w, 1, first(3), func(c *Config) { c.Conflict = func(Conflict) { told.Add(1) } })
		b := start(t, w, 2, first(3))
		within(t, 5*time.Second, "both see both", everybodySees(2, a, b))
		for round := int32(1); round <= 2; round++ {
			clone := start(t, w, 3, first(3), func(c *Config) { c.Inst = inst(1) })
			within(t, time.Minute, "the owner is told", func() bool { return told.Load() == round })
			clone.crash()
			other := start(t, w, 3, first(3))
			within(t, time.Minute, "the owner sees another instance there", everybodySees(3, a, b))
			other.crash()
			within(t, 5*time.Minute, "it is gone", everybodySees(2, a, b))
		}
		end(t, a, b)
	})
}

// A server keeps its instance over a reboot, at the old or at a new address.
func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		a, b, c := start(t, w, 1, first(3)), start(t, w, 2, first(3)), start(t, w, 3, first(3))
		within(t, 5*time.Second, "all see all", everybodySees(3, a, b, c))
		c.crash()
		c = start(t, w, 3, first(3))
		within(t, 5*time.Second, "back before its death was seen", everybodySees(3, a, b, c))
		time.Sleep(time.Minute)
		if !everybodySees(3, a, b, c)() {
			t.Error("lost again")
		}
		c.crash()
		within(t, 30*time.Second, "its death is seen", everybodySees(2, a, b))
		time.Sleep(reclaim + time.Second)
		moved := start(t, w, 4, first(3), func(c *Config) { c.Inst, c.HW = inst(3), hw(3) })
		within(t, 30*time.Second, "back at another address", func() bool {
			return everybodySees(3, a, b, moved)() && a.Peers()[2].Address == addr(4)
		})
		end(t, a, b, moved)
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		a, b := start(t, w, 1, first(2)), start(t, w, 2, first(2))
		within(t, 5*time.Second, "both see both", everybodySees(2, a, b))
		b.stop()
		for range 2 { // the second is no error and no panic
			if err := b.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		}
		within(t, time.Second, "gone", everybodySees(1, a))
		end(t, a)
	})
}

func TestJoinRefuses(t *testing.T) {
	_, err := Join(t.Context(), Config{Inst: "cp1", HW: "x", Key: []byte("short")})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`instance is "cp1"`, `hardware id is "x"`, "address is", "port is 0", "key has 5 bytes", `label is ""`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

// Asking an address tells whether a server of the group is there. A stranger does
// not answer, nor does a server that is off.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		a, b := start(t, w, 1, nil), start(t, w, 2, nil)
		stranger := start(t, w, 3, nil, func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 32) })
		for at, want := range map[netip.Addr]bool{addr(2): true, addr(3): false, addr(4): false} {
			began := time.Now()
			if got := a.Ask(at); got != want {
				t.Errorf("%s answers: %v", at, got)
			}
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("asking %s took %v", at, took)
			}
		}
		if !everybodySees(1, stranger)() {
			t.Error("who was asked with another key sees somebody")
		}
		end(t, a, b, stranger)
	})
}

// A server that is alone tries an address as soon as it hears of it, however long its
// pauses have become.
func TestNewsAreTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(0)
		a := start(t, w, 1, nil)
		config := a.config
		config.Inst, config.HW, config.Address, config.Transport = inst(2), hw(2), addr(2), w.plug(addr(2))
		g, err := Join(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var seeds []netip.Addr
		news := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- g.Run(ctx, func() []netip.Addr {
				mu.Lock()
				defer mu.Unlock()
				return seeds
			}, news)
		}()
		time.Sleep(time.Minute)
		mu.Lock()
		seeds = first(1)
		mu.Unlock()
		news <- struct{}{}
		if took := within(t, 20*time.Second, "they meet", everybodySees(2, a)); took > time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		<-ended
		_ = g.list.Shutdown()
		end(t, a)
	})
}
