package election

import (
	"fmt"
	"slices"
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

// succession is a case of n servers, q of which decided GO for the first, the only
// ones or with all others: voted is how many beside it are witnesses. An operator
// orders p-1 of them to supersede it. With every move, or with the reductions 8 to 11.
func succession(n, voted, wipes, p, attempts int, mutant string, every bool) *fenceCase {
	q := Quorum(n, "")
	f := alike(n, 0, q, wipes, p, attempts)
	f.reduced, f.goFit, f.mutant = false, true, mutant
	f.order, f.turned, f.holds = Supersede{Epoch: 0, Dead: "hw0"}, supersession, superseded
	f.title = fmt.Sprintf("supersede, N=%d q=%d, %d witnesses", n, q, 1+voted)
	if every {
		f.title = "every move, " + f.title
	} else {
		f.settled = 2
	}
	if mutant != "" {
		f.title += ", a server that " + mutant
	}
	f.servers[0].tries = [][]int{others(n, p, 0, q-1)}
	for i := 1; i < p; i++ {
		living := slices.DeleteFunc(others(n, p, i, n-1), func(j int) bool { return j == 0 })
		f.servers[i].tries = [][]int{living[:Majority(n)-1]}
	}
	f.prologue = []string{"server 0 tries"}
	for slot := range 2 {
		step := func(i int, gets string) {
			f.prologue = append(f.prologue, fmt.Sprintf("server %d gets %s(slot %d", i, gets, slot))
		}
		for i := range voted {
			step(i+1, "prepare")
		}
		step(0, "promise")
		for i := range voted { // the last named of those that are alike is listed first
			step(voted-i, "accept")
		}
		step(0, "accepted")
	}
	return f
}

// TestFenceSuperseded searches what follows when an operator supersedes the holder
// of GO that is not dead: it may run on, but once it rebooted it never rises.
func TestFenceSuperseded(t *testing.T) {
	for _, x := range []struct {
		n, voted, w, p, b int
		mutant            string
		every, found      bool
		deep              bool
	}{
		{n: 3, voted: 2, w: 0, p: 3, b: 4, every: true},
		{n: 3, voted: 2, w: 1, p: 3, b: 4, every: true, deep: true},
		{n: 3, voted: 2, w: 1, p: 3, b: 4, every: true, mutant: credulous, found: true},
		{n: 3, voted: 2, w: 1, p: 3, b: 5},
		{n: 3, voted: 2, w: 2, p: 3, b: 4, found: true},
		{n: 4, voted: 3, w: 2, p: 3, b: 4},
		{n: 4, voted: 3, w: 3, p: 3, b: 4, found: true},
		{n: 5, voted: 3, w: 0, p: 3, b: 5},
		{n: 5, voted: 3, w: 1, p: 3, b: 4},
		{n: 5, voted: 3, w: 1, p: 3, b: 4, mutant: credulous, found: true},
		{n: 5, voted: 4, w: 0, p: 3, b: 6, deep: true},
		{n: 5, voted: 4, w: 0, p: 4, b: 5, deep: true},
		{n: 5, voted: 3, w: 1, p: 3, b: 5, deep: true},
		{n: 5, voted: 4, w: 1, p: 3, b: 5, deep: true},
		{n: 5, voted: 3, w: 2, p: 3, b: 4, found: true, deep: true},
		{n: 6, voted: 4, w: 2, p: 3, b: 4, deep: true},
	} {
		f := succession(x.n, x.voted, x.w, x.p, x.b, x.mutant, x.every)
		t.Run(f.String(), func(t *testing.T) {
			if within := x.w <= 2*Majority(x.n)-x.n; within != (!x.found || x.mutant != "") {
				t.Fatalf("%d wiped of %d: within the law %v", x.w, x.n, within)
			}
			v := f.search(t, !x.found, x.deep)
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "learned", "superseded")
			if x.every {
				demand(t, v.cov, "held", "stood", "asked")
			} else if x.n > 4 { // of fewer, all others are needed to supersede, and none is left to ask
				demand(t, v.cov, "asked")
			}
			if x.b > 4 {
				demand(t, v.cov, "nacked")
			}
		})
	}
}

// TestReductionsSuperseded searches small cases with the reductions 8 to 11 and
// without: the verdict is one, and so are the decrees that supersede.
func TestReductionsSuperseded(t *testing.T) {
	for _, x := range []struct {
		n, w, b int
		mutant  string
		deep    bool
	}{
		{n: 3, w: 0, b: 4}, {n: 3, w: 1, b: 4, mutant: credulous}, {n: 3, w: 1, b: 4, deep: true},
	} {
		var verdicts []verdict
		var decrees [][]string
		for _, every := range []bool{true, false} {
			f := succession(x.n, x.n-1, x.w, 3, x.b, x.mutant, every)
			t.Run(f.String(), func(t *testing.T) {
				if raced || x.deep && !*deep {
					t.Skip("large: make check-fence")
				}
				c := newChecker(t, f)
				verdicts = append(verdicts, c.run(limitStates))
				decrees = append(decrees, c.decrees(2))
			})
		}
		if len(verdicts) < 2 {
			continue
		}
		if a, b := verdicts[0], verdicts[1]; a.broken != b.broken || !a.full || !b.full || b.states >= a.states {
			t.Errorf("N=%d W=%d: every move: %q in %d states; reduced: %q in %d", x.n, x.w, a.broken, a.states, b.broken, b.states)
		}
		if !slices.Equal(decrees[0], decrees[1]) || len(decrees[0]) < 2 {
			t.Errorf("N=%d W=%d: decrees %q, reduced %q", x.n, x.w, decrees[0], decrees[1])
		}
	}
}
