// Package discovery looks for the addresses of other servers, in several ways at
// once. What it finds is hearsay: gossip asks each address itself, and only a
// server with the cluster's key answers there.
//
// Floor 2.
package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/member"
)

// Way is one way to find addresses.
type Way interface {
	// Name is what a person knows it by: the key in the cluster file and its value.
	Name() string
	// Pace says how long one attempt may take and how long to wait for the next.
	Pace() Pace
	// Find makes one attempt: found hears of each address as it comes, of several at once.
	Find(ctx context.Context, found func(netip.Addr)) error
}

// answerer is a way that others find this server by, as long as it answers them.
type answerer interface {
	Answer(ctx context.Context) error
}

// Pace is how often a way is tried.
type Pace struct {
	Deadline time.Duration // of one attempt
	Every    time.Duration // between the end of one and the next, give or take a quarter
	// First makes attempts on one server only: the one that sees no other, or the
	// first by instance of those in sight. It spares a service that counts requests.
	First bool
	// Always goes on when the cluster has formed, for what costs nothing.
	Always bool
}

// Gossip is what the search knows of the roll call.
type Gossip interface {
	// Ask says whether a server of this cluster answers at an address.
	Ask(at netip.Addr) bool
	// InSight are the instances and addresses of those that gossip sees, this server
	// among them.
	InSight() map[string]netip.Addr
}

// Search runs all ways and remembers what they found.
type Search struct {
	inst   string
	self   netip.Addr
	ways   []Way
	gossip Gossip
	// settled says that the cluster has formed: nobody need be found any more, and
	// who comes late finds those that are here.
	settled func() bool
	log     *slog.Logger

	news chan struct{} // holds one when addresses came that nobody took yet

	mu    sync.Mutex
	state []member.Way
	found map[netip.Addr]*member.Found
}

// most bounds what is remembered: no way finds more in good faith.
const most = 2 * maxAddresses

// New prepares a search of the instance inst at the private address self.
func New(inst string, self netip.Addr, ways []Way, gossip Gossip, settled func() bool, log *slog.Logger) *Search {
	s := &Search{inst: inst, self: self, ways: ways, gossip: gossip, settled: settled, log: log, news: make(chan struct{}, 1), found: map[netip.Addr]*member.Found{}}
	for _, w := range ways {
		s.state = append(s.state, member.Way{Name: w.Name()})
		if listed, ok := w.(Static); ok { // the first dials need not wait for an attempt
			for _, a := range listed {
				s.note(w.Name(), a)
			}
		}
	}
	return s
}

// Run looks until ctx ends. A way that fails is tried again; none ends the search.
func (s *Search) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	for i := range s.ways {
		work.Go(func() error { s.try(ctx, i); return nil })
		if w, ok := s.ways[i].(answerer); ok {
			work.Go(func() error { s.answer(ctx, i, w); return nil })
		}
	}
	work.Go(func() error { s.ask(ctx); return nil })
	return work.Wait()
}

// try makes the attempts of one way.
func (s *Search) try(ctx context.Context, i int) {
	way, pace := s.ways[i], s.ways[i].Pace()
	for {
		resting := s.resting(pace)
		if resting == "" {
			s.attempt(ctx, i, way, pace)
		}
		s.change(func() { s.state[i].Resting = resting })
		if !sleep(ctx, jitter(pace.Every)) {
			return
		}
	}
}

func (s *Search) attempt(ctx context.Context, i int, way Way, pace Pace) {
	one, cancel := context.WithTimeout(ctx, pace.Deadline)
	defer cancel()
	err := way.Find(one, func(a netip.Addr) { s.note(way.Name(), a) })
	if ctx.Err() != nil {
		return
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	was := ""
	s.change(func() {
		was = s.state[i].Problem
		s.state[i].Problem, s.state[i].Tried = problem, time.Now()
	})
	if problem != "" && problem != was {
		s.log.Warn("discovery", "by", way.Name(), "error", err)
	}
}

// answer answers others, and tries again after a failure.
func (s *Search) answer(ctx context.Context, i int, w answerer) {
	for ctx.Err() == nil {
		if err := w.Answer(ctx); err != nil && ctx.Err() == nil {
			s.change(func() { s.state[i].Problem = err.Error() })
			s.log.Warn("discovery", "by", s.state[i].Name, "error", err)
		}
		if !sleep(ctx, jitter(s.ways[i].Pace().Every)) {
			return
		}
	}
}

// resting says why a way makes no attempt now.
func (s *Search) resting(p Pace) string {
	inSight := s.gossip.InSight()
	// A member that comes back after a reboot knows that the cluster has formed, and
	// sees nobody yet.
	if s.settled() && len(inSight) > 1 && !p.Always {
		return "the cluster has formed, and others are in sight"
	}
	if !p.First {
		return ""
	}
	first := s.inst
	for inst := range inSight {
		first = min(first, inst)
	}
	if first != s.inst {
		return fmt.Sprintf("of the servers in sight the first one, instance %s, asks for all", first)
	}
	return ""
}

// note remembers an address.
func (s *Search) note(by string, a netip.Addr) {
	a = a.Unmap().WithZone("")
	if a == s.self || !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() && !s.self.IsLoopback() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.found[a]
	if f == nil {
		if len(s.found) >= most {
			return
		}
		f = &member.Found{Address: a, At: time.Now()}
		s.found[a] = f
		s.log.Debug("discovery", "by", by, "address", a)
		select {
		case s.news <- struct{}{}:
		default: // one is there
		}
	}
	if !slices.Contains(f.By, by) {
		f.By = append(f.By, by)
		slices.Sort(f.By)
	}
}

// How often addresses are asked whether a server is there. It is for status: gossip
// tries the addresses by itself.
const (
	askEvery    = 10 * time.Second
	restedEvery = time.Minute // when the cluster has formed
	askAtOnce   = 16
)

// ask asks every address that was found and is not in sight.
func (s *Search) ask(ctx context.Context) {
	for sleep(ctx, jitter(time.Second)) {
		var asking sync.WaitGroup
		turns := make(chan struct{}, askAtOnce)
		for _, a := range s.due() {
			turns <- struct{}{}
			asking.Go(func() {
				s.asked(a, s.gossip.Ask(a))
				<-turns
			})
		}
		asking.Wait()
	}
}

// due are the addresses to ask now, in no order.
func (s *Search) due() []netip.Addr {
	inSight := map[netip.Addr]bool{}
	for _, a := range s.gossip.InSight() {
		inSight[a] = true
	}
	every := askEvery
	if len(inSight) > 1 && s.settled() {
		every = restedEvery
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, f := range s.found {
		if inSight[a] {
			f.Asked, f.Answered = now, true
		} else if now.Sub(f.Asked) >= every {
			out = append(out, a)
		}
	}
	return out
}

func (s *Search) asked(a netip.Addr, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.found[a]; f != nil {
		f.Asked, f.Answered = time.Now(), answered
	}
}

// Seeds are all addresses found so far.
func (s *Search) Seeds() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.found), netip.Addr.Compare)
}

// News gives a value after addresses were found that Seeds did not have before.
func (s *Search) News() <-chan struct{} { return s.news }

// Report is how the search stands.
func (s *Search) Report() member.Discovery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out member.Discovery
	for _, w := range s.state {
		for _, f := range s.found {
			if slices.Contains(f.By, w.Name) {
				w.Found++
			}
		}
		out.Ways = append(out.Ways, w)
	}
	for _, f := range s.found {
		one := *f
		one.By = slices.Clone(f.By)
		out.Found = append(out.Found, one)
	}
	slices.SortFunc(out.Found, func(a, b member.Found) int { return a.Address.Compare(b.Address) })
	return out
}

func (s *Search) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// sleep waits for d and says whether ctx still runs.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter spreads servers that were powered on together.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// Static is a list of addresses.
type Static []netip.Addr

// Name is that of the key.
func (Static) Name() string { return "static" }

// Pace is slow: a list does not change.
func (Static) Pace() Pace { return Pace{Deadline: time.Second, Every: time.Minute, Always: true} }

// Find tells the list.
func (s Static) Find(_ context.Context, found func(netip.Addr)) error {
	for _, a := range s {
		found(a)
	}
	return nil
}

// ofFamily keeps the addresses of a server's own family, once each: gossip listens
// at one address.
func ofFamily(self netip.Addr, addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); a.Is4() == self.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
