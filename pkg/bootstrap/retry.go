package bootstrap

import (
	"context"
	"errors"
	"time"

	"github.com/mustermetal/muster/pkg/election"
)

// permanentError marks an error that another attempt cannot cure.
type permanentError struct{ error }

func (p permanentError) Unwrap() error { return p.error }

// Permanent wraps an error that a restart or another attempt cannot cure: the
// agent stops trying and keeps serving status.
func Permanent(err error) error { return permanentError{err} }

// Pauses between attempts: the first is short because most waits at boot are
// for a peer that is a moment behind, the last is long enough to keep a broken
// server quiet and short enough for a person who watches.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// until tries until it succeeds, the error is permanent, or ctx ends. Each
// failure is kept on the board with what the attempt was for, so that status
// always explains the wait; success takes both away. It is for what the whole
// server waits for: a loop beside the flow uses retry.
func (a *Agent) until(ctx context.Context, what string, try func(context.Context) error) error {
	return a.untilSaid(ctx, func() string { return what }, try)
}

// untilSaid is until with a sentence that may change from one attempt to the next.
func (a *Agent) untilSaid(ctx context.Context, what func() string, try func(context.Context) error) error {
	var last error
	said := ""
	err := retry(ctx, try, func(err error) {
		last, said = err, what()
		a.board.wait(said)
		a.board.problem(err)
	})
	if err == nil && last != nil {
		a.board.over(said)
		a.board.solved(last)
	}
	return err
}

// ofHolder is a wait for the holder of GO. Until the cluster is sealed the fence has
// more to say to it: the holder may be gone for good.
func (a *Agent) ofHolder(what string) func() string {
	return func() string {
		d, explanation, _ := a.fence.look()
		if d.Phase != election.PhaseGo || d.Mine || explanation == "" {
			return what
		}
		return what + ": " + explanation
	}
}

// retry tries until it succeeds, the error is permanent, or ctx ends. failed
// hears of each failure that is tried again.
func retry(ctx context.Context, try func(context.Context) error, failed func(error)) error {
	pause := firstPause
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		var never permanentError
		if errors.As(err, &never) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed(err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(pause*2, lastPause)
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
