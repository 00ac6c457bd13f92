package election

import (
	"fmt"
	"testing"
)

// TestFenceLowered searches servers of which any may be ordered, at any moment, to
// decide by a majority, while others still ask for more and the word spreads. The
// law holds with the smallest quorum: both sides of a 3|2 split may be impatient.
func TestFenceLowered(t *testing.T) {
	for _, x := range []struct {
		n, w, b int
		deep    bool
	}{
		{n: 3, w: 0, b: 2},
		{n: 3, w: 1, b: 2},
		{n: 3, w: 0, b: 3, deep: true},
		{n: 5, w: 0, b: 2, deep: true},
		{n: 5, w: 1, b: 2, deep: true},
	} {
		safe, majority := Quorum(x.n, ""), Majority(x.n)
		f := alike(x.n, 0, safe, x.w, 2, x.b)
		f.title = fmt.Sprintf("quorum --majority, N=%d q=%d to %d", x.n, safe, majority)
		f.acts = []Event{Lower{}}
		for i := range f.proposers {
			f.servers[i].tries = append(f.servers[i].tries, others(x.n, 2, i, majority-1))
		}
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, x.w <= Tolerated(x.n, majority), x.deep)
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "adopted", "lowered")
		})
	}
}

// superseded demands that nobody's GO stands on a server that booted after the
// decree which supersedes it, beside one decree and one holder in each epoch.
func superseded(facts []question) string {
	for _, f := range facts {
		if f.fact == "GO of epoch 0 stands on inst0.0 since hw0-boot1" {
			return f.fact + ", which is after it was superseded"
		}
	}
	return oneDecree(facts)
}

// supersession is the decree that replaces a holder of GO.
func supersession(q question) bool {
	return len(q.m.Decided) > 2 && q.m.Decided[2].Supersedes != ""
}

// TestFenceSuperseded searches what follows when an operator supersedes the holder
// of GO that is not dead: it may run on, but once it rebooted it never rises.
func TestFenceSuperseded(t *testing.T) {
	for _, x := range []struct {
		w, b   int
		mutant string
		safe   bool
		deep   bool
	}{
		{w: 0, b: 4, safe: true},
		{w: 1, b: 4, safe: true, deep: true},
		{w: 1, b: 4, mutant: credulous},
	} {
		f := alike(3, 0, 3, x.w, 3, x.b)
		f.title = "supersede, N=3 q=3"
		if x.mutant != "" {
			f.title += ", a server that " + x.mutant
		}
		f.reduced, f.goFit, f.mutant = false, true, x.mutant
		f.order, f.turned, f.holds = Supersede{Epoch: 0, Dead: "hw0"}, supersession, superseded
		f.servers[0].tries = [][]int{{1, 2}}
		f.servers[1].tries, f.servers[2].tries = [][]int{{2}}, [][]int{{1}}
		f.prologue = []string{"server 0 tries"}
		for slot := range 2 {
			for _, step := range []string{"1 gets prepare", "2 gets prepare", "0 gets promise", "1 gets accept", "2 gets accept", "0 gets accepted"} {
				f.prologue = append(f.prologue, fmt.Sprintf("server %s(slot %d", step, slot))
			}
		}
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, x.safe, x.deep)
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "learned", "held", "stood", "superseded", "asked")
		})
	}
}
