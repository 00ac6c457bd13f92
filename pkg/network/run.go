package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// coalesce gathers the events of one change. With the time of a pass it
	// stays far below the second within which a route must be back.
	coalesce = 200 * time.Millisecond
	// resync finds what no event tells: a link that goes down takes its IPv4
	// routes without saying so.
	resync = 30 * time.Second
	// retryMin and retryMax bound the pause after a pass that failed.
	retryMin, retryMax = time.Second, 30 * time.Second
	// resubscribe is the pause before listening again after the event socket
	// failed, for example because it overflowed.
	resubscribe = time.Second
)

// Run keeps the order until ctx ends: after every event of addresses, routes and
// links, after every Set, and every 30 s. Errors are logged when they change and
// tried again; the only one it returns is that of ctx.
func (r *Reconciler) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.keepWatching(ctx, notify)
	}()
	defer func() { <-watched }()

	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry, last := retryMin, ""
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.wake:
			due = time.Now()
		case <-changed:
			if soon := time.Now().Add(coalesce); soon.Before(due) {
				due = soon
			}
		case <-timer.C:
			err := r.lockedPass(ctx)
			next := resync
			if err != nil {
				next, retry = retry, min(2*retry, retryMax)
			} else {
				retry = retryMin
			}
			last = r.report(ctx, err, last)
			due = time.Now().Add(next)
		}
		timer.Reset(time.Until(due))
	}
}

func (r *Reconciler) lockedPass(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pass(ctx)
}

// report logs an error when it differs from the last one, and the end of one.
func (r *Reconciler) report(ctx context.Context, err error, last string) string {
	switch {
	case err != nil && ctx.Err() != nil:
		return last
	case err == nil && last != "":
		r.log.Info("addresses and routes are as planned again")
		return ""
	case err != nil && err.Error() != last:
		r.log.Error("addresses and routes are not as planned", "err", err)
		return err.Error()
	}
	return last
}

// keepWatching listens to the kernel until ctx ends, and starts over when that
// fails. After a gap everything may have changed, so it says so.
func (r *Reconciler) keepWatching(ctx context.Context, notify func()) {
	for ctx.Err() == nil {
		err := r.watch(ctx, notify)
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("listening to address, route and link events failed, starting over", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(resubscribe):
		}
		notify()
	}
}

// watchKernel calls changed after every address, host route and link event of
// this network namespace until ctx ends or the event socket fails.
func watchKernel(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to netlink events: %w", err)
	}
	defer context.AfterFunc(ctx, s.Close)()
	defer s.Close()
	changed() // what happened before the subscription
	for {
		messages, from, err := s.Receive()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, unix.ENOBUFS) {
				return errors.New("more netlink events than the socket's buffer holds")
			}
			return fmt.Errorf("receive netlink events: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue // another process may send to our socket
		}
		for _, m := range messages {
			if relevant(m.Header.Type, m.Data) {
				changed()
			}
		}
	}
}

// relevant leaves out routes to whole networks: a CNI changes many, and none of
// them is ours.
func relevant(kind uint16, data []byte) bool {
	if kind != unix.RTM_NEWROUTE && kind != unix.RTM_DELROUTE {
		return true
	}
	// struct rtmsg begins with rtm_family, rtm_dst_len.
	return len(data) >= 2 && (data[0] == unix.AF_INET && data[1] == 32 || data[0] == unix.AF_INET6 && data[1] == 128)
}
