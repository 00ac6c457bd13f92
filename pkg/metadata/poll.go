package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mustermetal/muster/pkg/device"
)

// The first retries come soon, because most failures are a network that is just
// coming up; the cap keeps a thousand waiting servers from being a load.
const (
	firstWait = 500 * time.Millisecond
	mostWait  = 10 * time.Second
)

// Policy says when an answer is good enough, and when to give up.
type Policy struct {
	// Deadline bounds all attempts together.
	Deadline time.Duration
	// RequireBGP asks again while a document has no BGP neighbours: platforms add
	// them when a session is created, which may be after the boot.
	RequireBGP bool
}

// errNoBGP is what a document without usable bgp_neighbors is.
var errNoBGP = errors.New("metadata: the document has no BGP neighbours (bgp_neighbors is missing, null, or without peer_ips): enable BGP for the project and create a session for this server; where the platform tells none, write bgpNeighbors into spec.static; or set spec.metadata.requireBGP: false")

// Poll asks until the answer is good enough. report, which may be nil, hears
// every failed attempt: its error, its number from 1, and for how long this has
// been going on. At the deadline Poll returns the last error, wrapped.
func Poll(ctx context.Context, source Source, policy Policy, report func(err error, attempt int, since time.Duration)) (device.Device, error) {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, policy.Deadline)
	defer cancel()
	wait := firstWait
	var last error
	for attempt := 1; ; attempt++ {
		d, err := ask(bounded, source, policy)
		if err == nil {
			return d, nil
		}
		if ctx.Err() != nil {
			return device.Device{}, fmt.Errorf("metadata: stopped at attempt %d: %w", attempt, ctx.Err())
		}
		// An attempt that the deadline cut short says less than the one before.
		if last == nil || bounded.Err() == nil {
			last = err
		}
		if report != nil {
			report(err, attempt, time.Since(began))
		}
		select {
		case <-time.After(wait*3/4 + rand.N(wait/2)):
		case <-bounded.Done():
			if ctx.Err() != nil {
				return device.Device{}, fmt.Errorf("metadata: stopped after attempt %d: %w", attempt, ctx.Err())
			}
			return device.Device{}, fmt.Errorf("no usable metadata within %s, in %d attempts; the last said: %w", policy.Deadline, attempt, last)
		}
		wait = min(2*wait, mostWait)
	}
}

func ask(ctx context.Context, source Source, policy Policy) (device.Device, error) {
	d, err := source.Device(ctx)
	if err != nil {
		return device.Device{}, err
	}
	if policy.RequireBGP && len(d.BGPNeighbors) == 0 {
		return device.Device{}, errNoBGP
	}
	return d, nil
}
