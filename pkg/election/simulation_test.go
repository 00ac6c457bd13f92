package election

import (
	"flag"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "play one schedule of TestSimulation and print its trace")
	schedulesFlag = flag.Int("schedules", 0, "how many schedules TestSimulation plays, without a limit of time; "+
		"0: 200,000, or as many as fit in 100 s, and 5,000 with -short or -race; another number also makes the tests of mutants play all of theirs")
)

// lawful are the clusters of the simulation, with as much harm as the law
// 2q-N-1 allows.
var lawful = []size{
	{1, 1, 0}, {2, 2, 1}, {3, 3, 2}, {3, 2, 0}, {4, 3, 1}, {5, 4, 2}, {5, 3, 0}, {6, 5, 3}, {7, 5, 2},
	{3, 3, 0}, {4, 3, 0}, {5, 4, 1},
}

// tally is what many schedules came to.
type tally struct {
	schedules, steps int
	failures         int    // of a mutant only two decrees
	first            uint64 // lowest seed that failed
	seen             [32]int
}

// add notes what a schedule came to, and returns how many failures that is.
func (t *tally) add(seed uint64, w *sim) int {
	t.schedules++
	t.steps += w.steps
	for i := range t.seen {
		if w.seen&(1<<i) != 0 {
			t.seen[i]++
		}
	}
	if w.failure == "" || w.mut.broken() && !w.breach {
		return 0 // a broken fence may also get nowhere
	}
	t.failures++
	if t.first == 0 || seed < t.first {
		t.first = seed
	}
	return 1
}

func (t *tally) merge(o tally) {
	if o.first > 0 && (t.first == 0 || o.first < t.first) {
		t.first = o.first
	}
	t.schedules += o.schedules
	t.steps += o.steps
	t.failures += o.failures
	for i := range t.seen {
		t.seen[i] += o.seen[i]
	}
}

// simulate plays the schedules of seeds 1 to count on all cores, until the time
// is up or so many failed.
func simulate(count int, limit time.Duration, sizes []size, m mutant, failures int64) tally {
	end := time.Now().Add(limit)
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // short-lived values only
	var next atomic.Uint64
	var failed atomic.Int64
	var mu sync.Mutex
	var all tally
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var own tally
			for seed := next.Add(1); seed <= uint64(count) && failed.Load() < failures && time.Now().Before(end); seed = next.Add(1) {
				w := newSim(seed, sizes, m, false)
				w.run()
				failed.Add(int64(own.add(seed, w)))
			}
			mu.Lock()
			defer mu.Unlock()
			all.merge(own)
		})
	}
	workers.Wait()
	return all
}

// replay plays one schedule again and returns its trace.
func replay(seed uint64, sizes []size, m mutant) (trace, failure string) {
	w := newSim(seed, sizes, m, true)
	w.run()
	if head, tail := 1000, 100; len(w.trace) > head+tail {
		w.trace = slices.Insert(w.trace[:head:head], head, append([]string{"..."}, w.trace[len(w.trace)-tail:]...)...)
	}
	return strings.Join(w.trace, "\n"), w.failure
}

// TestSimulation plays random schedules of lost, doubled and late messages,
// crashes in and between effects, power loss, reboots, wiped, damaged and put
// back disks, extra servers, partitions, wrong views, other user-data and timers
// at any moment. Never do two instances hold GO, and never do decrees differ. At
// the end all is healed, and every server learns one decree.
//
//	go test ./pkg/election/ -run TestSimulation -seed N
//
// plays one schedule with its trace.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		trace, failure := replay(*seedFlag, lawful, mutant{})
		t.Log("\n" + trace)
		if failure != "" {
			t.Errorf("seed %d: %s", *seedFlag, failure)
		}
		return
	}
	for _, z := range lawful {
		if z.harm > Tolerated(z.n, z.q) {
			t.Fatalf("%+v is outside the law", z)
		}
	}
	count, limit := *schedulesFlag, 24*time.Hour
	if count == 0 {
		count, limit = 200_000, 100*time.Second
		if testing.Short() || raced {
			count = 5_000
		}
	}
	begin := time.Now()
	got := simulate(count, limit, lawful, mutant{}, 1)
	took := time.Since(begin)
	t.Logf("%d schedules of %d, %.0f a second, %d steps each", got.schedules, count, float64(got.schedules)/took.Seconds(), got.steps/max(got.schedules, 1))
	if got.failures > 0 {
		trace, failure := replay(got.first, lawful, mutant{})
		t.Fatalf("seed %d: %s\n%s\nplay it again: go test ./pkg/election/ -run TestSimulation -seed %d", got.first, failure, trace, got.first)
	}
	if got.schedules < min(count, 1_000) {
		t.Errorf("%d schedules within %s, expected at least 1,000", got.schedules, limit)
	}
	for i, c := range features {
		share := 100 * float64(got.seen[i]) / float64(got.schedules)
		t.Logf("%6.2f %%  %s", share, c.name)
		if c.feature != 1<<i {
			t.Fatalf("the list of features is out of order at %q", c.name)
		}
		if share < c.percent && got.schedules >= 1000 {
			t.Errorf("%s in %.2f %% of the schedules, expected at least %.0f %%: the simulation does not reach it any more", c.name, share, c.percent)
		}
	}
}
