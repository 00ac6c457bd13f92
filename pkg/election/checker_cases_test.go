package election

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// deep asks for the cases that take minutes: make check-fence.
var deep = flag.Bool("deep", false, "search the large cases of the fence too")

// fenceCase is one search.
type fenceCase struct {
	title     string // where n, x and q do not say it
	n, x, q   int    // as printed
	cfgs      []Config
	servers   []serverCase
	proposers int // the first servers; they may propose
	wipes     int
	copies    bool     // a wiped disk is one put back from a copy: the same instance
	attempts  int      // ballots in all
	beyond    int      // and so many more that follow a decision by themselves
	reduced   bool     // with the reductions 6 and 7: only while one slot is searched
	settled   int      // slots that are decided when the search begins: with the reductions 8 to 11
	goFit     bool     // LEADER is followed by GO
	rerender  bool     // a server may boot with any of cfgs
	mutant    string   // a driver that is wrong, or none
	acts      []Event  // an operator's orders to servers that propose
	order     Event    // one that comes with every attempt
	prologue  []string // steps before the search, by how they begin in a trace
	start     func(x *table, i int) *State
	turned    func(question) bool
	holds     func([]question) string
}

type serverCase struct {
	cfg   int     // index into cfgs
	group int     // servers of one group that never propose are alike
	tries [][]int // what it may see when it proposes
}

func (f *fenceCase) property(facts []question) string {
	if f.holds != nil {
		return f.holds(facts)
	}
	return oneDecree(facts)
}

func (f *fenceCase) disk(x *table, i int) *State {
	if f.start == nil {
		return nil
	}
	return f.start(x, i)
}

// oneDecree demands that no two different values are decided in one slot.
func oneDecree(facts []question) string {
	for i, a := range facts {
		for _, b := range facts[:i] {
			for k := range min(len(a.m.Decided), len(b.m.Decided)) {
				if a.m.Decided[k] != b.m.Decided[k] {
					return fmt.Sprintf("slot %d decided both %s and %s", k, a.m.Decided[k].describe(), b.m.Decided[k].describe())
				}
			}
		}
	}
	return ""
}

// oneGo demands that no two instances ever hold GO.
func oneGo(facts []question) string {
	var held []string
	for _, f := range facts {
		if strings.HasPrefix(f.fact, "GO is held by ") {
			held = append(held, f.fact)
		}
	}
	if len(held) > 1 {
		slices.Sort(held)
		return strings.Join(held, ", ")
	}
	return ""
}

// alike is a case of n+x servers with one configuration, of which the first p
// propose, each seeing q-1 others, if possible such that do not propose.
func alike(n, x, q, wipes, p, attempts int) *fenceCase {
	f := &fenceCase{n: n, x: x, q: q, cfgs: []Config{uniform(n, q)}, reduced: true, proposers: min(p, n+x), wipes: wipes, attempts: attempts}
	for i := range n + x {
		var s serverCase
		if i < f.proposers {
			s.tries = [][]int{others(n+x, f.proposers, i, q-1)}
		}
		f.servers = append(f.servers, s)
	}
	return f
}

// others are k of m servers without i, those that never propose first.
func others(m, proposers, i, k int) []int {
	var out []int
	for j := range m {
		if j = (proposers + j) % m; j != i && len(out) < k {
			out = append(out, j)
		}
	}
	return out
}

// uniform is a configuration by numbers, for quorums that no rule gives too.
func uniform(n, q int) Config {
	c := testConfig(n, cluster.QuorumSafe)
	c.Q = q
	return c
}

// String names a case as the table in docs/fence.md does: N servers expected and
// x more, quorum q, W wipes, P servers that propose, B attempts in all.
func (f *fenceCase) String() string {
	title := f.title
	if title == "" {
		title = fmt.Sprintf("N=%d x=%d q=%d", f.n, f.x, f.q)
	}
	return fmt.Sprintf("%s W=%d P=%d B=%d", title, f.wipes, f.proposers, f.attempts)
}

// search runs a case and demands the verdict. Outside of what the fence tolerates
// a violation must be found, or the search is blind.
func (f *fenceCase) search(t *testing.T, safe, large bool) verdict {
	t.Helper()
	switch {
	case raced:
		t.Skip("one goroutine: nothing for the race detector")
	case large && !*deep:
		t.Skip("large: make check-fence")
	case testing.Short() && (f.attempts > 2 || f.goFit || f.wipes > 2):
		t.Skip("short")
	}
	c := newChecker(t, f)
	v := c.run(limitStates)
	text := "safe"
	switch {
	case v.broken != "":
		text = "VIOLATED: " + v.broken
	case !v.full:
		text = "safe as far as searched"
	}
	t.Logf("%s: %d states, %d transitions, %.1f s, %s (%s)", f, v.states, v.moves, v.took.Seconds(), text, c)
	if safe && v.broken != "" {
		t.Errorf("%s:\n%s", v.broken, strings.Join(v.trace, "\n"))
	}
	if safe && !v.full {
		t.Errorf("not searched to the end: more than %d states", limitStates)
	}
	if !safe {
		if v.broken == "" {
			t.Error("expected a violation: the search does not see what it is for")
		}
		t.Log("\n" + strings.Join(v.trace, "\n"))
	}
	return v
}

// limitStates bounds the memory of a search: some 40 bytes each.
const limitStates = 120_000_000

// demand fails when a search never came across something.
func demand(t *testing.T, c coverage, what ...string) {
	t.Helper()
	counts := map[string]int{
		"begun": c.begun, "promised": c.promised, "nacked": c.nacked, "accepted": c.accepted, "decided": c.decided, "learned": c.learned,
		"adopted": c.adopted, "lost": c.lost, "crashed": c.crashed, "wiped": c.wiped, "abdicated": c.abdicated, "lowered": c.lowered, "superseded": c.superseded,
		"asked": c.asked, "held": c.held, "stood": c.stood,
	}
	for _, w := range what {
		if n, ok := counts[w]; !ok || n == 0 {
			t.Errorf("the search never came across %q: %+v", w, c)
		}
	}
}
