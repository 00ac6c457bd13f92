package firewall

import (
	"cmp"
	"context"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

const (
	// coalesce gathers the events of one change. With the time of a pass it stays far
	// below a second.
	coalesce = 200 * time.Millisecond
	// resync finds what no event told.
	resync = 30 * time.Second
	// retryMin and retryMax bound the pause after a pass that failed.
	retryMin, retryMax = time.Second, 30 * time.Second
	// resubscribe is the pause before listening again after the event socket failed.
	resubscribe = time.Second
)

// Run keeps the order until ctx ends: after every Set, every event of the table, and
// every 30 s. report hears how the table stands whenever that changes. Errors are
// reported, logged when they change, and tried again; the only one that it returns
// is that of ctx.
func (k *Keeper) Run(ctx context.Context, report func(member.FirewallStatus)) error {
	changed := make(chan struct{}, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		k.keepWatching(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { <-watched }()

	var last member.FirewallStatus
	retry := retryMin
	for {
		status, err := k.pass(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if status != last {
			k.say(status)
			report(status)
			last = status
		}
		next := resync
		if err != nil {
			next, retry = retry, min(2*retry, retryMax)
		} else {
			retry = retryMin
		}
		if err := k.idle(ctx, next, changed); err != nil {
			return err
		}
	}
}

// idle waits for the next reason to look.
func (k *Keeper) idle(ctx context.Context, most time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-k.wake:
	case <-timer.C:
	case <-changed:
		timer.Reset(coalesce)
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-timer.C:
		}
	}
	return context.Cause(ctx)
}

func (k *Keeper) say(s member.FirewallStatus) {
	switch s.State {
	case member.FirewallFailed:
		k.log.Warn("firewall not as planned", "note", s.Reason)
	case member.FirewallOff:
		k.log.Info("firewall is off", "note", cmp.Or(s.Reason, "as the cluster file says"))
	case member.FirewallOn:
		k.log.Info("firewall is on")
	}
}

// keepWatching listens to the kernel until ctx ends, and starts over when that
// fails. After a gap everything may have changed, so it says so.
func (k *Keeper) keepWatching(ctx context.Context, notify func()) {
	for ctx.Err() == nil {
		err := k.watch(ctx, notify)
		if ctx.Err() != nil {
			return
		}
		k.log.Debug("listening to nftables events failed, starting over", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(resubscribe):
		}
		notify()
	}
}
