package bootstrap

import (
	"context"
	"errors"
	"fmt"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// readDevice is step 2 of the boot; identity may depend on it (identity.source:
// metadata), so it comes first.
func (a *Agent) readDevice(ctx context.Context) error {
	a.board.enter(member.Metadata)
	return a.until(ctx, "the platform's metadata of this server", func(ctx context.Context) error {
		d, err := a.Metadata.Device(ctx, func(err error) {
			a.board.wait("the platform's metadata of this server; it is asked again until it is complete")
			a.board.problem(err)
		})
		a.device = d
		a.Outward.Aim(d.EventsURL)
		return err
	})
}

// settleSelf is step 1: hardware identity, instance, name. What hinders it may be
// a disk, or what the metadata say, so both are read anew at each attempt.
func (a *Agent) settleSelf(ctx context.Context) (s Settled, err error) {
	a.board.enter(member.Identity)
	again := false
	err = a.until(ctx, "this server's identity", func(ctx context.Context) error {
		if again {
			if d, err := a.Metadata.Device(ctx, func(error) {}); err == nil {
				a.device = d
			}
		}
		again = true
		s, err = a.settle()
		return err
	})
	return s, err
}

// lie is all that a server does whose disk carries another's node: it stops what runs
// of it, takes part in nothing, and answers on its socket.
func (a *Agent) lie(ctx context.Context, why string) error {
	if err := a.standDown(ctx); err != nil {
		return err
	}
	return Permanent(errors.New(why))
}

func (a *Agent) settle() (Settled, error) {
	s, err := a.Settle(a.device)
	if err != nil {
		return s, fmt.Errorf("settling this server's identity: %w", err)
	}
	a.self = s.Self
	a.board.change(func(st *member.Status) {
		st.Inst, st.HW, st.Name, st.Address = s.Inst, s.HW, s.Node.Name, s.Node.Private
	})
	if s.Text != "" {
		a.Log.Warn("identity", "note", s.Text)
		a.origin.Store(&s.Text)
	}
	if s.Origin == election.Foreign {
		return s, Permanent(errors.New(s.Text))
	}
	return s, nil
}
