package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/election"
)

// TestOrderWhileTheDiskIsFull: an operator's order that the fence does not get to in
// time is not carried out later, and one that is not on disk yet is not called
// refused.
func TestOrderWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var full atomic.Bool
		cfg := election.Config{SpecID: "spec", N: 5, Q: 4}
		state, _, _ := election.Settle(nil, cfg, election.Hardware{HW: "hw"}, "inst")
		f := newFence(slog.New(slog.DiscardHandler), election.New(cfg, election.Self{Name: "cp1"}, state))
		f.save = func(election.State) error {
			if full.Load() {
				return unix.ENOSPC
			}
			return nil
		}
		f.send = func(context.Context, string, election.Message) ([]election.Received, error) {
			return nil, errors.New("no network")
		}
		f.note, f.hindered, f.freed, f.changed = func(string) {}, func(error) {}, func(error) {}, func(election.Decree) {}
		ended := make(chan error, 1)
		go func() { ended <- f.run(ctx) }()
		f.tell(ctx, election.Start{Boot: "boot", Run: "run"})
		give := func(want string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if _, refused, err := f.act(ctx, election.Lower{}, true); refused != nil || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("refused %v, %v; expected %q", refused, err, want)
			}
		}
		full.Store(true)
		f.tell(ctx, election.Received{From: election.Sender{Inst: "other", HW: "hw2"}, Message: election.Message{
			Version: election.MessageVersion, Kind: election.Prepare, SpecID: "spec", Config: cfg.Hash(), Ballot: election.Ballot{Round: 1, Inst: "other"}}})
		give("nothing was done")
		full.Store(false)
		pass(time.Minute)
		synctest.Wait()
		if f.read().Lowered {
			t.Error("the order was carried out after all")
		}
		full.Store(true)
		give("takes effect when it is")
		full.Store(false)
		pass(time.Minute)
		synctest.Wait()
		if !f.read().Lowered {
			t.Error("the order that was taken is not carried out")
		}
		if _, refused, err := f.act(ctx, election.Lower{}, true); refused == nil || err != nil {
			t.Errorf("refused %v, %v; expected that it is lowered already", refused, err)
		}
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
