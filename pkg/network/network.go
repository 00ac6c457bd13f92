// Package network keeps lo and the routing table as the plan says: Elastic IPs
// on lo, routes to the top-of-rack routers through the private gateway.
//
// It shares both with everybody else on the server (the distribution's network
// service, kube-proxy, a CNI), so it knows its own things by a mark, never
// touches what has none, and writes only where something differs.
//
// Floor 2.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/mustermetal/muster/pkg/plan"
)

const (
	// RouteProtocol marks the routes that muster added ("proto 201" in ip route).
	// It is outside the numbers that iproute2 (up to 192), kube-vip (248), FRR
	// and kube-router use.
	RouteProtocol = 201
	// AddressLabel marks the IPv4 addresses that muster added. IPv6 addresses
	// have no label; the state file remembers those.
	AddressLabel = "lo:muster"
)

// address is an address on lo.
type address struct {
	Prefix netip.Prefix
	Label  string // IPv4 only
	Host   bool   // scope host: the kernel never chooses it as a source by itself
}

// route is a host route of the main table.
type route struct {
	plan.Route
	Protocol int
	Metric   int
	Link     int  // interface index
	Onlink   bool // the gateway is outside every subnet of the link
	Multi    bool // several next hops, so not one of ours; Via is unset
}

// loopback is what the reconciler needs of lo.
type loopback interface {
	ListAddresses() ([]address, error)
	AddAddress(address) error
	DeleteAddress(netip.Prefix) error
	// DestroySockets ends the TCP connections whose local address is a, and says
	// how many they were.
	DestroySockets(a netip.Addr) (int, error)
}

// routingTable is what the reconciler needs of the main table.
type routingTable interface {
	ListRoutes() ([]route, error)
	ReplaceRoute(route) error
	DeleteRoute(route) error
	// Egress finds the link that holds src, and whether via has to be forced
	// onto it because none of its subnets contains via.
	Egress(src, via netip.Addr) (link int, onlink bool, err error)
}

// Reconciler keeps what the last Set or Apply asked for. Its methods may be
// called from several goroutines.
type Reconciler struct {
	lo     loopback
	table  routingTable
	watch  func(ctx context.Context, changed func()) error
	claims *claims
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex    // one pass at a time
	desired *plan.Network // nil until the first Set: nothing is removed on no order
}

// New returns a reconciler of this network namespace. stateFile remembers which
// IPv6 addresses are ours; it belongs on a file system that a reboot empties, as
// the addresses are gone then too.
func New(stateFile string, log *slog.Logger) *Reconciler {
	return &Reconciler{
		lo:     kernelLoopback{},
		table:  kernelTable{},
		watch:  watchKernel,
		claims: &claims{file: stateFile, log: log},
		log:    log,
		wake:   make(chan struct{}, 1),
	}
}

// Apply takes n as the new order and carries it out in one pass: addresses
// first, because a route may name one as its source, then routes. It goes on
// after an error and returns all of them joined; Run repeats what failed.
func (r *Reconciler) Apply(ctx context.Context, n plan.Network) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desired = cloneNetwork(n)
	return r.pass(ctx)
}

// Set takes n as the new order and leaves it to Run to carry it out.
func (r *Reconciler) Set(n plan.Network) {
	r.mu.Lock()
	r.desired = cloneNetwork(n)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// Addresses returns what is on lo of ours, and of the order where another hand
// put it there, sorted.
func (r *Reconciler) Addresses() ([]netip.Prefix, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, err := r.lo.ListAddresses()
	if err != nil {
		return nil, err
	}
	owned := r.claims.load()
	var out []netip.Prefix
	for _, a := range have {
		wanted := r.desired != nil && slices.Contains(r.desired.Addresses, a.Prefix)
		if wanted || isOurs(a, owned) {
			out = append(out, a.Prefix)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out, nil
}

// RemoveAddress takes p out of the order and off lo, then destroys the TCP
// connections that were made with it: one from this server to its own Elastic
// IP would hang until TCP gives up (kube-proxy did for 47 s) while new ones go
// to another control plane. An address that is not there is no error; one that
// somebody else added is.
func (r *Reconciler) RemoveAddress(_ context.Context, p netip.Prefix) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.desired != nil {
		r.desired.Addresses = slices.DeleteFunc(r.desired.Addresses, func(q netip.Prefix) bool { return q == p })
	}
	have, err := r.lo.ListAddresses()
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.Prefix != p {
			continue
		}
		if !isOurs(a, r.claims.load()) {
			return fmt.Errorf("%s on lo was not added by muster (label %q, expected %q): remove it with `ip addr del %s dev lo` and stop what added it", p, a.Label, AddressLabel, p)
		}
		return r.remove(a)
	}
	r.destroySockets(p.Addr())
	return nil
}

// TakeAway removes an address from lo whoever added it, with the connections that were
// made by it: for one that a program put there which muster had started and stopped.
func (r *Reconciler) TakeAway(p netip.Prefix) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, err := r.lo.ListAddresses()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(have, func(a address) bool { return a.Prefix == p }); i >= 0 {
		return r.remove(have[i])
	}
	return nil
}

// pass compares and writes, once. The caller holds mu.
func (r *Reconciler) pass(ctx context.Context) error {
	if r.desired == nil {
		return nil
	}
	return errors.Join(r.passAddresses(ctx), r.passRoutes(ctx))
}

func (r *Reconciler) passAddresses(ctx context.Context) error {
	have, err := r.lo.ListAddresses()
	if err != nil {
		return err
	}
	var errs []error
	for _, step := range addressSteps(r.desired.Addresses, have, r.claims.load()) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch step.do {
		case Add:
			errs = append(errs, r.add(step.address))
		case Remove:
			errs = append(errs, r.remove(step.address))
		case Correct:
			// The kernel's replace keeps scope and label, so it takes two steps.
			errs = append(errs, r.remove(step.address), r.add(step.address))
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) add(a address) error {
	if a.Prefix.Addr().Is6() {
		// Claimed before it is added: a crash between the two leaves a claim on
		// nothing, the other order would leave an address that nobody removes.
		if err := r.claims.add(a.Prefix); err != nil {
			return err
		}
	}
	if err := r.lo.AddAddress(a); err != nil {
		return fmt.Errorf("add %s to lo: %w", a.Prefix, err)
	}
	r.log.Info("address added to lo", "address", a.Prefix)
	return nil
}

func (r *Reconciler) remove(a address) error {
	if err := r.lo.DeleteAddress(a.Prefix); err != nil {
		return fmt.Errorf("remove %s from lo: %w", a.Prefix, err)
	}
	r.log.Info("address removed from lo", "address", a.Prefix)
	r.destroySockets(a.Prefix.Addr())
	if a.Prefix.Addr().Is6() {
		return r.claims.drop(a.Prefix)
	}
	return nil
}

func (r *Reconciler) destroySockets(a netip.Addr) {
	n, err := r.lo.DestroySockets(a)
	switch {
	case err != nil:
		// Not worth failing for: the connections end by themselves, only later.
		r.log.Debug("connections of a removed address not destroyed", "address", a, "err", err)
	case n > 0:
		r.log.Info("connections of a removed address destroyed", "address", a, "count", n)
	}
}

func (r *Reconciler) passRoutes(ctx context.Context) error {
	have, err := r.table.ListRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for _, step := range routeSteps(r.desired.Routes, have) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch step.do {
		case Add, Correct:
			errs = append(errs, r.replaceRoute(step.route.Route))
		case Remove:
			errs = append(errs, r.deleteRoute(step.route))
		case Blocked:
			errs = append(errs, step.blocked())
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) replaceRoute(want plan.Route) error {
	link, onlink, err := r.table.Egress(want.Src, want.Via)
	if err != nil {
		return fmt.Errorf("route to %s: %w", want.Dst.Addr(), err)
	}
	if err := r.table.ReplaceRoute(route{Route: want, Protocol: RouteProtocol, Link: link, Onlink: onlink}); err != nil {
		return fmt.Errorf("add route to %s via %s src %s: %w", want.Dst.Addr(), want.Via, want.Src, err)
	}
	r.log.Info("route added", "dst", want.Dst.Addr(), "via", want.Via, "src", want.Src)
	return nil
}

func (r *Reconciler) deleteRoute(h route) error {
	if err := r.table.DeleteRoute(h); err != nil {
		return fmt.Errorf("remove route to %s via %s: %w", h.Dst.Addr(), h.Via, err)
	}
	r.log.Info("route removed", "dst", h.Dst.Addr(), "via", h.Via)
	return nil
}

func cloneNetwork(n plan.Network) *plan.Network {
	return &plan.Network{Addresses: slices.Clone(n.Addresses), Routes: slices.Clone(n.Routes)}
}
