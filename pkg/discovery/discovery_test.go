package discovery

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
)

var at = netip.MustParseAddr

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, at(t))
	}
	return out
}

// crowd is a roll call: who answers, and who is in sight.
type crowd struct {
	mu      sync.Mutex
	answers map[netip.Addr]bool
	inSight map[string]netip.Addr
	asked   []netip.Addr
}

func newCrowd(answers ...string) *crowd {
	c := &crowd{answers: map[netip.Addr]bool{}, inSight: map[string]netip.Addr{"b": at("10.0.0.1")}}
	for _, a := range answers {
		c.answers[at(a)] = true
	}
	return c
}

// Ask takes as long as an answer that does not come.
func (c *crowd) Ask(a netip.Addr) bool {
	time.Sleep(500 * time.Millisecond) // virtual: synctest
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, a)
	return c.answers[a]
}

func (c *crowd) InSight() map[string]netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.inSight)
}

func (c *crowd) see(inst, address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inSight[inst] = at(address)
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// scripted is a way whose attempts are written down: addresses or an error.
type scripted struct {
	name  string
	pace  Pace
	tries []any
	done  atomic.Int64
}

func (s *scripted) Name() string { return s.name }
func (s *scripted) Pace() Pace   { return s.pace }
func (s *scripted) Find(ctx context.Context, found func(netip.Addr)) error {
	done := int(s.done.Add(1))
	if done > len(s.tries) {
		<-ctx.Done()
		return ctx.Err()
	}
	if err, failed := s.tries[done-1].(error); failed {
		return err
	}
	for _, a := range s.tries[done-1].([]netip.Addr) {
		found(a)
	}
	return nil
}

// searching runs a search in the bubble of a synctest.
func searching(t *testing.T, c *crowd, settled func() bool, ways ...Way) *Search {
	t.Helper()
	s := New("b", at("10.0.0.1"), ways, c, settled, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return s
}

func never() bool { return false }

// Several ways at once: one that fails, or hangs, holds up no other, is visible, and
// is tried again.
func TestSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := newCrowd("10.0.0.2")
		c.see("c", "10.0.0.3")
		often := Pace{Deadline: time.Second, Every: 10 * time.Second}
		s := searching(t, c, never,
			Static(addrs("10.0.0.1", "10.0.0.2", "10.0.0.4")),
			&scripted{name: "dns a", pace: often, tries: []any{errors.New("no such name"), addrs("10.0.0.2", "::ffff:10.0.0.3", "127.0.0.1", "224.0.0.1", "0.0.0.0")}},
			&scripted{name: "hangs", pace: often})
		time.Sleep(3 * time.Second) // virtual: synctest
		report := s.Report()
		if w := report.Ways[1]; w.Problem != "no such name" || w.Found != 0 || w.Tried.IsZero() {
			t.Errorf("after the failure: %+v", w)
		}
		if w := report.Ways[2]; w.Problem != context.DeadlineExceeded.Error() {
			t.Errorf("a way that hangs: %+v", w)
		}
		time.Sleep(30 * time.Second) // virtual: synctest
		report = s.Report()
		for i := range report.Found {
			f := &report.Found[i]
			if f.Asked.Before(began) || time.Since(f.Asked) > 2*askEvery {
				t.Errorf("%s was asked %v ago", f.Address, time.Since(f.Asked))
			}
			f.At, f.Asked = time.Time{}, time.Time{}
		}
		want := []member.Found{
			{Address: at("10.0.0.2"), By: []string{"dns a", "static"}, Answered: true},
			{Address: at("10.0.0.3"), By: []string{"dns a"}, Answered: true}, // in sight, and not asked
			{Address: at("10.0.0.4"), By: []string{"static"}},
		}
		if diff := cmp.Diff(want, report.Found, compareAddrs); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		if w := report.Ways[1]; w.Problem == "no such name" || w.Found != 2 {
			t.Errorf("after the success: %+v", w)
		}
		if diff := cmp.Diff(addrs("10.0.0.2", "10.0.0.3", "10.0.0.4"), s.Seeds(), compareAddrs); diff != "" {
			t.Errorf("seeds (-want +got):\n%s", diff)
		}
	})
}

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// Ways rest when the cluster has formed and somebody is in sight. A member that is
// alone after a reboot looks again.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		way := &scripted{name: "dns a", pace: Pace{Deadline: time.Second, Every: 10 * time.Second}, tries: make([]any, 100)}
		for i := range way.tries {
			way.tries[i] = addrs("10.0.0.9")
		}
		s := searching(t, c, func() bool { return true }, way)
		time.Sleep(time.Minute)
		alone := way.done.Load()
		if alone < 4 {
			t.Errorf("alone it tried %d times in a minute", alone)
		}
		c.see("c", "10.0.0.3")
		time.Sleep(15 * time.Second)
		rested := way.done.Load()
		time.Sleep(10 * time.Minute)
		if way.done.Load() != rested {
			t.Errorf("%d attempts while it should rest", way.done.Load()-rested)
		}
		if w := s.Report().Ways[0]; w.Resting != "the cluster has formed, and others are in sight" {
			t.Errorf("it says %q", w.Resting)
		}
		if len(s.Seeds()) != 1 {
			t.Error("what was found is forgotten")
		}
	})
}

// One server asks a service that counts requests: the first of those in sight.
func TestFirstAsksForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		way := &scripted{name: "api", pace: Pace{Deadline: time.Second, Every: 10 * time.Second, First: true}, tries: make([]any, 100)}
		for i := range way.tries {
			way.tries[i] = addrs("10.0.0.9")
		}
		s := searching(t, c, never, way)
		c.see("c", "10.0.0.3")
		time.Sleep(time.Minute)
		if way.done.Load() < 4 {
			t.Errorf("the first tried %d times in a minute", way.done.Load())
		}
		c.see("a", "10.0.0.4")
		time.Sleep(15 * time.Second)
		before := way.done.Load()
		time.Sleep(time.Minute)
		if way.done.Load() != before {
			t.Errorf("another server is first, and this one asked %d times", way.done.Load()-before)
		}
		if w := s.Report().Ways[0]; w.Resting != "of the servers in sight the first one, instance a, asks for all" {
			t.Errorf("it says %q", w.Resting)
		}
	})
}
