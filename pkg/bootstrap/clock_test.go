package bootstrap

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// TestClockSteps: clocks that jump by days in either direction, at any moment of
// the formation, grant nothing and hinder nothing.
func TestClockSteps(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, 2)
			defer w.shutdown()
			dice := rand.New(rand.NewPCG(seed, 0))
			names := []string{"cp1", "cp2", "cp3", "w1", "w2"}
			for _, name := range names {
				w.boot(name)
			}
			for range 200 {
				pass(time.Duration(dice.Int64N(int64(400 * time.Millisecond))))
				s := w.named(names[dice.IntN(len(names))])
				s.skew.Store(dice.Int64N(int64(96*time.Hour)) - int64(48*time.Hour))
			}
			w.formed(10*time.Minute, names...)
			if inits, joins := w.ledger(); len(inits) != 1 || len(joins) != 4 {
				t.Errorf("seed %d: %v initialised, %v joined", seed, inits, joins)
			}
		})
	}
}

// TestWrongClockDoesNotLead: where peers decide, a server whose clock is away from
// the others' is not fit for GO, and another one leads, whatever NTP says.
func TestWrongClockDoesNotLead(t *testing.T) {
	for name, unsynced := range map[string]bool{"without NTP": true, "with NTP": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 0)
				defer w.shutdown()
				w.cluster.Spec.Time.Require, w.clockUnsynced = cluster.TimePeers, unsynced
				w.named("cp1").skew.Store(int64(time.Hour))
				for _, name := range []string{"cp1", "cp2", "cp3"} {
					w.boot(name)
				}
				w.formed(30*time.Minute, "cp1", "cp2", "cp3")
				if inits, _ := w.ledger(); len(inits) != 1 || inits[0] == "cp1" {
					t.Errorf("%v initialised, expected one whose clock is right", inits)
				}
			})
		})
	}
}

// The server that makes up the quorum is also the one whose clock was missing: GO
// waits for a few round trips then, not for the next look at the clocks.
func TestClocksAreComparedWhenTheQuorumIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		w.cluster.Spec.Time.Require, w.clockUnsynced = cluster.TimePeers, true
		for _, name := range []string{"cp1", "cp2", "w1"} {
			w.boot(name)
		}
		pass(time.Minute + 300*time.Millisecond)
		w.says("cp1", member.RollCall, "4 of 5 votes needed, 3 here")
		w.boot("w2")
		began := time.Now()
		w.awaitStage(t, w.named("cp1"), func(_ *world, s *testServer) bool { return s.state.Gone() })
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("GO came %s after the fourth server, expected at most 0.1 s", took)
		}
	})
}
