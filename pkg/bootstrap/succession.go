package bootstrap

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// absences says since when instances are out of sight, as seen from here. What was
// before the agent started it does not know, so it counts from there.
type absences struct {
	mu      sync.Mutex
	began   time.Time
	inSight map[string]bool
	gone    map[string]time.Time
}

// see takes who is in sight now.
func (x *absences) see(peers []Peer, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.began.IsZero() {
		x.began, x.gone = now, map[string]time.Time{}
	}
	seen := map[string]bool{}
	for _, p := range peers {
		seen[p.Inst] = true
		delete(x.gone, p.Inst)
	}
	for inst := range x.inSight {
		if !seen[inst] {
			x.gone[inst] = now
		}
	}
	x.inSight = seen
}

// of is how long an instance is out of sight, and whether it is in sight.
func (x *absences) of(inst string, now time.Time) (silent time.Duration, inSight bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	since, known := x.gone[inst]
	if !known {
		since = x.began
	}
	if x.inSight[inst] || since.IsZero() {
		return 0, x.inSight[inst]
	}
	return now.Sub(since), false
}

// succeed is for a claim that failed: where a member of the same hardware has the name,
// which found says, it gives its place to the caller, or err says what keeps it.
func (s *Server) succeed(ctx context.Context, db Directory, from agent.Caller, r agent.RoleRequest) (found bool, err error) {
	rows, err := db.Members(ctx)
	if err != nil {
		return false, err
	}
	var old member.Member
	for _, m := range rows {
		if m.Name == r.Name && m.HW == from.HW && m.Inst != from.Inst {
			old = m
		}
	}
	if old.Inst == "" {
		return false, nil
	}
	a := s.agent
	spec := a.Cluster.Spec.Servers.Replace
	c := plan.Succession{By: spec.By, After: spec.After, Old: old, At: r.Address, From: from.Address}
	c.Silent, c.InSight = a.absences.of(old.Inst, a.Now())
	if wait := c.Wait(); wait != "" { // without a question to etcd
		return true, fmt.Errorf("%s: %w", wait, agent.ErrNotReady)
	}
	if c.Etcd, err = a.Kubernetes.EtcdMembers(ctx); err != nil {
		return true, fmt.Errorf("it gets that place by itself when etcd answers here: %w: %w", err, agent.ErrNotReady)
	}
	if wait := c.Wait(); wait != "" {
		return true, fmt.Errorf("%s: %w", wait, agent.ErrNotReady)
	}
	err = s.replaceInTurn(ctx, db, old.Inst)
	if err != nil {
		err = fmt.Errorf("it gets that place by itself: %w", err)
	}
	return true, err
}

// replaceInTurn takes a former life out. It has the turn to join meanwhile: nobody
// else changes etcd's members, and no other control plane does the same, whose last
// steps could meet the new one.
func (s *Server) replaceInTurn(ctx context.Context, db Directory, inst string) error {
	a := s.agent
	turn, err := db.AcquireJoin(ctx, a.self.Inst)
	if err != nil {
		return err
	}
	if !turn.Granted {
		return fmt.Errorf("%s has the turn to join, in which nobody else changes the members of etcd; it has joined, or loses the turn, within minutes: %w", s.nameOf(ctx, turn.Holder), agent.ErrNotReady)
	}
	defer func() {
		if err := db.ReleaseJoin(context.WithoutCancel(ctx), a.self.Inst, turn.Token); err != nil {
			a.Log.Warn("giving the turn to join back", "error", err)
		}
	}()
	d, err := s.departureOf(ctx, db, inst)
	if err != nil {
		return err
	}
	a.Log.Warn("a former life of a server is replaced", "name", d.gone.Member.Name, "inst", inst)
	if err := s.leaveEtcd(ctx, d); err != nil {
		return err
	}
	return s.leaveCluster(ctx, db, d)
}
