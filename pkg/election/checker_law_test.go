package election

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestFenceLaw searches one slot inside and just outside of what the law
// tolerates. Inside it must be safe, outside the violation must be found.
func TestFenceLaw(t *testing.T) {
	for _, x := range []struct {
		n, x, q, w, p, b int
		deep             bool
	}{
		{n: 1, q: 1, w: 0, p: 1, b: 3},
		{n: 1, q: 1, w: 1, p: 1, b: 2},
		{n: 1, x: 1, q: 1, w: 0, p: 2, b: 2},
		{n: 2, q: 2, w: 1, p: 2, b: 3},
		{n: 2, x: 1, q: 2, w: 0, p: 2, b: 3},
		{n: 2, q: 2, w: 2, p: 2, b: 2},
		{n: 2, x: 1, q: 2, w: 1, p: 2, b: 2},
		{n: 3, q: 2, w: 0, p: 3, b: 3},
		{n: 3, q: 2, w: 0, p: 2, b: 4, deep: true},
		{n: 3, q: 2, w: 1, p: 2, b: 2},
		{n: 3, x: 1, q: 2, w: 0, p: 2, b: 2},
		{n: 3, q: 3, w: 2, p: 2, b: 2},
		{n: 3, q: 3, w: 2, p: 2, b: 3, deep: true},
		{n: 3, x: 2, q: 3, w: 0, p: 2, b: 3, deep: true},
		{n: 3, x: 1, q: 3, w: 1, p: 2, b: 3, deep: true},
		{n: 3, x: 2, q: 3, w: 0, p: 2, b: 2},
		{n: 3, x: 1, q: 3, w: 1, p: 2, b: 2},
		{n: 3, q: 3, w: 3, p: 2, b: 2},
		{n: 3, x: 1, q: 3, w: 2, p: 2, b: 2, deep: true},
		{n: 3, x: 2, q: 3, w: 1, p: 2, b: 2, deep: true},
		{n: 3, x: 3, q: 3, w: 0, p: 2, b: 2},
		{n: 4, q: 2, w: 0, p: 2, b: 2}, // two halves: no rule gives this quorum
		{n: 4, q: 3, w: 1, p: 2, b: 2},
		{n: 4, q: 3, w: 1, p: 2, b: 3, deep: true},
		{n: 4, x: 1, q: 3, w: 0, p: 2, b: 3, deep: true},
		{n: 4, x: 1, q: 3, w: 0, p: 2, b: 2},
		{n: 4, q: 3, w: 2, p: 2, b: 2},
		{n: 4, x: 1, q: 3, w: 1, p: 2, b: 2},
		{n: 4, x: 2, q: 3, w: 0, p: 2, b: 2},
		{n: 5, q: 3, w: 0, p: 2, b: 3},
		{n: 5, q: 3, w: 1, p: 2, b: 2},
		{n: 5, x: 1, q: 3, w: 0, p: 2, b: 2},
		{n: 5, q: 4, w: 2, p: 2, b: 2},
		{n: 5, x: 1, q: 4, w: 1, p: 2, b: 2},
		{n: 5, q: 4, w: 3, p: 2, b: 2},
		{n: 5, x: 1, q: 4, w: 2, p: 2, b: 2, deep: true},
		{n: 3, q: 2, w: 0, p: 2, b: 5, deep: true},
		{n: 5, q: 3, w: 0, p: 3, b: 3, deep: true},
		{n: 4, q: 3, w: 1, p: 3, b: 3, deep: true},
		{n: 5, q: 4, w: 2, p: 2, b: 3, deep: true},
		{n: 6, q: 5, w: 3, p: 2, b: 2, deep: true},
		{n: 6, q: 5, w: 4, p: 2, b: 2, deep: true},
		{n: 6, q: 4, w: 1, p: 2, b: 2, deep: true},
	} {
		f := alike(x.n, x.x, x.q, x.w, x.p, x.b)
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, x.w+x.x <= Tolerated(x.n, x.q), x.deep)
			if x.q == 1 {
				return // decided as soon as it boots, without a message
			}
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "adopted", "lost", "crashed")
			if x.b > 2 {
				demand(t, v.cov, "nacked")
			}
			if x.w > 0 {
				demand(t, v.cov, "wiped")
			}
		})
	}
}

// TestFenceCopiedDisks searches disks that are put back from an old copy: the same
// instance, which forgot what it promised. It counts as a wiped one, because its
// ballots carry the run of its agent; without that, it would use one ballot twice.
func TestFenceCopiedDisks(t *testing.T) {
	for _, x := range []struct {
		n, q, w, b int
		mutant     string
		deep       bool
	}{
		{n: 2, q: 2, w: 1, b: 3},
		{n: 3, q: 3, w: 2, b: 2},
		{n: 4, q: 3, w: 1, b: 2},
		{n: 4, q: 3, w: 1, b: 3, deep: true},
		{n: 3, q: 2, w: 1, b: 2},
		{n: 4, q: 3, w: 2, b: 2},
		{n: 4, q: 3, w: 1, b: 3, mutant: oneRun, deep: true},
	} {
		f := alike(x.n, 0, x.q, x.w, 2, x.b)
		f.copies, f.mutant = true, x.mutant
		f.title = fmt.Sprintf("disks put back from copies, N=%d q=%d", x.n, x.q)
		if x.mutant != "" {
			f.title += ", an agent that " + x.mutant
		}
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, x.w <= Tolerated(x.n, x.q) && x.mutant == "", x.deep)
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "lost", "crashed", "wiped")
		})
	}
}

// TestFenceTable holds the table of docs/fence.md to the code.
func TestFenceTable(t *testing.T) {
	data, err := os.ReadFile("../../docs/fence.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]int{}
	rule := ""
	for _, line := range strings.Split(string(data), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		name := strings.TrimSpace(cells[0])
		if m := regexp.MustCompile("^q \\(`(.*)`\\)$").FindStringSubmatch(name); m != nil {
			rule, name = m[1], "q"
		}
		if name != "N" && (rule == "" || len(cells) != len(rows["N"])+1) {
			continue
		}
		for _, c := range cells[1:] {
			k, err := strconv.Atoi(strings.TrimSpace(c))
			if err != nil {
				t.Fatalf("%q in %q is no number", c, line)
			}
			rows[strings.TrimSpace(rule+" "+strings.Split(name, ",")[0])] = append(rows[strings.TrimSpace(rule+" "+strings.Split(name, ",")[0])], k)
		}
	}
	if len(rows["N"]) < 5 {
		t.Fatalf("the table of docs/fence.md begins with %v, expected the row N", rows["N"])
	}
	for _, rule := range []string{cluster.QuorumSafe, cluster.QuorumMajority} {
		for i, n := range rows["N"] {
			q := Quorum(n, rule)
			for row, want := range map[string]int{"q": q, "may be absent": n - q, "wiped + extra tolerated": Tolerated(n, q)} {
				got := rows[rule+" "+row]
				if len(got) != len(rows["N"]) || got[i] != want {
					t.Errorf("docs/fence.md, %s, %s, N=%d: %v, expected %d", rule, row, n, got, want)
				}
			}
		}
	}
}

// TestRulesTolerate holds the quorums that the rules give to the law.
func TestRulesTolerate(t *testing.T) {
	for n := 1; n <= 1000; n++ {
		safe, majority := Quorum(n, cluster.QuorumSafe), Quorum(n, cluster.QuorumMajority)
		if Tolerated(n, majority) < 0 || Tolerated(n, safe) < (n-1)/3 || n-safe != (n-1)/3 || majority != Majority(n) {
			t.Errorf("n=%d: safe %d tolerates %d, majority %d tolerates %d", n, safe, Tolerated(n, safe), majority, Tolerated(n, majority))
		}
	}
}

// TestReductionsAgree searches small cases with the reductions 6 and 7 and
// without: the verdict is one.
func TestReductionsAgree(t *testing.T) {
	for _, x := range []struct{ n, x, q, w, b int }{
		{2, 0, 2, 1, 2}, {2, 0, 2, 2, 2}, {3, 0, 2, 0, 2}, {3, 0, 2, 1, 2}, {3, 1, 2, 0, 2}, {3, 0, 3, 2, 2}, {4, 0, 3, 0, 2},
	} {
		f := alike(x.n, x.x, x.q, x.w, 2, x.b)
		f.reduced, f.title = false, fmt.Sprintf("every move, N=%d x=%d q=%d", x.n, x.x, x.q)
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, x.w+x.x <= Tolerated(x.n, x.q), false)
			demand(t, v.cov, "begun", "promised", "nacked", "accepted", "decided", "learned", "adopted", "lost", "crashed")
		})
	}
}
