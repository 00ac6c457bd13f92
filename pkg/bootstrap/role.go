package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Steps in the journal (docs/formats.md): the role that the directory gave.
const (
	StepControlPlane = "role-control-plane"
	StepWorker       = "role-worker"
	// StepSealed says that the cluster that this server initialised was sealed. With
	// it a server that loses the fence's state is not taken for one that may have been
	// superseded.
	StepSealed = "sealed"
)

// takeRole enrols this server with the agent CA of the decree and gets it a row
// in the directory. The GO holder signs for itself and opens the directory.
func (a *Agent) takeRole(ctx context.Context, work *errgroup.Group, d election.Decree) (member.Role, error) {
	node, err := plan.NodeFor(a.Cluster, a.device, d.Leader.Address)
	if err != nil {
		return member.NoRole, Permanent(err)
	}
	a.self.Node.Endpoint = node.Endpoint // the rest stands since settle, and others read it
	if err := a.fabric.Trust.Keep(d.Leader.AgentCAHash); err != nil {
		return member.NoRole, err
	}
	if !a.fabric.Trust.Enrolled() {
		a.board.enter(member.Enrolling)
	}
	if err := a.untilSaid(ctx, a.ofHolder("a certificate of the agent CA from "+d.Leader.Name), func(ctx context.Context) error { return a.enrol(ctx, d) }); err != nil {
		return member.NoRole, err
	}
	role, err := a.claimRole(ctx, work, d)
	if err != nil {
		return role, err
	}
	a.board.change(func(s *member.Status) { s.Role = role })
	a.Log.Info("role", "role", role, "epoch", d.Epoch)
	work.Go(func() error { return a.reportPhases(ctx) })
	return role, nil
}

// enrol gets the leaf of the agent CA that the decree pins.
func (a *Agent) enrol(ctx context.Context, d election.Decree) error {
	t := a.fabric.Trust
	if t.Enrolled() {
		return nil
	}
	csr, err := t.CSR()
	if err != nil {
		return Permanent(fmt.Errorf("making a certificate request: %w", err))
	}
	var e agent.Enrolment
	if d.Mine {
		if err := t.Lead(d.Leader.AgentCAHash); err != nil {
			return Permanent(err)
		}
		e, err = t.Sign(agent.Caller{Inst: a.self.Inst, HW: a.self.HW, Address: a.self.Node.Private}, csr)
	} else {
		err = a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
			e, err = a.fabric.Calls.Enrol(ctx, p, agent.EnrolRequest{CSR: csr})
			return err
		})
	}
	if err != nil {
		return err
	}
	return t.Install(e, d.Leader.AgentCAHash)
}

// claimRole asks for a row in the directory; after a reboot the journal knows.
func (a *Agent) claimRole(ctx context.Context, work *errgroup.Group, d election.Decree) (member.Role, error) {
	known := member.NoRole
	switch {
	case a.Journal.Done(StepControlPlane):
		known = member.ControlPlane
	case a.Journal.Done(StepWorker):
		known = member.Worker
	}
	if d.Mine || known == member.ControlPlane {
		work.Go(func() error { return a.keepDirectory(ctx, d) })
	}
	if known != member.NoRole {
		return known, nil
	}
	var role member.Role
	err := a.untilSaid(ctx, a.ofHolder("a role from the directory"), func(ctx context.Context) (err error) {
		if d.Mine {
			role, err = a.claimOwn(ctx, d)
			return err
		}
		role, err = a.askForRole(ctx, d, a.self.Eligible)
		return err
	})
	if err != nil {
		return role, err
	}
	step := StepWorker
	if role == member.ControlPlane {
		step = StepControlPlane
		if !d.Mine {
			work.Go(func() error { return a.keepDirectory(ctx, d) })
		}
	}
	return role, a.Journal.Finish(step)
}

// askForRole claims a row at a control plane and learns which generation of the
// directory it is in. The same claim again is answered with the same role.
func (a *Agent) askForRole(ctx context.Context, d election.Decree, eligible bool) (member.Role, error) {
	var reply agent.RoleReply
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		reply, err = a.fabric.Calls.ClaimRole(ctx, p, agent.RoleRequest{
			Name: a.self.Node.Name, Address: a.self.Node.Private, Eligible: eligible, Joining: a.joining()})
		return err
	})
	if err == nil {
		a.heard(reply.Generation)
	}
	return reply.Role, err
}

// claimOwn takes the GO holder's place among the control planes.
func (a *Agent) claimOwn(ctx context.Context, d election.Decree) (member.Role, error) {
	if !a.directory.Load() {
		if why := a.unanswered.Load(); why != nil {
			return member.NoRole, *why
		}
		return member.NoRole, errors.New("the directory of this server starts")
	}
	if err := a.bindOwn(ctx); err != nil {
		return member.NoRole, err
	}
	m := member.Member{Inst: a.self.Inst, HW: a.self.HW, Name: a.self.Node.Name, Address: a.self.Node.Private, Epoch: d.Epoch}
	return a.Directory.ClaimRole(ctx, m, true, true, a.Cluster.Spec.Servers.ControlPlanes, a.Cluster.Spec.Servers.Expect)
}

// bindOwn binds the GO holder's key, which signed for itself before there was a
// directory.
func (a *Agent) bindOwn(ctx context.Context) error {
	csr, err := a.fabric.Trust.CSR()
	if err != nil {
		return fmt.Errorf("making a certificate request: %w", err)
	}
	key, err := a.fabric.Trust.KeyOf(csr)
	if err != nil {
		return err
	}
	return a.Directory.BindKey(ctx, a.self.Inst, a.self.HW, key)
}

// directoryPeers are the other control planes. The GO holder has none until the
// cluster is sealed, and makes the directory; later a lost one is found there.
func (a *Agent) directoryPeers(d election.Decree) []netip.Addr {
	var out []netip.Addr
	for _, p := range a.controlPlanes(d) {
		out = append(out, p.Address)
	}
	return out
}

// controlPlanes are the servers to ask: the leader of the decree first, because
// it is the first that can answer, then whoever gossip says can. A leader that
// gossip does not see comes last: each attempt there takes seconds.
func (a *Agent) controlPlanes(d election.Decree) []agent.Peer {
	var out []agent.Peer
	seen := false
	for _, p := range a.fabric.Gossip.Peers() {
		switch {
		case p.Inst == d.Leader.Inst:
			seen = true
		case p.ControlPlane && p.Inst != a.self.Inst:
			out = append(out, agent.Peer{Inst: p.Inst, Address: p.Address})
		}
	}
	if d.Mine || !d.Leader.Address.IsValid() {
		return out
	}
	at := len(out)
	if seen {
		at = 0
	}
	return slices.Insert(out, at, agent.Peer{Inst: d.Leader.Inst, Address: d.Leader.Address})
}

// askControlPlane asks one control plane after the other until one answers.
func (a *Agent) askControlPlane(ctx context.Context, d election.Decree, ask func(context.Context, agent.Peer) error) error {
	const each = 20 * time.Second
	var errs []error
	for _, p := range a.controlPlanes(d) {
		one, cancel := context.WithTimeout(ctx, each)
		err := ask(one, p)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errors.New("no control plane is in sight; power one on, or check that this server's gossip port reaches them")
	}
	return errors.Join(errs...)
}

// reportPhases keeps this server's row in the directory true, so that status can
// tell how far a server was that no longer answers.
func (a *Agent) reportPhases(ctx context.Context) error {
	var reported member.Phase
	for {
		a.board.mu.Lock()
		phase, detail, changed := a.board.status.Phase, a.board.status.Waiting, a.board.changed
		a.board.mu.Unlock()
		if phase != reported {
			err := a.reportPhase(ctx, agent.PhaseReport{Phase: phase, Detail: cut(detail)})
			if err == nil {
				reported = phase
				continue
			}
			if errors.Is(err, agent.ErrRefused) { // its row went with a lost directory
				if err := a.claimAgain(ctx, a.fence.read()); err != nil {
					a.Log.Debug("claiming the row again", "error", err)
					if errors.Is(err, agent.ErrRefused) { // or it was removed, and should know
						a.board.problem(err)
					}
				}
			}
			if sleep(ctx, lastPause) != nil {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (a *Agent) reportPhase(ctx context.Context, r agent.PhaseReport) error {
	if a.directory.Load() {
		return a.Directory.SetPhase(ctx, a.self.Inst, r.Phase, r.Detail)
	}
	d := a.fence.read()
	return a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
		return a.fabric.Calls.ReportPhase(ctx, p, r)
	})
}

// rowDetail is how much of a sentence a row of the directory holds, in bytes.
const rowDetail = 1024

// cut shortens a sentence to what a row holds: one that names a hundred missing
// servers would be refused.
func cut(sentence string) string {
	const more = "…"
	if len(sentence) <= rowDetail {
		return sentence
	}
	return strings.ToValidUTF8(sentence[:rowDetail-len(more)], "") + more
}
