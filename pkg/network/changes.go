package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/plan"
)

// Action is what a pass does with one address or route.
type Action string

// Actions.
const (
	Add     Action = "add"
	Remove  Action = "remove"
	Correct Action = "correct" // it is ours, and not as it should be
	Blocked Action = "blocked" // something of others is in the way
)

// addressStep is one write to lo.
type addressStep struct {
	do      Action
	address address // as it shall be, or as it is when it goes
}

// addressSteps compares: what is ours and not wanted goes first.
func addressSteps(want []netip.Prefix, have []address, owned []netip.Prefix) []addressStep {
	var steps []addressStep
	for _, a := range have {
		if isOurs(a, owned) && !slices.Contains(want, a.Prefix) {
			steps = append(steps, addressStep{Remove, a})
		}
	}
	for _, p := range want {
		a := address{Prefix: p}
		if p.Addr().Is4() {
			a.Label, a.Host = AddressLabel, true
		}
		i := slices.IndexFunc(have, func(h address) bool { return h.Prefix == p })
		switch {
		case i < 0:
			steps = append(steps, addressStep{Add, a})
		case have[i] != a && isOurs(have[i], owned):
			steps = append(steps, addressStep{Correct, a})
		}
	}
	return steps
}

// routeStep is one write to the main table.
type routeStep struct {
	do     Action
	route  route // as it shall be, or as it is when it goes
	theirs route // in the way, when blocked
}

// routeSteps compares: what is ours and not wanted goes first.
func routeSteps(want []plan.Route, have []route) []routeStep {
	var steps []routeStep
	for _, h := range have {
		if h.Protocol == RouteProtocol && !slices.ContainsFunc(want, func(w plan.Route) bool { return w.Dst == h.Dst }) {
			steps = append(steps, routeStep{do: Remove, route: h})
		}
	}
	for _, w := range want {
		if slices.ContainsFunc(have, func(h route) bool { return satisfies(h, w) }) {
			continue
		}
		step := routeStep{do: Add, route: route{Route: w, Protocol: RouteProtocol}}
		for _, h := range have {
			switch {
			case h.Dst != w.Dst:
			case h.Protocol == RouteProtocol:
				step.do = Correct
			case h.Metric <= defaultMetric(w.Dst):
				step.do, step.theirs = Blocked, h
			}
			if step.do == Blocked {
				break
			}
		}
		steps = append(steps, step)
	}
	return steps
}

// blocked says what to do about a route of others.
func (s routeStep) blocked() error {
	return fmt.Errorf("route to %s: via %s src %s (protocol %d) is in the way and not ours, expected via %s src %s: remove it with `ip route del %s` and stop what added it",
		s.route.Dst.Addr(), s.theirs.Via, s.theirs.Src, s.theirs.Protocol, s.route.Via, s.route.Src, s.route.Dst)
}

// isOurs says whether muster added an address: an IPv4 one by its label, an
// IPv6 one by the state file.
func isOurs(a address, owned []netip.Prefix) bool {
	if a.Prefix.Addr().Is4() {
		return a.Label == AddressLabel
	}
	return slices.Contains(owned, a.Prefix)
}

// satisfies says whether a route does what is wanted. One of ours must be
// exactly that; one that somebody else added counts too, also when it leaves
// the source to the kernel, because the speaker binds its source itself.
func satisfies(have route, want plan.Route) bool {
	if have.Multi || have.Dst != want.Dst || have.Via != want.Via {
		return false
	}
	return have.Src == want.Src || have.Protocol != RouteProtocol && !have.Src.IsValid()
}

// defaultMetric is the metric that the kernel gives to a route without one; at
// that or below, another route to the same place wins over ours or is
// overwritten by it.
func defaultMetric(dst netip.Prefix) int {
	if dst.Addr().Is6() {
		return 1024
	}
	return 0
}

// Report says how lo and the main table are, and what one pass would write.
type Report struct {
	Addresses []FoundAddress // ours, and of the order where another hand put it there
	Routes    []FoundRoute   // ours, and others to the same destinations
	Changes   []Change
}

// FoundAddress is an address on lo.
type FoundAddress struct {
	Prefix netip.Prefix
	Ours   bool
}

// FoundRoute is a route of the main table.
type FoundRoute struct {
	plan.Route
	Ours     bool
	Protocol int // as in `ip route`
}

// Change is one write that a pass would make.
type Change struct {
	Do      Action
	Address netip.Prefix // or
	Route   plan.Route
}

// String is a sentence for people.
func (c Change) String() string {
	what := fmt.Sprintf("%s on lo", c.Address)
	if !c.Address.IsValid() {
		what = fmt.Sprintf("route to %s via %s src %s", c.Route.Dst.Addr(), c.Route.Via, c.Route.Src)
	}
	if c.Do == Blocked {
		return fmt.Sprintf("cannot add %s: a route of others is in the way, see `ip route show %s`", what, c.Route.Dst)
	}
	return fmt.Sprintf("%s %s", c.Do, what)
}

// Look compares the kernel with n and writes nothing.
func (r *Reconciler) Look(n plan.Network) (Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out Report
	addresses, err := r.lo.ListAddresses()
	if err != nil {
		return out, err
	}
	routes, err := r.table.ListRoutes()
	if err != nil {
		return out, err
	}
	owned := r.claims.load()
	for _, a := range addresses {
		if ours := isOurs(a, owned); ours || slices.Contains(n.Addresses, a.Prefix) {
			out.Addresses = append(out.Addresses, FoundAddress{a.Prefix, ours})
		}
	}
	for _, h := range routes {
		ours := h.Protocol == RouteProtocol
		if ours || slices.ContainsFunc(n.Routes, func(w plan.Route) bool { return w.Dst == h.Dst }) {
			out.Routes = append(out.Routes, FoundRoute{h.Route, ours, h.Protocol})
		}
	}
	slices.SortFunc(out.Addresses, func(a, b FoundAddress) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortStableFunc(out.Routes, func(a, b FoundRoute) int { return a.Dst.Compare(b.Dst) })
	for _, s := range addressSteps(n.Addresses, addresses, owned) {
		out.Changes = append(out.Changes, Change{Do: s.do, Address: s.address.Prefix})
	}
	for _, s := range routeSteps(n.Routes, routes) {
		out.Changes = append(out.Changes, Change{Do: s.do, Route: s.route.Route})
	}
	return out, nil
}
