// Package announce is the BGP speaker of a control plane: it announces the
// Elastic IPs to the top-of-rack routers while they are on lo and the server's
// own API server is ready.
//
// It runs in a process of its own (muster-announce.service), so that stopping or
// upgrading the agent never moves a route. The agent tells it what to announce by
// a plan file and talks to it through a socket.
//
// Floor 2.
package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Options say where the speaker finds its plan and who hears of its state.
type Options struct {
	PlanFile string          // read at start and at each Reload
	Socket   string          // path of the socket that Client talks to; made 0600
	Reload   <-chan struct{} // read the plan again; nil for never
	// Notify passes a line of sd_notify(3) on, such as READY=1.
	Notify func(state string)
	Log    *slog.Logger
}

// announcer holds the three conditions of an announcement and the speaker that
// carries it out.
type announcer struct {
	log    *slog.Logger
	notify func(string)
	asked  chan struct{} // by a client to read the plan again; holds one

	mu       sync.Mutex
	plan     plan.Announcement
	speaker  *speaker // nil once stopped
	onLo     map[netip.Prefix]bool
	open     bool   // the gate
	why      string // what the last probe found when not all was well
	withheld map[netip.Prefix]bool
	said     string // the last STATUS line
}

// Run announces until ctx ends, then withdraws everything, waits at most a
// second until that is written to the sessions, closes them and returns nil. It
// returns ErrNoPlan or ErrPlan when it cannot start. A plan that is wrong at a
// reload is logged and the last good one stays.
func Run(ctx context.Context, o Options) error {
	p, err := ReadPlan(o.PlanFile)
	if err != nil {
		return err
	}
	a := &announcer{log: o.Log, notify: o.Notify, withheld: map[netip.Prefix]bool{}, asked: make(chan struct{}, 1)}
	if a.notify == nil {
		a.notify = func(string) {}
	}
	listener, err := listen(ctx, o.Socket)
	if err != nil {
		return err
	}
	if err := a.start(ctx, p); err != nil {
		return errors.Join(err, listener.Close())
	}
	err = a.follow(ctx, o, serve(listener, a))
	a.notify("STOPPING=1")
	a.stop(ctx)
	return errors.Join(err, listener.Close())
}

// follow watches lo, the API server and the plan until ctx ends or the socket
// fails.
func (a *announcer) follow(ctx context.Context, o Options, served <-chan error) error {
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		watchLo(watching, a.log, func(have map[netip.Prefix]bool) { a.setLo(watching, have) })
	})
	stopHealth := a.watchHealth(watching, a.plan)
	defer func() { stopHealth() }()
	a.notify("READY=1")
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve %s: %w", o.Socket, err)
		case <-o.Reload:
		case <-a.asked:
		}
		p, changed, err := a.reload(ctx, o.PlanFile)
		if err != nil {
			return err
		}
		if changed {
			stopHealth()
			stopHealth = a.watchHealth(watching, p)
		}
	}
}

// start makes the speaker of p and hands it what is to be announced now.
func (a *announcer) start(ctx context.Context, p plan.Announcement) error {
	s, err := startSpeaker(ctx, p, a.log, func() { a.sayStatus(ctx) })
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.plan, a.speaker = p, s
	a.mu.Unlock()
	a.log.Info("BGP sessions configured", "as", p.AS, "router_id", p.RouterID, "peers", len(p.Peers))
	for _, prefix := range p.Prefixes {
		if !slices.ContainsFunc(p.Peers, func(peer plan.Peer) bool { return peer.Address.Is4() == prefix.Addr().Is4() }) {
			a.log.Warn("no router of this address family hears of a prefix; bgp_neighbors of the metadata lacks one", "prefix", prefix)
		}
	}
	return a.update(ctx)
}

// watchHealth probes the API server of p until the returned function is called.
func (a *announcer) watchHealth(ctx context.Context, p plan.Announcement) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		NewProber(p.HealthURL, p.HealthCA).Watch(ctx, func(open bool, why string) { a.setGate(ctx, open, why) })
	}()
	return func() {
		cancel()
		<-done
	}
}

// reload reads the plan again. What only concerns prefixes or health changes in
// place; other sessions need another speaker, and the routes go for the seconds
// until its sessions are up. changed says that the probe must start over; an
// error that there is no speaker any more.
func (a *announcer) reload(ctx context.Context, file string) (p plan.Announcement, changed bool, err error) {
	if p, err = ReadPlan(file); err != nil {
		a.log.Error("plan not taken, the last one stays", "err", err)
		return p, false, nil
	}
	a.mu.Lock()
	old := a.plan
	a.plan = p
	a.mu.Unlock()
	changed = p.HealthURL != old.HealthURL || p.HealthCA != old.HealthCA
	if p.AS == old.AS && p.RouterID == old.RouterID && slices.Equal(p.Peers, old.Peers) {
		a.updateLogged(ctx)
		return p, changed, nil
	}
	a.stop(ctx)
	return p, changed, a.start(ctx, p)
}

// stop withdraws everything and closes the sessions. It works after ctx ended.
func (a *announcer) stop(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.speaker == nil {
		return
	}
	if err := a.speaker.announce(context.WithoutCancel(ctx), nil); err != nil {
		a.log.Error("closing the sessions without a withdrawal", "err", err)
	}
	a.speaker.stop()
	a.speaker = nil
}

func (a *announcer) setLo(ctx context.Context, have map[netip.Prefix]bool) {
	a.mu.Lock()
	same := a.onLo != nil && maps.Equal(a.onLo, have)
	a.onLo = have
	a.mu.Unlock()
	if !same {
		a.updateLogged(ctx)
	}
}

func (a *announcer) setGate(ctx context.Context, open bool, why string) {
	a.mu.Lock()
	if open != a.open {
		a.log.Info("health gate", "open", open, "why", why)
	}
	a.open, a.why = open, why
	a.mu.Unlock()
	a.updateLogged(ctx)
}

// withhold keeps one prefix back, or lets it go again. It returns after a
// withdrawal was handed to the sessions.
func (a *announcer) withhold(ctx context.Context, p netip.Prefix, held bool) error {
	a.mu.Lock()
	if held {
		a.withheld[p] = true
	} else {
		delete(a.withheld, p)
	}
	a.mu.Unlock()
	return a.update(ctx)
}

func (a *announcer) updateLogged(ctx context.Context) {
	if err := a.update(ctx); err != nil {
		a.log.Error("announcement not changed", "err", err)
	}
}

// update announces what meets all conditions and withdraws the rest.
func (a *announcer) update(ctx context.Context) error {
	err := a.announce(ctx)
	a.sayStatus(ctx)
	return err
}

func (a *announcer) announce(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.speaker == nil {
		return nil
	}
	want := due(a.plan.Prefixes, a.onLo, a.withheld, a.open)
	if slices.Equal(want, a.speaker.announced) {
		return nil
	}
	a.log.Info("announcement", "prefixes", want, "before", a.speaker.announced)
	return a.speaker.announce(ctx, want)
}

// due is the whole rule: on lo, healthy, and not withheld.
func due(prefixes []netip.Prefix, onLo, withheld map[netip.Prefix]bool, open bool) []netip.Prefix {
	var want []netip.Prefix
	for _, p := range prefixes {
		if open && onLo[p] && !withheld[p] {
			want = append(want, p)
		}
	}
	return want
}

// status says what is announced, what is not and why, and how each session is.
func (a *announcer) status(ctx context.Context) (Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.statusLocked(ctx)
	if err != nil {
		return st, err
	}
	for i, s := range st.Peers {
		j := slices.IndexFunc(a.plan.Peers, func(p plan.Peer) bool { return p.Address == s.Address })
		if s.State != established && j >= 0 {
			peer := a.plan.Peers[j]
			st.Peers[i].Reason = reason(peer, gather(peer, a.plan.AS, a.speaker.dials.failure(peer.Address)))
		}
	}
	return st, nil
}

// statusLocked is status without the reasons, which need a look at the kernel.
func (a *announcer) statusLocked(ctx context.Context) (Status, error) {
	st := Status{Healthy: a.open, Health: a.why, Withheld: slices.SortedFunc(maps.Keys(a.withheld), netip.Prefix.Compare)}
	if a.speaker == nil {
		return st, errors.New("the speaker is stopping")
	}
	st.Announced = slices.Clone(a.speaker.announced)
	sessions, err := a.speaker.sessions(ctx)
	for _, s := range sessions {
		st.Peers = append(st.Peers, member.PeerStatus{Address: s.peer, State: s.state, Since: s.since})
	}
	return st, err
}

// sayStatus tells systemd in one line, when it changed.
func (a *announcer) sayStatus(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.statusLocked(ctx)
	if err != nil {
		return // stopping
	}
	if line := st.sentence(); line != a.said {
		a.said = line
		a.notify("STATUS=" + line)
	}
}
