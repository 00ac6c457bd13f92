package bootstrap

import (
	"context"
	"errors"
	"fmt"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Steps in the journal (docs/formats.md): an operator ordered this server to leave,
// and it has left. Both outlive reboots; bootstrap reset takes them away.
const (
	StepLeaving = "leaving"
	StepLeft    = "left"
)

// errParted ends the run of a server that has left; systemd starts the agent again,
// which then only says so.
var errParted = errors.New("this server has left the cluster: the agent starts again, to say so and nothing else")

// leftText is what a server that has left says.
const leftText = "nothing: it has left the cluster, and stays out; to bring it back as a new server run bootstrap reset --yes and reboot"

// rest is all that a server does that has left: it answers on its socket.
func (a *Agent) rest(ctx context.Context) error {
	a.board.enter(member.Left)
	a.board.wait(leftText)
	<-ctx.Done()
	return nil
}

// LeaveOrder is what an operator orders a server that shall leave.
type LeaveOrder string

// Orders.
const (
	OrderDrain LeaveOrder = "drain" // one round: what is returned is still there
	OrderLeave LeaveOrder = "leave" // do not come back
)

// Leaving weighs an operator's order to this server to leave its cluster. With yes it
// carries out one round of the drain, or begins the rest, which goes on by itself
// through whatever interrupts it.
func (s *Server) Leaving(ctx context.Context, yes bool, order LeaveOrder) ([]string, error) {
	a := s.agent
	switch {
	case order != OrderDrain && order != OrderLeave:
		return nil, fmt.Errorf("the order %q to a server that leaves is neither %s nor %s: run the bootstrap that the agent is", order, OrderDrain, OrderLeave)
	case !a.connected.Load() && !a.Journal.Done(StepLeft):
		return nil, fmt.Errorf("this server still starts: %w", agent.ErrNotReady)
	case a.Journal.Done(StepLeft):
		return []string{"This server has left already."}, nil
	case a.Journal.Done(StepLeaving):
		return []string{"This server leaves already, and goes on by itself; bootstrap status says how far it is."}, nil
	case a.board.read().Phase == member.Stopped:
		return nil, fmt.Errorf("%w: this server stopped for good, and nothing would go on here; bootstrap status says why; on another control plane, with this one off: bootstrap replace", agent.ErrRefused)
	case !a.Kubernetes.Joined() && !a.Kubernetes.Initialised():
		return nil, fmt.Errorf("%w: this server is no node of the cluster yet, so there is nothing to leave; to take it away run bootstrap reset --yes", agent.ErrRefused)
	}
	weighed, err := a.askOthers(ctx, agent.LeaveWeigh)
	if err != nil {
		return nil, s.onlyOne(ctx, err)
	}
	if !yes {
		return weighed.Told, nil
	}
	if order == OrderDrain {
		drained, err := a.askOthers(ctx, agent.LeaveDrain)
		return drained.Pods, err
	}
	a.Log.Warn("an operator's act", "act", "leave")
	if err := a.Journal.Finish(StepLeaving); err != nil {
		return nil, err
	}
	a.release()
	return weighed.Told, nil
}

// onlyOne says why nobody else takes this server out, where it is the last.
func (s *Server) onlyOne(ctx context.Context, err error) error {
	if errors.Is(err, agent.ErrRefused) {
		return err
	}
	rows, looked := s.Members(ctx)
	planes := 0
	for _, m := range rows {
		if m.Role == member.ControlPlane {
			planes++
		}
	}
	if looked == nil && planes == 1 && s.agent.board.read().Role == member.ControlPlane {
		return fmt.Errorf("%w: this server is the only control plane, without it there is no cluster; to destroy the cluster: bootstrap reset --force", agent.ErrRefused)
	}
	return fmt.Errorf("no other control plane answers, and one of them must take this server out: start one, or let its agents' port through: %w: %w", err, agent.ErrNotReady)
}

// askOthers asks the other control planes for a step of this server's leave. What one
// refuses the others would refuse.
func (a *Agent) askOthers(ctx context.Context, step agent.LeaveStep) (agent.LeaveReply, error) {
	var reply agent.LeaveReply
	var refused error
	err := a.askControlPlane(ctx, a.fence.read(), func(ctx context.Context, p agent.Peer) (err error) {
		if reply, err = a.fabric.Calls.Leave(ctx, p, agent.LeaveRequest{Step: step}); errors.Is(err, agent.ErrRefused) {
			refused = err
			return nil
		}
		return err
	})
	return reply, errors.Join(refused, err)
}

// part takes this server out of its cluster, and returns when it is. Each step looks
// first, so a server that was interrupted goes through all of them again.
func (a *Agent) part(ctx context.Context, d election.Decree, role member.Role) error {
	a.board.enter(member.Leaving)
	a.announcers.Wait() // one that was at it could bring back what is taken away below
	if role == member.ControlPlane {
		a.setFlags(func(f *Flags) { f.ControlPlane = false })
		if err := a.until(ctx, "the Elastic IPs to be withdrawn", a.yieldElasticIPs); err != nil {
			return err
		}
		if err := a.until(ctx, "its turn to leave etcd", func(ctx context.Context) error { return a.leaveEtcd(ctx, d) }); err != nil {
			return err
		}
	}
	if err := a.until(ctx, "kubeadm reset", a.Kubernetes.Reset); err != nil {
		return err
	}
	err := a.until(ctx, "the other control planes to take this server out", func(ctx context.Context) error {
		_, err := a.askOthers(ctx, agent.LeaveEnd)
		return a.unlessRemoved(ctx, d, err)
	})
	if err != nil {
		return err
	}
	a.endDuty()
	if err := a.until(ctx, "the directory to stop", a.Directory.Stop); err != nil {
		return err
	}
	if err := a.Journal.Finish(StepLeft); err != nil {
		return err
	}
	a.Log.Warn("left the cluster")
	return errParted
}

// yieldElasticIPs ends the announcement, then takes addresses and routes away.
func (a *Agent) yieldElasticIPs(ctx context.Context) error {
	if err := a.dropElasticIPs(ctx, plan.ControlPlaneIPs(a.Cluster.Spec)); err != nil {
		return err
	}
	if err := errors.Join(a.Speaker.Stop(ctx), a.Kubernetes.EndKubeVIP(ctx)); err != nil {
		return err
	}
	a.Network.Set(plan.Network{})
	return a.Network.Apply(ctx, plan.Network{})
}

// leaveEtcd has another control plane take this server's etcd out. It takes the turn
// to join for that: etcd's membership changes in one place at a time. The turn ends
// with this server's row.
func (a *Agent) leaveEtcd(ctx context.Context, d election.Decree) error {
	_, err := a.acquireJoin(ctx, d)
	if err == nil {
		_, err = a.askOthers(ctx, agent.LeaveEtcd)
	}
	return a.unlessRemoved(ctx, d, err)
}

// unlessRemoved drops an error when the cluster has removed this server: then it is
// refused everywhere, and what it asked for is done.
func (a *Agent) unlessRemoved(ctx context.Context, d election.Decree, err error) error {
	if err == nil {
		return nil
	}
	var standing agent.Standing
	asked := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		standing, err = a.fabric.Calls.Standing(ctx, p)
		return err
	})
	if asked == nil && standing.Removed {
		return nil
	}
	return err
}
