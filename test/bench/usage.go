package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mustermetal/muster/test/rig"
)

// idle is how long a formed cluster is left alone while its processor time is
// taken.
const idle = 30 * time.Second

// usage measures what agent, directory and speaker take on a formed cluster.
func (b *bench) usage(ctx context.Context, r *rig.Rig) ([]result, error) {
	type kind struct {
		name   string
		server string
		memory float64 // budget
	}
	kinds := []kind{{"control plane", "cp1", 70}}
	if b.workers > 0 {
		kinds = append(kinds, kind{"worker", "w1", 20})
	}
	// What starts after the last node is Ready (CoreDNS, caches) is not idleness.
	if err := wait(ctx, idle); err != nil {
		return nil, err
	}
	before := make([]sample, len(kinds))
	for i, k := range kinds {
		var err error
		if before[i], err = take(ctx, r, k.server); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, idle); err != nil {
		return nil, err
	}
	var results []result
	for i, k := range kinds {
		after, err := take(ctx, r, k.server)
		if err != nil {
			return nil, err
		}
		cpu := 100 * (after.cpu - before[i].cpu).Seconds() / after.at.Sub(before[i].at).Seconds()
		results = append(results,
			result{"resident memory on a " + k.name, after.memory, k.memory, "MB"},
			result{"idle processor time on a " + k.name, cpu, 0.5, "% of a core"})
	}
	return results, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// sample is what all processes of the agent's binary on one server have.
type sample struct {
	at     time.Time
	memory float64 // MB
	cpu    time.Duration
}

// take sums RSS (statm, pages of 4 KiB) and processor time (stat, ticks of 10 ms)
// of the processes called bootstrap, proc(5).
func take(ctx context.Context, r *rig.Rig, server string) (sample, error) {
	s, err := r.Server(server)
	if err != nil {
		return sample{}, err
	}
	const script = `for d in /proc/[0-9]*; do
	[ "$(cat $d/comm 2>/dev/null)" = bootstrap ] && cut -d' ' -f2 $d/statm && sed 's/.*) //' $d/stat | cut -d' ' -f12,13
done; true`
	out, err := s.Exec(ctx, "sh", "-c", script)
	if err != nil {
		return sample{}, err
	}
	at := time.Now()
	fields := strings.Fields(out)
	if len(fields) == 0 || len(fields)%3 != 0 {
		return sample{}, fmt.Errorf("on %s no process is called bootstrap, or not all could be read: %q", server, out)
	}
	m := sample{at: at}
	for i := 0; i < len(fields); i += 3 {
		var n [3]int
		for j := range n {
			if n[j], err = strconv.Atoi(fields[i+j]); err != nil {
				return sample{}, fmt.Errorf("reading /proc of %s: %w", server, err)
			}
		}
		m.memory += float64(n[0]) * 4096 / 1e6
		m.cpu += time.Duration(n[1]+n[2]) * 10 * time.Millisecond
	}
	return m, nil
}
