package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/discovery"
	"github.com/mustermetal/muster/pkg/gossip"
)

// roll is gossip as the flow sees it. An own instance that answers at another
// address too is among the peers, for the fence to judge; gossip itself keeps one
// address for each.
type roll struct {
	inst    string
	address netip.Addr
	log     *slog.Logger
	group   *gossip.Group
	search  *discovery.Search
	changes chan struct{}

	mu   sync.Mutex
	twin netip.Addr
}

func newRoll(inst string, address netip.Addr, log *slog.Logger) *roll {
	return &roll{inst: inst, address: address, log: log, changes: make(chan struct{}, 1)}
}

// conflict hears of every instance that gossip sees at two addresses. Only the
// two that are meant stop voting: else one copied disk would stop everybody.
func (r *roll) conflict(c gossip.Conflict) {
	r.log.Warn("one instance answers at two addresses: a disk was copied, or a server came back at another address",
		"inst", c.Inst, "address", c.Addresses[0], "other", c.Addresses[1])
	if c.Inst != r.inst {
		return
	}
	for _, a := range c.Addresses {
		if a != r.address {
			r.mu.Lock()
			r.twin = a
			r.mu.Unlock()
		}
	}
	r.nudge()
}

// copyAt is where the copy of this server's disk was seen. That it is out of sight
// says nothing: it may run behind a cut. It is no more when another instance answers
// at its address, which is what becomes of it when its state was removed.
func (r *roll) copyAt(peers []gossip.Peer) netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range peers {
		if p.Inst != r.inst && p.Address == r.twin {
			r.log.Info("the copy of this server's disk is no more: another instance answers at its address, so this one votes again", "address", r.twin, "inst", p.Inst)
			r.twin = netip.Addr{}
		}
	}
	return r.twin
}

// nudge leaves one change to be read.
func (r *roll) nudge() {
	select {
	case r.changes <- struct{}{}:
	default: // one is there
	}
}

// forward joins the group's changes with those of conflict.
func (r *roll) forward(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.group.Changes():
			r.nudge()
		}
	}
}

// run looks for peers and tells of changes until ctx ends.
func (r *roll) run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		err := r.group.Run(ctx, r.search.Seeds, r.search.News())
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	work.Go(func() error { return r.forward(ctx) })
	work.Go(func() error { return r.search.Run(ctx) })
	return work.Wait()
}

// Ask and InSight are what discovery needs of gossip.
func (r *roll) Ask(at netip.Addr) bool { return r.group.Ask(at) }

// InSight are the servers that gossip sees.
func (r *roll) InSight() map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, p := range r.group.Peers() {
		out[p.Inst] = p.Address
	}
	return out
}

func (r *roll) Peers() []bootstrap.Peer {
	peers := r.group.Peers()
	var out []bootstrap.Peer
	if twin := r.copyAt(peers); twin.IsValid() {
		out = append(out, bootstrap.Peer{Inst: r.inst, Address: twin})
	}
	for _, p := range peers {
		out = append(out, bootstrap.Peer{Inst: p.Inst, HW: p.HW, Address: p.Address, Switch: p.Switch, Flags: bootstrap.Flags{
			Eligible: p.Flags.Has(gossip.Eligible), Decided: p.Flags.Has(gossip.Decided),
			Sealed: p.Flags.Has(gossip.Sealed), ControlPlane: p.Flags.Has(gossip.ControlPlane),
			Joining: p.Flags.Has(gossip.Joining),
		}})
	}
	return out
}

func (r *roll) Changes() <-chan struct{} { return r.changes }

func (r *roll) SetFlags(f bootstrap.Flags) { r.group.SetFlags(gossipFlags(f)) }

func gossipFlags(f bootstrap.Flags) gossip.Flags {
	var out gossip.Flags
	for flag, set := range map[gossip.Flags]bool{
		gossip.Eligible: f.Eligible, gossip.Decided: f.Decided, gossip.Sealed: f.Sealed, gossip.ControlPlane: f.ControlPlane, gossip.Joining: f.Joining,
	} {
		if set {
			out |= flag
		}
	}
	return out
}
