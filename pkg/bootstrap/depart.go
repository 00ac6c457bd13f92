package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// departure is what is left of a member in the cluster when it goes, gone or leaving.
type departure struct {
	gone   member.Removal
	etcd   plan.EtcdMember
	voters int  // of etcd, without it
	votes  bool // it is a member of etcd
}

// departureOf looks at what goes with a member, by name or instance. The error, of
// the kind agent.ErrRefused, says that etcd or the directory cannot spare it.
func (s *Server) departureOf(ctx context.Context, db Directory, who string) (departure, error) {
	var d departure
	var err error
	if d.gone, err = db.Remove(ctx, who, false); err != nil || d.gone.Role != member.ControlPlane {
		return d, err
	}
	members, err := s.agent.Kubernetes.EtcdMembers(ctx)
	if err != nil {
		return d, fmt.Errorf("the members of etcd are not known here: %w: %w", err, agent.ErrNotReady)
	}
	d.etcd, d.voters, d.votes, err = plan.LeaveEtcd(members, d.gone.Member.Name, d.gone.Member.Address)
	if errors.Is(err, plan.ErrEtcdQuorum) {
		err = fmt.Errorf("%w: %w", agent.ErrRefused, err)
	}
	return d, err
}

// leaveEndDeadline is above what a change of the directory's nodes takes, with an election.
const leaveEndDeadline = 2 * time.Minute

// confirmGone asks etcd's majority where the etcd here does not know of the member: it
// may only not have heard of it yet, and the member would wipe the data of a voter.
func (s *Server) confirmGone(ctx context.Context, d departure) error {
	if d.votes || d.gone.Role != member.ControlPlane {
		return nil
	}
	m := d.gone.Member
	has, err := s.agent.Kubernetes.EtcdHas(ctx, m.Name, m.Address)
	if err != nil {
		return fmt.Errorf("the members of etcd are not known here: %w: %w", err, agent.ErrNotReady)
	}
	if has {
		return fmt.Errorf("the etcd here has not heard yet that %s is a member: %w", m.Name, agent.ErrNotReady)
	}
	return nil
}

// leaveEtcd takes its etcd out, and looks whether it is.
func (s *Server) leaveEtcd(ctx context.Context, d departure) error {
	if !d.votes {
		return nil
	}
	k := s.agent.Kubernetes
	err := k.RemoveEtcdMember(ctx, d.etcd.ID)
	if err == nil {
		var members []plan.EtcdMember
		members, err = k.EtcdMembers(ctx)
		for _, m := range members {
			if m.ID == d.etcd.ID {
				err = fmt.Errorf("it is still a member: %w", agent.ErrNotReady)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("taking the etcd of %s out: %w", d.gone.Member.Name, err)
	}
	return nil
}

// leaveCluster takes its node out, and last its row and its certificate, so that the
// name is free only when nothing of it is left.
func (s *Server) leaveCluster(ctx context.Context, db Directory, d departure) error {
	if d.gone.Role != member.NoRole { // else it went before, and the node may be its successor's
		if err := s.agent.Kubernetes.DeleteNode(ctx, d.gone.Member.Name); err != nil {
			return err
		}
	}
	_, err := db.Remove(ctx, d.gone.Member.Inst, true) // by now the name may be its successor's
	return err
}

// told says what goes of its votes and what that risks.
func (d departure) told() []string {
	var told []string
	if d.votes {
		told = append(told, fmt.Sprintf("Its etcd leaves, and %d voters are left.", d.voters))
		if d.voters < 3 {
			told = append(told, "DANGER: with fewer than three voters etcd stops when one more is off, until a new server has joined.")
		}
	}
	if d.gone.Node != "" {
		told = append(told, fmt.Sprintf("Its node of the directory, a %s, goes.", d.gone.Node))
		if strings.Contains(d.gone.Node, "voter") && d.gone.Voters < 3 {
			told = append(told, fmt.Sprintf("DANGER: the directory has %d voters then.", d.gone.Voters))
		}
	}
	return told
}

// who names a member with all that tells it from another life of the same server.
func (d departure) who() string {
	m := d.gone.Member
	return fmt.Sprintf("%s (%s, hardware %s, instance %s)", m.Name, m.Address, m.HW, m.Inst)
}

// Leave does one step for a member that leaves by its own operator's order. What the
// caller may lose is its own: who it is stands in its certificate.
func (s *Server) Leave(ctx context.Context, from agent.Caller, r agent.LeaveRequest) (agent.LeaveReply, error) {
	var reply agent.LeaveReply
	db, err := s.db()
	if err != nil {
		return reply, err
	}
	d, err := s.departureOf(ctx, db, from.Inst)
	if err != nil {
		return reply, err
	}
	name := d.gone.Member.Name
	s.agent.Log.Info("a member leaves", "name", name, "inst", from.Inst, "step", r.Step)
	switch r.Step {
	case agent.LeaveWeigh:
		pods, err := s.agent.Kubernetes.Pods(ctx, name)
		if err != nil {
			return reply, err
		}
		reply.Told = leaveTold(d, pods)
		return reply, nil
	case agent.LeaveDrain:
		reply.Pods, err = s.drain(ctx, name)
		return reply, err
	case agent.LeaveEtcd:
		if err := s.confirmGone(ctx, d); err != nil {
			return reply, err
		}
		return reply, s.leaveEtcd(ctx, d)
	case agent.LeaveEnd:
		if d.votes {
			return reply, fmt.Errorf("%w: the etcd of %s is still a member; it leaves first", agent.ErrRefused, name)
		}
		if err := s.confirmGone(ctx, d); err != nil {
			return reply, err
		}
		// Half of it would bar the caller from asking again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveEndDeadline)
		defer cancel()
		return reply, s.leaveCluster(ctx, db, d)
	}
	return reply, fmt.Errorf("the step %q of a leave is unknown here: run the same bootstrap on all servers", r.Step)
}

// drain cordons a node, tells its pods to go, and names those that are still there. It
// returns at once: who drains asks again.
func (s *Server) drain(ctx context.Context, node string) ([]string, error) {
	k := s.agent.Kubernetes
	if err := k.Cordon(ctx, node); err != nil {
		return nil, err
	}
	pods, err := k.Pods(ctx, node)
	if err != nil {
		return nil, err
	}
	left := []string{}
	for _, p := range plan.ToEvict(pods) {
		text := p.String() + ": ends"
		if !p.Going {
			if err := k.Evict(ctx, p); err != nil {
				text = p.String() + ": " + err.Error()
			}
		}
		left = append(left, text)
	}
	return left, nil
}

// leaveTold says what a leave does, in its order, and what it risks.
func leaveTold(d departure, pods []plan.Pod) []string {
	told := []string{fmt.Sprintf("%s, a %s, leaves the cluster.", d.who(), d.gone.Role)}
	told = append(told, plan.DrainTold(d.gone.Member.Name, pods)...)
	if d.gone.Role == member.ControlPlane {
		told = append(told, "Its Elastic IPs are withdrawn and taken off lo.")
	}
	told = append(told, d.told()...)
	told = append(told, "kubeadm reset ends what still runs here.",
		"Its node in Kubernetes, its place in the directory and its certificate go. It stays out until bootstrap reset --yes and a reboot.")
	if d.gone.Role == member.ControlPlane {
		told = append(told, "DANGER: until that reset, whoever has its disk has the keys of all CAs.")
	}
	return told
}

// Standing tells a caller whether it was removed.
func (s *Server) Standing(ctx context.Context, from agent.Caller) (agent.Standing, error) {
	var out agent.Standing
	db, err := s.db()
	if err != nil {
		return out, err
	}
	records, err := db.Records(ctx)
	for _, r := range records {
		if r.Inst == from.Inst && r.Removed {
			out.Removed = true
		}
	}
	return out, err
}
