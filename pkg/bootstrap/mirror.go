package bootstrap

import (
	"context"
	"fmt"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// mirror keeps in Kubernetes what the directory would be made again from, and
// brings in what only Kubernetes knows: a server that joined through an older
// generation a moment before that was given up.
func (a *Agent) mirror(ctx context.Context) error {
	records, err := a.Directory.Records(ctx)
	if err != nil {
		return err
	}
	kept, err := a.Authority.Mirrored(ctx)
	if err != nil {
		return err
	}
	missing, changed := plan.CompareRecords(records, kept)
	var gone []string
	if len(missing) > 0 {
		if err := a.Directory.Restore(ctx, missing); err != nil {
			return err
		}
		if records, err = a.Directory.Records(ctx); err != nil {
			return err
		}
		// What it did not take, it decided otherwise: another has that name.
		missing, changed = plan.CompareRecords(records, kept)
		for _, r := range missing {
			gone = append(gone, r.Inst)
		}
	}
	if len(changed) == 0 && len(gone) == 0 {
		return nil
	}
	a.Log.Info("keeping the records of members in Kubernetes", "written", len(changed), "removed", len(gone))
	return a.Authority.Mirror(ctx, changed, gone...)
}

// recordSelf writes this control plane's own record, if Kubernetes has none.
func (a *Agent) recordSelf(ctx context.Context) error {
	kept, err := a.Authority.Mirrored(ctx)
	if err != nil {
		return err
	}
	for _, r := range kept {
		if r.Inst == a.self.Inst {
			return nil
		}
	}
	csr, err := a.fabric.Trust.CSR()
	if err != nil {
		return fmt.Errorf("making a certificate request: %w", err)
	}
	key, err := a.fabric.Trust.KeyOf(csr)
	if err != nil {
		return err
	}
	return a.Authority.Mirror(ctx, []member.Record{{
		Inst: a.self.Inst, HW: a.self.HW, Name: a.self.Node.Name, Address: a.self.Node.Private, Role: member.ControlPlane, Key: key,
	}})
}

// vouch is the last check before a server joins Kubernetes: Kubernetes has its
// record, so that a directory that is lost then knows it again; and the directory
// that gave it the row is the one that stands. So an older generation, even with a
// majority of its own, lets nobody in.
func (s *Server) vouch(ctx context.Context, db Directory, inst string) error {
	if err := s.directoryStands(ctx); err != nil {
		return err
	}
	records, err := db.Records(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Inst == inst && !r.Removed {
			return s.agent.Authority.Mirror(ctx, []member.Record{r})
		}
	}
	return fmt.Errorf("instance %s has no row in the directory: ask for a role first: %w", inst, agent.ErrRefused)
}

// directoryStands says whether the directory of this server is the one that the Lease
// names, or why that is not known.
func (s *Server) directoryStands(ctx context.Context) error {
	a := s.agent
	l, found, err := a.Authority.Lease(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", err, agent.ErrNotReady)
	}
	if found && l.Generation > a.running.Load() {
		a.heard(l.Generation)
		return fmt.Errorf("this server drops generation %d of the directory for generation %d: %w", a.running.Load(), l.Generation, agent.ErrNotReady)
	}
	return nil
}
