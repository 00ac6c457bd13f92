package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
)

// shelf is the agents' programs of all servers.
type shelf struct {
	pinned    string
	bad       bool              // the pinned one is not ready in time
	fetchFail int               // so many fetches fail
	fetched   map[string]bool   // by server and program
	running   map[string]string // by server's name; "old" when missing
	last      map[string]Exchange
	order     []string // who exchanged, in order
	onTrial   int
	trials    map[string]chan struct{} // closed when they are over
	together  bool                     // two at once
	stuck     bool                     // what carries an exchange out does not start
}

// fakeProgram is the program of one server. A trial takes half a minute.
type fakeProgram struct{ s *testServer }

func (f fakeProgram) shelf() (*shelf, func()) {
	f.s.world.mu.Lock()
	return f.s.world.shelf, f.s.world.mu.Unlock
}

func (f fakeProgram) Running() (string, error) {
	p, unlock := f.shelf()
	defer unlock()
	if sum := p.running[f.s.name]; sum != "" {
		return sum, nil
	}
	return "old", nil
}

func (f fakeProgram) Pinned() string {
	p, unlock := f.shelf()
	defer unlock()
	return p.pinned
}

func (f fakeProgram) Last() (Exchange, error) {
	p, unlock := f.shelf()
	defer unlock()
	return p.last[f.s.name], nil
}

func (f fakeProgram) Keep(sums ...string) error {
	p, unlock := f.shelf()
	defer unlock()
	maps.DeleteFunc(p.fetched, func(which string, _ bool) bool {
		on, sum, _ := strings.Cut(which, " ")
		return on == f.s.name && !slices.Contains(sums, sum)
	})
	return nil
}

func (f fakeProgram) Fetch(_ context.Context, sum string) error {
	p, unlock := f.shelf()
	defer unlock()
	if p.fetchFail > 0 {
		p.fetchFail--
		return errors.New("no mirror has it")
	}
	p.fetched[f.s.name+" "+sum] = true
	return nil
}

func (f fakeProgram) Exchange(_ context.Context, sum string) error {
	p, unlock := f.shelf()
	defer unlock()
	p.order = append(p.order, f.s.name)
	p.last[f.s.name] = Exchange{To: sum, UnderWay: true}
	p.onTrial++
	p.together = p.together || p.onTrial > 1
	over := make(chan struct{})
	p.trials[f.s.name] = over
	go func() {
		defer close(over)
		time.Sleep(30 * time.Second) // virtual
		p, unlock := f.shelf()
		defer unlock()
		p.onTrial--
		p.last[f.s.name] = Exchange{To: sum}
		if p.bad {
			p.last[f.s.name] = Exchange{To: sum, Returned: "it was not ready within 3m0s"}
			return
		}
		p.running[f.s.name] = sum
	}()
	return nil
}

func (f fakeProgram) GoOn(ctx context.Context) error {
	p, unlock := f.shelf()
	over := p.trials[f.s.name]
	unlock()
	if over != nil { // it runs
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p, unlock = f.shelf()
	defer unlock()
	if p.stuck {
		return errors.New("starting muster-upgrade.service: the main process ended with 203 (result exit-code)")
	}
	p.last[f.s.name] = Exchange{To: p.pinned}
	p.running[f.s.name] = p.pinned
	return nil
}

// withAgents forms a cluster whose servers have programs.
func withAgents(t *testing.T, controlPlanes, workers int) *world {
	w := newWorld(t, controlPlanes, workers)
	w.shelf = &shelf{running: map[string]string{}, last: map[string]Exchange{}, trials: map[string]chan struct{}{}, fetched: map[string]bool{}}
	var names []string
	for _, s := range w.servers {
		names = append(names, s.name)
	}
	slices.Sort(names)
	for _, name := range names {
		w.boot(name)
	}
	w.formed(10*time.Minute, names...)
	return w
}

func (w *world) pin(change func(*shelf)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w.shelf)
}

func TestAgentsAreExchangedOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withAgents(t, 2, 2)
		defer w.shutdown()
		w.pin(func(p *shelf) { p.pinned, p.fetchFail = "new", 2 })
		pass(15 * time.Second)
		if got := w.named("cp1").agent().board.read().Agent; got.State != member.AgentWaits || !strings.HasPrefix(got.Detail, "waits for w1, which ") {
			t.Errorf("cp1 says %+v", got)
		}
		pass(5 * time.Minute)
		w.pin(func(p *shelf) {
			if diff := cmp.Diff([]string{"w1", "w2", "cp1", "cp2"}, p.order); diff != "" || p.together {
				t.Errorf("order (-want +got)\n%s\ntwo at once: %t", diff, p.together)
			}
		})
		for _, name := range []string{"cp1", "w2"} {
			st := w.named(name).server.Status(t.Context())
			if diff := cmp.Diff(member.AgentStatus{SHA256: "new"}, st.Agent); diff != "" || st.Problem != "" {
				t.Errorf("%s says (-want +got)\n%s\nproblem %q", name, diff, st.Problem)
			}
		}
	})
}

// TestBadAgentIsTriedOnce: the first server goes back, and nobody else tries it. The
// next one that is pinned is taken.
func TestBadAgentIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withAgents(t, 1, 2)
		defer w.shutdown()
		w.pin(func(p *shelf) { p.pinned, p.bad = "new", true })
		pass(20 * time.Minute)
		w.pin(func(p *shelf) {
			if diff := cmp.Diff([]string{"w1"}, p.order); diff != "" {
				t.Errorf("order (-want +got)\n%s", diff)
			}
		})
		const why = "it was not ready within 3m0s"
		w.pin(func(p *shelf) {
			if !p.fetched["w1 new"] {
				t.Error("the agent that went back is pinned, and not there any more")
			}
		})
		for name, want := range map[string]member.AgentStatus{
			"w1":  {SHA256: "old", Pinned: "new", State: member.AgentReturned, Detail: why},
			"cp1": {SHA256: "old", Pinned: "new", State: member.AgentHeld, Detail: "w1 tried it and went back: " + why},
		} {
			st := w.named(name).server.Status(t.Context())
			if diff := cmp.Diff(want, st.Agent); diff != "" {
				t.Errorf("%s says (-want +got)\n%s", name, diff)
			}
			if problem := fmt.Sprintf("bootstrap new is pinned and not taken: %s; pin another one, or see docs/node-life.md", want.Detail); st.Problem != problem {
				t.Errorf("%s has the problem %q, expected %q", name, st.Problem, problem)
			}
		}
		w.pin(func(p *shelf) { p.pinned, p.bad = "newer", false })
		pass(10 * time.Minute)
		w.pin(func(p *shelf) {
			if diff := cmp.Diff([]string{"w1", "w1", "w2", "cp1"}, p.order); diff != "" || p.together {
				t.Errorf("order (-want +got)\n%s\ntwo at once: %t", diff, p.together)
			}
			if diff := cmp.Diff(map[string]bool{"w1 newer": true, "w2 newer": true, "cp1 newer": true}, p.fetched); diff != "" {
				t.Errorf("programs that are kept (-want +got)\n%s", diff)
			}
		})
		if st := w.named("cp1").server.Status(t.Context()); st.Problem != "" {
			t.Errorf("the problem stays: %q", st.Problem)
		}
	})
}

// TestExchangeThatDoesNotGoOn: the order is on the disk, and what carries it out does not
// run. All others wait, so it says why, and starts it again until that helps.
func TestExchangeThatDoesNotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withAgents(t, 1, 2)
		defer w.shutdown()
		w.pin(func(p *shelf) {
			p.pinned, p.stuck = "new", true
			p.last["w1"] = Exchange{To: "new", UnderWay: true}
		})
		pass(time.Minute)
		for range 20 { // whenever it is asked
			const want = "the exchange for bootstrap new does not go on, and all other servers wait for it: starting muster-upgrade.service: the main process ended with 203 (result exit-code)"
			if got := w.named("w1").server.Status(t.Context()).Agent; got.State != member.AgentTrial || got.Detail != want {
				t.Fatalf("w1 says %+v", got)
			}
			pass(700 * time.Millisecond)
		}
		w.pin(func(p *shelf) {
			if len(p.order) > 0 {
				t.Errorf("%v exchanged while w1 did not go on", p.order)
			}
			p.stuck = false
		})
		pass(3 * time.Minute)
		w.pin(func(p *shelf) {
			if diff := cmp.Diff([]string{"w2", "cp1"}, p.order); diff != "" || p.running["w1"] != "new" {
				t.Errorf("order (-want +got)\n%s\nw1 runs %q", diff, p.running["w1"])
			}
		})
		if got := w.named("w1").server.Status(t.Context()).Agent; got.State != "" || got.Detail != "" {
			t.Errorf("w1 says %+v", got)
		}
	})
}

// TestOthersGoOnWithoutASilentServer: and it has its turn when it is back.
func TestOthersGoOnWithoutASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withAgents(t, 1, 2)
		defer w.shutdown()
		w.powerOff("w1")
		w.pin(func(p *shelf) { p.pinned = "new" })
		pass(5 * time.Minute)
		w.pin(func(p *shelf) {
			if len(p.order) > 0 {
				t.Errorf("%v exchanged before the silent one was given up", p.order)
			}
		})
		pass(15 * time.Minute)
		w.boot("w1")
		pass(5 * time.Minute)
		w.pin(func(p *shelf) {
			if diff := cmp.Diff([]string{"w2", "cp1", "w1"}, p.order); diff != "" || p.together {
				t.Errorf("order (-want +got)\n%s\ntwo at once: %t", diff, p.together)
			}
		})
	})
}
