package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// result is one measured number and the most it may be.
type result struct {
	what   string
	value  float64
	budget float64
	unit   string
}

func (r result) missed() bool { return r.value > r.budget }

// table writes the table and returns how many budgets were missed.
func table(out io.Writer, results []result) (missed int) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEASURED\tBUDGET\t")
	for _, r := range results {
		verdict := ""
		if r.missed() {
			missed++
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%.2f %s\t<= %g %s\t%s\n", r.what, r.value, r.unit, r.budget, r.unit, verdict)
	}
	_ = w.Flush() // to a terminal or a pipe that may be gone
	return missed
}

// median of an odd or even number of values, at least one.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
