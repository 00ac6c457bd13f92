package bootstrap

import (
	"context"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// startNetwork is step 3. A server that is void, or leaves, has no Elastic IP: first
// the route goes, then the address.
func (a *Agent) startNetwork(ctx context.Context, void bool) error {
	leaving := a.Journal.Done(StepLeaving)
	if leaving {
		if err := a.until(ctx, "the Elastic IPs to be withdrawn", a.yieldElasticIPs); err != nil {
			return err
		}
	}
	if void {
		if err := a.standDown(ctx); err != nil {
			return err
		}
	}
	return a.layRoutes(ctx, void || leaving)
}

// layRoutes is step 3. Elastic IPs found on lo stay until the API server's
// health is known: healthy adopts them, anything else removes them.
func (a *Agent) layRoutes(ctx context.Context, void bool) error {
	n := plan.NetworkFor(a.device, nil, false)
	if !void {
		n.Addresses = a.leftoverIPs()
	}
	a.Network.Set(n)
	return a.until(ctx, "the routes to the top-of-rack routers", func(ctx context.Context) error { return a.Network.Apply(ctx, n) })
}

// guardPorts belongs to step 3: the ports are guarded before they open, and from
// then on. A server that cannot guard them goes on all the same, and says so.
func (a *Agent) guardPorts(ctx context.Context) error {
	a.Firewall.Set(plan.FirewallFor(a.Cluster.Spec, a.device))
	return a.Firewall.Run(ctx, func(f member.FirewallStatus) {
		a.board.change(func(s *member.Status) { s.Network.Firewall = f })
	})
}

// leftoverIPs are Elastic IPs that an earlier run left on lo. Before a join none
// may stay: the joiner would dial itself (docs/architecture.md). On a worker, or
// when the cluster file names it no more, nobody would look at one again.
func (a *Agent) leftoverIPs() []netip.Prefix {
	if !a.Kubernetes.Initialised() && !a.Kubernetes.Joined() || !a.Journal.Done(StepControlPlane) {
		return nil
	}
	found, err := a.Network.Addresses()
	if err != nil {
		a.Log.Warn("reading lo", "error", err)
		return nil
	}
	named := plan.ControlPlaneIPs(a.Cluster.Spec)
	return slices.DeleteFunc(found, func(p netip.Prefix) bool { return !slices.Contains(named, p) })
}
