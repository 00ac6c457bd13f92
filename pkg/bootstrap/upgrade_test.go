package bootstrap

import (
	"context"
	"errors"
	"fmt"
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
	running   map[string]string // by server's name; "old" when missing
	last      map[string]Exchange
	order     []string // who exchanged, in order
	onTrial   int
	together  bool // two at once
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

func (f fakeProgram) Fetch(context.Context, string) error {
	p, unlock := f.shelf()
	defer unlock()
	if p.fetchFail > 0 {
		p.fetchFail--
		return errors.New("no mirror has it")
	}
	return nil
}

func (f fakeProgram) Exchange(_ context.Context, sum string) error {
	p, unlock := f.shelf()
	defer unlock()
	p.order = append(p.order, f.s.name)
	p.last[f.s.name] = Exchange{To: sum, UnderWay: true}
	p.onTrial++
	p.together = p.together || p.onTrial > 1
	go func() {
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

// withAgents forms a cluster whose servers have programs.
func withAgents(t *testing.T, controlPlanes, workers int) *world {
	w := newWorld(t, controlPlanes, workers)
	w.shelf = &shelf{running: map[string]string{}, last: map[string]Exchange{}}
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
		})
		if st := w.named("cp1").server.Status(t.Context()); st.Problem != "" {
			t.Errorf("the problem stays: %q", st.Problem)
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
