package bootstrap

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Pauses between two looks at the number of control planes.
const (
	sparedSettled = 10 * time.Second
	sparedDrains  = 2 * time.Second
)

// leaveWhenSpared belongs to step 10: where an operator applied a spec with fewer
// control planes than there are, they leave by themselves, one after the other.
func (a *Agent) leaveWhenSpared(ctx context.Context, server *Server) error {
	cordoned := false // by this, in this run
	for pause := sparedSettled; sleep(ctx, pause) == nil; {
		st := a.board.read()
		if st.Role != member.ControlPlane || st.Phase != member.Ready || a.Journal.Done(StepLeaving) {
			continue
		}
		why, err := a.spared(ctx)
		pause = sparedSettled
		if err == nil && why != "" {
			cordoned, pause = true, sparedDrains
			why, err = server.leaveSpared(ctx, why)
		}
		if err == nil && why == "" && cordoned && !a.Journal.Done(StepLeaving) {
			cordoned = false
			a.Log.Warn("this server is no longer to leave; its node stays cordoned, see bootstrap status")
		}
		if err != nil {
			why = strings.TrimPrefix(why+"; "+err.Error(), "; ")
		}
		a.tellSpared(why)
	}
	return nil
}

// tellSpared says in status how the leave stands.
func (a *Agent) tellSpared(sentence string) {
	if a.board.read().Spared == sentence {
		return
	}
	a.board.change(func(s *member.Status) { s.Spared = sentence })
	if sentence != "" {
		a.Log.Info("leaves by itself", "state", sentence)
	}
}

// spared says why it is this server's turn to leave; empty when it is not. What counts
// is the directory alone, and of it what an operator applied: the file of a server
// that came later may have any number.
func (a *Agent) spared(ctx context.Context) (string, error) {
	if status, _ := a.spec.read(); status.Newest == 0 || !a.directory.Load() {
		return "", nil
	}
	spec, err := a.Directory.Spec(ctx, -1)
	if err != nil || spec == nil || spec.Revision == 0 {
		return "", err
	}
	rows, err := a.Directory.Members(ctx)
	if err != nil {
		return "", err
	}
	leaving := plan.Spared(rows, spec.ControlPlanes)
	if len(leaving) == 0 || leaving[0].Inst != a.self.Inst {
		return "", nil
	}
	return fmt.Sprintf("revision %d of the spec has controlPlanes: %d, and this one is more", spec.Revision, spec.ControlPlanes), nil
}

// leaveSpared is one round of the drain, or what comes after it. It returns why with
// what it waits for. Between the last look and the order nobody joins or leaves: this
// server has the turn to join, and keeps it for its etcd, until its row is gone.
func (s *Server) leaveSpared(ctx context.Context, why string) (string, error) {
	a := s.agent
	if _, err := s.Leaving(ctx, false, OrderLeave); err != nil { // a node is not cordoned that cannot go
		return why, err
	}
	left, err := s.Leaving(ctx, true, OrderDrain)
	if err != nil {
		return why, err
	}
	if len(left) > 0 {
		slices.Sort(left)
		return why + "; its pods go first: " + strings.Join(left, "; "), nil
	}
	turn, err := a.Directory.AcquireJoin(ctx, a.self.Inst)
	if err != nil {
		return why, err
	}
	if !turn.Granted {
		return why + "; it waits for " + s.nameOf(ctx, turn.Holder) + ", whose turn it is to join", nil
	}
	still, err := a.spared(ctx)
	if err == nil && still != "" {
		if _, err = s.Leaving(ctx, true, OrderLeave); err == nil {
			return still + "; its pods are gone, and it leaves", nil
		}
	}
	if give := a.Directory.ReleaseJoin(context.WithoutCancel(ctx), a.self.Inst, turn.Token); give != nil {
		a.Log.Warn("giving the turn to join back", "error", give)
	}
	return still, err
}
