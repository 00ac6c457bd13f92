package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/test/rig"
)

// patience is when a cluster that does not form ends the run.
const patience = 10 * time.Minute

// formation forms clusters by agents and by the script in turn, A B A B, so that
// what else the machine does falls on both, and compares each pair.
func (b *bench) formation(ctx context.Context) ([]result, error) {
	var ratios []float64
	var usage []result
	for pair := range b.pairs {
		agents, err := b.cluster(ctx, "agents", func(ctx context.Context, r *rig.Rig) error {
			_, err := r.AddCluster(ctx, b.userdata, rig.Cluster{Name: "bench", Servers: b.controlPlanes + b.workers, ControlPlanes: b.controlPlanes})
			return err
		}, func(ctx context.Context, r *rig.Rig) (err error) {
			if err := printOverlap(ctx, r); err != nil || pair > 0 {
				return err
			}
			usage, err = b.usage(ctx, r)
			return err
		})
		if err != nil {
			return nil, err
		}
		script, err := b.cluster(ctx, "script", b.addScripted, nil)
		if err != nil {
			return nil, err
		}
		ratio := agents.Seconds() / script.Seconds()
		ratios = append(ratios, ratio)
		fmt.Printf("pair %d of %d: agents %.1f s, script %.1f s, ratio %.2f\n", pair+1, b.pairs, agents.Seconds(), script.Seconds(), ratio)
	}
	formed := result{
		what:  fmt.Sprintf("%d+%d formed by agents / by a script that knows everything, median of %d", b.controlPlanes, b.workers, b.pairs),
		value: median(ratios), budget: 1.0,
	}
	return append([]result{formed}, usage...), nil
}

// cluster forms one cluster and returns the time from the first power-on until an
// API watch has seen the last node become Ready.
func (b *bench) cluster(ctx context.Context, name string, add, after func(context.Context, *rig.Rig) error) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the cluster of the %s is not formed after %v", name, patience))
	defer cancel()
	if err := rig.Destroy(ctx, b.dir, nil); err != nil {
		return 0, err
	}
	r, err := rig.New(ctx, rig.Options{Name: "bench", Dir: b.dir, Image: rig.Image(b.image)})
	if err != nil {
		return 0, err
	}
	defer func() {
		// The deadline may be over; the servers must go all the same.
		err = errors.Join(err, r.Close(context.WithoutCancel(ctx)))
	}()
	if err := add(ctx, r); err != nil {
		return 0, err
	}
	start := time.Now()
	group, booting := errgroup.WithContext(ctx)
	for _, s := range r.Servers() {
		group.Go(func() error { return s.Boot(booting) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	ready, err := b.awaitNodes(ctx, r)
	if err != nil {
		logs := b.dir + "-" + name + "-logs"
		saved := r.CollectLogs(context.WithoutCancel(ctx), logs)
		return 0, errors.Join(fmt.Errorf("cluster of the %s: %w; journals are in %s", name, err, logs), saved)
	}
	took = ready.Sub(start)
	fmt.Fprintf(os.Stderr, "bench: formed by the %s: %.1f s\n", name, took.Seconds())
	if after != nil {
		err = after(ctx, r)
	}
	return took, err
}

// awaitNodes watches the nodes until as many as there are servers are Ready. A
// watch that breaks, as one does while control planes join, is begun again.
func (b *bench) awaitNodes(ctx context.Context, r *rig.Rig) (time.Time, error) {
	ready := map[string]bool{}
	for {
		at, err := watchNodes(ctx, r, ready, b.controlPlanes+b.workers)
		if err == nil {
			return at, nil
		}
		again := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			again.Stop()
			return time.Time{}, errors.Join(context.Cause(ctx), fmt.Errorf("%d of %d nodes are Ready; the last watch: %w", count(ready), b.controlPlanes+b.workers, err))
		case <-again.C:
		}
	}
}

func count(ready map[string]bool) (n int) {
	for _, is := range ready {
		if is {
			n++
		}
	}
	return n
}

func watchNodes(ctx context.Context, r *rig.Rig, ready map[string]bool, want int) (time.Time, error) {
	argv, err := r.KubectlCommand("get", "nodes", "--no-headers", "--watch", "--request-timeout=0")
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return time.Time{}, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return time.Time{}, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		// NAME STATUS ROLES AGE VERSION
		if f := strings.Fields(lines.Text()); len(f) > 1 {
			ready[f[0]] = f[1] == "Ready"
		}
		if count(ready) == want {
			at := time.Now()
			cancel()
			_ = cmd.Wait() // killed
			return at, nil
		}
	}
	return time.Time{}, errors.Join(fmt.Errorf("kubectl says %q", strings.TrimSpace(said.String())), lines.Err(), cmd.Wait())
}

// binary measures the agent as it is shipped, and compressed.
func (b *bench) binary(ctx context.Context) ([]result, error) {
	info, err := os.Stat(b.agent)
	if err != nil {
		return nil, fmt.Errorf("measuring the agent: %w", err)
	}
	cmd := exec.CommandContext(ctx, "xz", "--stdout", "--threads=1", "-6", b.agent)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("compressing %s: %w", filepath.Base(b.agent), err)
	}
	small, err := io.Copy(io.Discard, out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("compressing %s: %w", filepath.Base(b.agent), err)
	}
	const mega = 1e6
	return []result{
		{"bootstrap, stripped", float64(info.Size()) / mega, 30, "MB"},
		{"bootstrap, compressed with xz -6", float64(small) / mega, 8, "MB"},
	}, nil
}
