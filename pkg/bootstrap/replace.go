package bootstrap

import (
	"context"
	"fmt"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
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
	d, err := s.departureOf(ctx, db, name)
	m := d.gone.Member
	for _, p := range s.agent.fabric.Gossip.Peers() {
		if m.Inst != "" && p.Inst == m.Inst {
			return nil, fmt.Errorf("%w: %s (%s, instance %s) is in sight: it is not gone; power it off first, and wait until bootstrap status no longer has an answer from it", agent.ErrRefused, m.Name, m.Address, m.Inst)
		}
	}
	if d.etcd.Healthy { // gossip alone may be cut
		return nil, fmt.Errorf("%w: the etcd of %s (%s) answers: it is not gone; power it off first", agent.ErrRefused, m.Name, m.Address)
	}
	if err != nil {
		return nil, err
	}
	told := replacementTold(d)
	if !yes {
		return told, nil
	}
	s.agent.Log.Warn("an operator's act", "act", "replace", "name", m.Name, "inst", m.Inst)
	return told, s.replaceInTurn(ctx, db, m.Inst)
}

// replacementTold says what a replacement does and what it risks.
func replacementTold(d departure) []string {
	if d.gone.Role == member.NoRole {
		return []string{d.who() + " was removed before. Its node of the directory goes, if it is still there; its node in Kubernetes is left alone."}
	}
	told := []string{fmt.Sprintf("%s, a %s, loses its node in Kubernetes, its place in the directory and its certificate. A server of that name gets the place by itself then.", d.who(), d.gone.Role)}
	told = append(told, d.told()...)
	return append(told, fmt.Sprintf("DANGER: if the old %s still runs somewhere, out of sight, its pods run on beside their successors. Make sure that it is off.", d.gone.Member.Name),
		"DANGER: whoever has the old disk has what was on it, of a control plane the keys of all CAs: wipe it.")
}
