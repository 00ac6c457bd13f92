package election

import (
	"fmt"
	"testing"
)

// once demands one decree and one holder of GO.
func once(facts []question) string {
	if broken := oneDecree(facts); broken != "" {
		return broken
	}
	return oneGo(facts)
}

// TestFenceGo searches LEADER, then GO or ABDICATE, and the next epoch.
func TestFenceGo(t *testing.T) {
	for _, x := range []struct {
		n, x, q, w, b, beyond int
		deep                  bool
	}{
		{n: 2, q: 2, w: 1, b: 3},
		{n: 3, q: 2, w: 0, b: 3},
		{n: 3, q: 3, w: 1, b: 3, deep: true},
		{n: 3, q: 2, w: 1, b: 2, beyond: 2},
		{n: 3, x: 1, q: 2, w: 0, b: 2, beyond: 2, deep: true},
	} {
		f := alike(x.n, x.x, x.q, x.w, 2, x.b)
		f.reduced, f.goFit, f.holds, f.beyond = false, true, once, x.beyond
		f.title = fmt.Sprintf("LEADER and GO, N=%d x=%d q=%d", x.n, x.x, x.q)
		safe := x.w+x.x <= Tolerated(x.n, x.q)
		if !safe {
			f.holds = oneGo // not already at two leaders
		}
		t.Run(f.String(), func(t *testing.T) {
			v := f.search(t, safe, x.deep)
			demand(t, v.cov, "begun", "promised", "nacked", "accepted", "decided", "learned", "adopted", "lost", "crashed", "held", "stood")
			if x.b > 2 && x.n > x.q {
				demand(t, v.cov, "abdicated")
			}
		})
	}
}
