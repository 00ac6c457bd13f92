package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults"
	"github.com/mustermetal/muster/test/faults/fabric"
)

// fence measures the vote on light servers: real agents on real systemd, without
// Kubernetes.
func (b *bench) fence(ctx context.Context) (results []result, err error) {
	lab, err := faults.New(ctx, faults.Options{Cache: b.cache, Agent: b.agent, Seed: rand.Uint64(), Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close(context.WithoutCancel(ctx))) }()
	var took []float64
	for i := range b.formations {
		seconds, err := b.decide(ctx, lab)
		if err != nil {
			return nil, err
		}
		took = append(took, seconds)
		fmt.Fprintf(os.Stderr, "bench: vote %d of %d: %.3f s\n", i+1, b.formations, seconds)
	}
	results = append(results, result{fmt.Sprintf("q visible -> GO decided, all fit, median of %d", b.formations), median(took), 0.1, "s"})
	for _, n := range []int{3, 5, 10} {
		var took []float64
		starts := max(1, b.formations/4)
		for i := range starts {
			seconds, err := b.start(ctx, lab, n)
			if err != nil {
				return nil, err
			}
			took = append(took, seconds)
			fmt.Fprintf(os.Stderr, "bench: start %d of %d with N = %d: %.3f s\n", i+1, starts, n, seconds)
		}
		results = append(results, result{fmt.Sprintf("last agent started -> GO, N = %d, median of %d", n, len(took)), median(took), 2, "s"})
	}
	return results, nil
}

// patience of one light cluster.
const lightPatience = 3 * time.Minute

// decide lets three servers prepare out of sight of each other, then lets them see
// each other, and returns the seconds that the leader then took to GO.
func (b *bench) decide(ctx context.Context, lab *faults.Lab) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lightPatience)
	defer cancel()
	defer func() { err = errors.Join(err, lab.Clear(context.WithoutCancel(ctx))) }()
	servers, err := light(lab, 3, false)
	if err != nil {
		return 0, err
	}
	for _, a := range servers {
		for _, b := range servers {
			lab.Switch.Set(a.Name, b.Name, fabric.Rule{Cut: true})
		}
		if err := a.On(ctx); err != nil {
			return 0, err
		}
	}
	for _, s := range servers {
		if err := prepared(ctx, s); err != nil {
			return 0, err
		}
	}
	lab.Switch.Reset()
	phases, _, err := leader(ctx, servers)
	if err != nil {
		return 0, err
	}
	return phases[member.Deciding].Seconds(), nil
}

// start boots n servers without their agents, starts all of these at once, and
// returns the seconds from the start of the last process to GO at the leader.
func (b *bench) start(ctx context.Context, lab *faults.Lab, n int) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lightPatience)
	defer cancel()
	defer func() { err = errors.Join(err, lab.Clear(context.WithoutCancel(ctx))) }()
	servers, err := light(lab, n, true)
	if err != nil {
		return 0, err
	}
	booting, booted := errgroup.WithContext(ctx)
	for _, s := range servers {
		booting.Go(func() error {
			if err := s.On(booted); err != nil {
				return err
			}
			return s.WaitRunning(booted)
		})
	}
	if err := booting.Wait(); err != nil {
		return 0, err
	}
	starting, started := errgroup.WithContext(ctx)
	for _, s := range servers {
		starting.Go(func() error {
			_, err := s.Exec(started, "systemctl", "start", "muster.service")
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return 0, err
	}
	var last time.Time
	for _, s := range servers {
		at, err := s.Started("muster.service")
		if err != nil {
			return 0, err
		}
		if at.After(last) {
			last = at
		}
	}
	phases, ready, err := leader(ctx, servers)
	if err != nil {
		return 0, err
	}
	// Phases follow each other without a gap, so GO was when the first began that
	// comes after it.
	gone := ready
	for _, p := range []member.Phase{member.Enrolling, member.Preparing, member.Initialising, member.Waiting} {
		gone = gone.Add(-phases[p])
	}
	return gone.Sub(last).Seconds(), nil
}

func light(lab *faults.Lab, n int, idle bool) ([]*faults.Server, error) {
	names := []string{"cp1"}
	for i := range n - 1 {
		names = append(names, fmt.Sprintf("w%d", i+1))
	}
	plan, err := faults.NewPlan(n, 1, names...)
	if err != nil {
		return nil, err
	}
	data, err := plan.Render()
	if err != nil {
		return nil, err
	}
	var servers []*faults.Server
	for i, name := range names {
		s, err := lab.Add(name, i+1, data)
		if err != nil {
			return nil, err
		}
		s.Idle = idle
		servers = append(servers, s)
	}
	return servers, nil
}

// prepared waits until the journal says that a host is.
func prepared(ctx context.Context, s *faults.Server) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := s.Journal(ctx, "--output=cat", "--unit=muster.service")
		if err != nil {
			return err
		}
		if strings.Contains(out, `msg="host prepared"`) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not get prepared: %w", s.Name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// phaseLine is the agent's line at the end of a phase.
var phaseLine = regexp.MustCompile(`msg=phase phase=\S+ before=(\S+) took=(\S+)`)

// leader waits for the first control plane, the one that may be one, and returns how
// long its phases took and when it was ready.
func leader(ctx context.Context, servers []*faults.Server) (phases map[member.Phase]time.Duration, ready time.Time, err error) {
	if _, err := faults.AwaitFormed(ctx, servers[:1], 1); err != nil {
		return nil, ready, err
	}
	status, err := servers[0].Status(ctx)
	if err != nil {
		return nil, ready, err
	}
	out, err := servers[0].Journal(ctx, "--output=cat", "--unit=muster.service")
	if err != nil {
		return nil, ready, err
	}
	phases = map[member.Phase]time.Duration{}
	for _, m := range phaseLine.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(m[2])
		if err != nil {
			return nil, ready, fmt.Errorf("the journal of %s: %q: %w", servers[0].Name, m[0], err)
		}
		phases[member.Phase(m[1])] += d
	}
	if !slices.Contains([]member.Phase{member.Ready}, status.Phase) || phases[member.Deciding] == 0 {
		return nil, ready, fmt.Errorf("%s is %s, and its journal says of its phases: %v", servers[0].Name, status.Phase, phases)
	}
	return phases, status.Since, nil
}
