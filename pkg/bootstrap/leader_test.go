package bootstrap

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/election"
)

// TestLeaderDies: the server that leads loses power at every stage of its way,
// and comes back or does not. One server runs kubeadm init to its end, and all
// that are on join it.
func TestLeaderDies(t *testing.T) {
	phase := func(p election.Phase) func(*world, *testServer) bool {
		return func(w *world, s *testServer) bool { return s.state.Phase() == p }
	}
	began := func(w *world, s *testServer) bool { return s.nodeCA != "" }
	ended := func(w *world, s *testServer) bool { return s.journal["init"] == "done" }
	for _, stage := range []struct {
		name    string
		hold    string // what keeps the leader at that stage: "", prepare, init
		reached func(*world, *testServer) bool
		// Who runs kubeadm init when the leader comes back, and when it does not:
		// nobody where that takes an operator.
		back, gone string
	}{
		{"before its value is chosen", "", func(w *world, s *testServer) bool {
			return len(s.state.Slots) > 0 && s.state.Phase() == election.PhaseForming
		}, "any", "any"},
		{"LEADER chosen, no GO", "prepare", phase(election.PhaseLeader), "cp1", "cp2"},
		{"GO chosen, init not begun", "", phase(election.PhaseGo), "cp1", ""},
		{"init half done", "init", began, "cp1", ""},
		{"init done, not published", "", ended, "cp1", ""},
		{"published", "", phase(election.PhaseSealed), "cp1", ""},
	} {
		for _, back := range []bool{true, false} {
			name := stage.name + ", gone"
			if back {
				name = stage.name + ", back"
			}
			t.Run(name, func(t *testing.T) {
				// cp1 begins, and leads nearly always: it may have asked one that was not
				// listening yet, and then another one has its turn.
				for range 5 {
					led := true
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, 3, 2) // q = 4: the others suffice
						defer w.shutdown()
						cp1 := w.named("cp1")
						if stage.hold == "prepare" {
							cp1.prepareFails = 1 << 30
						}
						if stage.hold == "init" {
							cp1.initBlocks = make(chan struct{})
						}
						w.boot("cp1") // first, or enough others might vote without it
						synctest.Wait()
						for _, s := range w.servers {
							if s != cp1 {
								w.boot(s.name)
							}
						}
						w.awaitStage(t, cp1, func(w *world, s *testServer) bool {
							leader, epoch, known := s.state.Leader()
							led = !known || epoch == 0 && leader.Inst == s.inst
							return !led || stage.reached(w, s)
						})
						if !led {
							return
						}
						w.powerOff("cp1")
						cp1.prepareFails, cp1.initBlocks = 0, nil
						leads := stage.gone
						if back {
							leads = stage.back
							pass(time.Minute)
							w.boot("cp1")
						}
						w.wantOneCluster(t, leads, back)
					})
					if led {
						return
					}
				}
				t.Error("cp1 led in none of five worlds")
			})
		}
	}
}

// awaitStage waits in steps that are shorter than one message takes.
func (w *world) awaitStage(t *testing.T, s *testServer, reached func(*world, *testServer) bool) {
	t.Helper()
	for range 10 * 60 * 2000 {
		w.mu.Lock()
		ok := reached(w, s)
		w.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(500 * time.Microsecond) // virtual: synctest
	}
	t.Fatalf("%s never got there: %s", s.name, s.agent().board.read().Waiting)
}

func (w *world) wantOneCluster(t *testing.T, leads string, back bool) {
	t.Helper()
	on := []string{"cp2", "cp3", "w1", "w2"}
	if back {
		on = append(on, "cp1")
	}
	if leads == "" {
		before, _ := w.ledger()
		pass(30 * time.Minute)
		after, joins := w.ledger()
		if !slices.Equal(before, after) || len(joins) > 0 {
			t.Errorf("without an operator %v initialised after %v, %v joined", after, before, joins)
		}
		return
	}
	w.formed(time.Hour, on...)
	inits, joins := w.ledger()
	if len(inits) != 1 || leads != "any" && inits[0] != leads {
		t.Errorf("kubeadm init ran on %v, expected %s", inits, leads)
	}
	want := slices.DeleteFunc(on, func(name string) bool { return name == inits[0] })
	slices.Sort(want)
	slices.Sort(joins)
	if diff := cmp.Diff(want, joins); diff != "" {
		t.Error(diff)
	}
}
