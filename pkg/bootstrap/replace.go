package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Replace weighs an operator's order to give the place of a member that is gone to
// the server that comes under its name, and carries it out with yes: its etcd
// leaves, its node is deleted, and last its row and its certificate go, so that
// the name is free only when nothing of the old server is left. Each step looks
// first, so the same order goes on where it was interrupted.
func (s *Server) Replace(ctx context.Context, yes bool, name string) ([]string, error) {
	db, err := s.db()
	if err != nil {
		return nil, err
	}
	gone, err := db.Remove(ctx, name, false)
	if err != nil {
		return nil, err
	}
	m := gone.Member
	for _, p := range s.agent.fabric.Gossip.Peers() {
		if p.Inst == m.Inst {
			return nil, fmt.Errorf("%w: %s (%s, instance %s) is in sight: it is not gone; power it off first, and wait until bootstrap status no longer has an answer from it", agent.ErrRefused, m.Name, m.Address, m.Inst)
		}
	}
	var etcd plan.EtcdMember
	voters, votes := 0, false
	if gone.Role == member.ControlPlane {
		if etcd, voters, votes, err = s.etcdWithout(ctx, m); err != nil {
			return nil, err
		}
	}
	told := replacementTold(gone, voters, votes)
	if !yes {
		return told, nil
	}
	s.agent.Log.Warn("an operator's act", "act", "replace", "name", m.Name, "inst", m.Inst)
	k := s.agent.Kubernetes
	if votes {
		if err := k.RemoveEtcdMember(ctx, etcd.ID); err != nil {
			return nil, fmt.Errorf("taking the etcd of %s out: %w", m.Name, err)
		}
	}
	if gone.Role != member.NoRole { // else it went before, and the node may be its successor's
		if err := k.DeleteNode(ctx, m.Name); err != nil {
			return nil, err
		}
	}
	_, err = db.Remove(ctx, m.Inst, true) // by now the name may be its successor's
	return told, err
}

// etcdWithout is etcd as it would be without a member.
func (s *Server) etcdWithout(ctx context.Context, m member.Revoked) (plan.EtcdMember, int, bool, error) {
	members, err := s.agent.Kubernetes.EtcdMembers(ctx)
	if err != nil {
		return plan.EtcdMember{}, 0, false, fmt.Errorf("the members of etcd are not known here: %w: %w", err, agent.ErrNotReady)
	}
	etcd, voters, found, err := plan.LeaveEtcd(members, m.Name, m.Address)
	if etcd.Healthy { // gossip alone may be cut
		return etcd, voters, found, fmt.Errorf("%w: the etcd of %s (%s) answers: it is not gone; power it off first", agent.ErrRefused, m.Name, m.Address)
	}
	if errors.Is(err, plan.ErrEtcdQuorum) {
		err = fmt.Errorf("%w: %w", agent.ErrRefused, err)
	}
	return etcd, voters, found, err
}

// replacementTold says what a replacement does and what it risks.
func replacementTold(gone member.Removal, voters int, inEtcd bool) []string {
	m := gone.Member
	who := fmt.Sprintf("%s (%s, hardware %s, instance %s)", m.Name, m.Address, m.HW, m.Inst)
	if gone.Role == member.NoRole {
		return []string{who + " was removed before. Its node of the directory goes, if it is still there; its node in Kubernetes is left alone."}
	}
	told := []string{fmt.Sprintf("%s, a %s, loses its node in Kubernetes, its place in the directory and its certificate. A server of that name gets the place by itself then.", who, gone.Role)}
	if inEtcd {
		told = append(told, fmt.Sprintf("Its etcd leaves, and %d voters are left.", voters))
		if voters < 3 {
			told = append(told, "DANGER: with fewer than three voters etcd stops when one more is off, until the new server has joined.")
		}
	}
	if gone.Node != "" {
		told = append(told, fmt.Sprintf("Its node of the directory, a %s, goes.", gone.Node))
		if strings.Contains(gone.Node, "voter") && gone.Voters < 3 {
			told = append(told, fmt.Sprintf("DANGER: the directory has %d voters then.", gone.Voters))
		}
	}
	return append(told, fmt.Sprintf("DANGER: if the old %s still runs somewhere, out of sight, its pods run on beside their successors. Make sure that it is off.", m.Name),
		"DANGER: whoever has the old disk has what was on it, of a control plane the keys of all CAs: wipe it.")
}
