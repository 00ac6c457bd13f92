package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/rig"
)

// kubeadmRun is one run of kubeadm on a server. All servers have one clock, the host's.
type kubeadmRun struct{ began, ended time.Time }

// overlap says how the runs of kubeadm lie: how long they took in all, from the first
// beginning to the last end, and how many there were at once at most.
func overlap(runs []kubeadmRun) (sum, span time.Duration, most int) {
	if len(runs) == 0 {
		return 0, 0, 0
	}
	first, last := runs[0].began, runs[0].ended
	for _, r := range runs {
		sum += r.ended.Sub(r.began)
		if r.began.Before(first) {
			first = r.began
		}
		if r.ended.After(last) {
			last = r.ended
		}
		at := 0 // how many run in the moment in which this one begins
		for _, o := range runs {
			if !o.began.After(r.began) && o.ended.After(r.began) {
				at++
			}
		}
		most = max(most, at)
	}
	return sum, last.Sub(first), most
}

// printOverlap tells how kubeadm ran on the servers of a cluster formed by agents.
func printOverlap(ctx context.Context, r *rig.Rig) error {
	var runs []kubeadmRun
	for _, s := range r.Servers() {
		// ExecMain is what ran last, so of a unit that never ran both are empty.
		out, err := s.Exec(ctx, "systemctl", "show", "--timestamp=us+utc", "-p", "ExecMainStartTimestamp", "-p", "ExecMainExitTimestamp", layout.UnitKubeadmInit, layout.UnitKubeadmJoin)
		if err != nil {
			return err
		}
		of, err := kubeadmRuns(out)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		runs = append(runs, of...)
	}
	sum, span, most := overlap(runs)
	fmt.Printf("kubeadm ran %d times for %.1f s in all, within %.1f s, on up to %d servers at once\n", len(runs), sum.Seconds(), span.Seconds(), most)
	return nil
}

// kubeadmRuns reads what systemctl show prints of units, parted by empty lines.
func kubeadmRuns(out string) ([]kubeadmRun, error) {
	var runs []kubeadmRun
	for unit := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		var at [2]time.Time
		for line := range strings.Lines(unit) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			i := slices.Index([]string{"ExecMainStartTimestamp", "ExecMainExitTimestamp"}, key)
			if i < 0 || value == "" || value == "n/a" {
				continue
			}
			t, err := time.Parse("Mon 2006-01-02 15:04:05.999999 MST", value)
			if err != nil {
				return nil, fmt.Errorf("systemctl show: %w", err)
			}
			at[i] = t
		}
		if !at[0].IsZero() && !at[1].IsZero() {
			runs = append(runs, kubeadmRun{at[0], at[1]})
		}
	}
	return runs, nil
}
