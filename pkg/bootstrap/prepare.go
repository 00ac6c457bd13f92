package bootstrap

import (
	"context"

	"github.com/mustermetal/muster/pkg/member"
)

// prepareHost is step 5; it runs beside the roll call and the fence.
func (a *Agent) prepareHost(ctx context.Context) error {
	err := retry(ctx, func(ctx context.Context) error {
		return a.Host.Prepare(ctx, func(p member.Preparation) {
			a.Log.Debug("preparing", "step", p.Step, "artefacts", p.Artefacts.Done, "bytes", p.Artefacts.Bytes)
			a.board.change(func(s *member.Status) { s.Preparation = p })
		})
	}, func(err error) {
		a.hindrance.Store(&err)
		a.board.problem(err)
	})
	if err != nil {
		return err
	}
	if was := a.hindrance.Swap(nil); was != nil {
		a.board.solved(*was)
	}
	close(a.prepared)
	a.Log.Info("host prepared")
	return nil
}

func (a *Agent) isPrepared() bool {
	select {
	case <-a.prepared:
		return true
	default:
		return false
	}
}

// awaitPrepared blocks until host preparation is done; its problem is on the
// board meanwhile.
func (a *Agent) awaitPrepared(ctx context.Context) error {
	if a.isPrepared() {
		return nil
	}
	a.board.wait("host preparation")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.prepared:
		a.board.wait("")
		return nil
	}
}
