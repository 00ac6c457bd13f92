package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/gossip"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/rpc"
)

// connect opens what needs to know who this server is: keys, which it keeps in
// the directory pki, gossip, and both ports.
// revoked is the file of the instances that it refuses, have what it can give.
func connect(ctx context.Context, pki, revoked string, c cluster.Cluster, have *artefacts, log *slog.Logger, self bootstrap.Self, server *bootstrap.Server) (*trust, bootstrap.Fabric, error) {
	var none bootstrap.Fabric
	spec := c.Spec
	keys, accept, err := deriveKeys(c)
	if err != nil {
		return nil, none, err
	}
	at := self.Node.Private
	t, err := openTrust(pki, keys, accept, spec.ID, identity.Subject{Inst: self.Inst, HW: self.HW, Name: self.Node.Name, IPs: []netip.Addr{at}})
	if err != nil {
		return nil, none, err
	}
	bar, err := openBar(revoked, log)
	if err != nil {
		return nil, none, err
	}
	enrolment, err := rpc.Listen(ctx, netip.AddrPortFrom(at, spec.Ports.Enrolment), "enrolment")
	if err != nil {
		return nil, none, err
	}
	agents, err := rpc.Listen(ctx, netip.AddrPortFrom(at, spec.Ports.Agents), "agents")
	if err != nil {
		return nil, none, errors.Join(err, enrolment.Close())
	}
	seen := newRoll(self.Inst, at, log)
	group, err := gossip.Join(ctx, gossip.Config{
		Inst: self.Inst, HW: self.HW, Address: at, Port: spec.Ports.Gossip,
		Label: spec.ID[:16], Key: keys.Gossip(), Accept: gossipKeys(accept), Switch: gossip.SwitchTag(self.Device.Switch), Flags: gossipFlags(bootstrap.Flags{Eligible: self.Eligible, Joining: spec.Join.CA != ""}),
		Logger:   log,
		Settled:  func() bool { return server.Settled() },
		Conflict: seen.conflict,
	})
	if err != nil {
		return nil, none, errors.Join(err, enrolment.Close(), agents.Close())
	}
	seen.group = group
	seen.search = newSearch(c, self, seen, server.Settled, log)
	called := rpc.NewClient(spec.Ports.Agents, func(inst string) *tls.Config { return bar.list.Client(t.agentClient(inst), nil) }, identify)
	have.link(called, func() []agent.Peer {
		if !t.Enrolled() {
			return nil
		}
		return giversOf(self.Inst, seen.Peers())
	})
	run := func(ctx context.Context) error {
		work, ctx := errgroup.WithContext(ctx)
		work.Go(func() error {
			return rpc.Serve(ctx, enrolment, t.enrolment.ServerConfig(), rpc.EnrolmentHandler(server, identify), log)
		})
		work.Go(func() error {
			return rpc.Serve(ctx, agents, bar.list.Track(t.agentServer()), have.handler(server, bar.identify), log)
		})
		work.Go(func() error { return seen.run(ctx) })
		work.Go(func() error { return bar.watch(ctx, called.Forget) })
		return work.Wait()
	}
	return t, bootstrap.Fabric{
		Gossip: seen,
		Search: seen.search,
		Trust:  t,
		Calls: calls{
			enrolment: rpc.NewClient(spec.Ports.Enrolment, t.enrolment.ClientConfig, identify),
			agents:    called,
			enrolled:  t.Enrolled,
		},
		Run: run,
	}, nil
}

// deriveKeys are the keys of the secret, and of the other one while it changes.
func deriveKeys(c cluster.Cluster) (keys identity.Keys, accept []identity.Keys, err error) {
	if keys, err = identity.Derive(c.Secret, c.Spec.ID); err != nil || c.AcceptSecret == "" {
		return keys, nil, err
	}
	other, err := identity.Derive(c.AcceptSecret, c.Spec.ID)
	return keys, []identity.Keys{other}, err
}

func gossipKeys(all []identity.Keys) (keys [][]byte) {
	for _, k := range all {
		keys = append(keys, k.Gossip())
	}
	return keys
}

// calls picks the port for each call.
type calls struct {
	enrolment, agents *rpc.Client
	enrolled          func() bool
}

func (c calls) Fence(ctx context.Context, p agent.Peer, m []byte) ([][]byte, agent.Caller, error) {
	return c.enrolment.Fence(ctx, p, m)
}

func (c calls) Enrol(ctx context.Context, p agent.Peer, r agent.EnrolRequest) (agent.Enrolment, error) {
	return c.enrolment.Enrol(ctx, p, r)
}

// Status asks on the agent port when both sides may have enrolled, and falls back
// to the enrolment port for a peer that has not.
func (c calls) Status(ctx context.Context, p agent.Peer) (member.Status, error) {
	if c.enrolled() {
		if s, err := c.agents.Status(ctx, p); err == nil {
			return s, nil
		}
	}
	return c.enrolment.Status(ctx, p)
}

func (c calls) Members(ctx context.Context, p agent.Peer) ([]member.Member, error) {
	return c.agents.Members(ctx, p)
}

func (c calls) ClaimRole(ctx context.Context, p agent.Peer, r agent.RoleRequest) (agent.RoleReply, error) {
	return c.agents.ClaimRole(ctx, p, r)
}

func (c calls) ReportPhase(ctx context.Context, p agent.Peer, r agent.PhaseReport) error {
	return c.agents.ReportPhase(ctx, p, r)
}

func (c calls) Authorities(ctx context.Context, p agent.Peer, r agent.AuthoritiesRequest) (agent.AuthoritiesReply, error) {
	return c.agents.Authorities(ctx, p, r)
}

func (c calls) AcquireJoin(ctx context.Context, p agent.Peer) (agent.JoinTurn, error) {
	return c.agents.AcquireJoin(ctx, p)
}

func (c calls) RenewJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error {
	return c.agents.RenewJoin(ctx, p, turn)
}

func (c calls) ReleaseJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error {
	return c.agents.ReleaseJoin(ctx, p, turn)
}

func (c calls) JoinMaterial(ctx context.Context, p agent.Peer) (agent.JoinMaterial, error) {
	return c.agents.JoinMaterial(ctx, p)
}

func (c calls) Leave(ctx context.Context, p agent.Peer, r agent.LeaveRequest) (agent.LeaveReply, error) {
	return c.agents.Leave(ctx, p, r)
}

func (c calls) Standing(ctx context.Context, p agent.Peer) (agent.Standing, error) {
	return c.enrolment.Standing(ctx, p)
}

func (c calls) Spec(ctx context.Context, p agent.Peer, request agent.SpecRequest) (member.Spec, error) {
	return c.agents.Spec(ctx, p, request)
}
