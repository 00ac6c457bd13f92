package bootstrap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// deadLeader forms n servers up to GO, with its holder, cp1, in the middle of
// kubeadm init, and switches that off.
func deadLeader(t *testing.T, w *world) {
	t.Helper()
	w.named("cp1").initBlocks = make(chan struct{})
	w.boot("cp1")
	pass(time.Second) // it is in sight before a quorum is, so it leads
	for _, s := range w.servers {
		if s.name != "cp1" {
			w.boot(s.name)
		}
	}
	pass(time.Minute)
	if st := w.named("cp1").agent().board.read(); st.Phase != member.Initialising || w.named("cp1").NodeCA() == "" {
		t.Fatalf("cp1 is in phase %s", st.Phase)
	}
	w.powerOff("cp1")
	w.named("cp1").initBlocks = nil
	pass(time.Minute)
}

// TestSupersede: the holder of GO is gone for good between GO and sealed. Nobody
// takes over by itself, every server says what happened, one order makes the
// others one cluster, and the old server starts nothing when it is back.
func TestSupersede(t *testing.T) {
	for _, shape := range []struct{ controlPlanes, workers int }{{3, 2}, {3, 0}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, shape.controlPlanes, shape.workers)
			defer w.shutdown()
			deadLeader(t, w)
			pass(30 * time.Minute)
			old := w.named("cp1")
			for _, s := range w.servers {
				if s == old {
					continue
				}
				if got := s.agent().board.read().Waiting; !strings.Contains(got, "bootstrap supersede --epoch 0 --confirm-dead "+old.state.Hardware.HW) {
					t.Errorf("%s waits for %q", s.name, got)
				}
			}
			order := election.Supersede{Dead: old.state.Hardware.HW}
			cp2 := w.named("cp2")
			told, err := cp2.server.Supersede(t.Context(), false, order, "")
			if err != nil || len(told) != 3 || !strings.HasPrefix(told[2], "DANGER: if cp1 still runs") {
				t.Fatalf("%q, %v", told, err)
			}
			pass(time.Minute)
			if inits, _ := w.ledger(); len(inits) != 0 || cp2.agent().fence.read().Epoch != 0 {
				t.Fatal("a dry run was carried out")
			}
			if told, err = cp2.server.Supersede(t.Context(), true, order, ""); err != nil || !strings.HasPrefix(told[len(told)-1], "The vote is begun; ") {
				t.Fatalf("%q, %v", told, err)
			}
			var rest []string
			for _, s := range w.servers {
				if s != old {
					rest = append(rest, s.name)
				}
			}
			w.formed(10*time.Minute, rest...)
			inits, joins := w.ledger()
			slices.Sort(joins)
			slices.Sort(rest)
			if diff := cmp.Diff([]string{"cp2"}, inits); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(slices.DeleteFunc(rest, func(s string) bool { return s == "cp2" }), joins); diff != "" {
				t.Error(diff)
			}
			w.oldLeaderComesBack(t)
		})
	}
}

// oldLeaderComesBack boots cp1, whose disk holds a GO and half a node.
func (w *world) oldLeaderComesBack(t *testing.T) {
	t.Helper()
	old := w.named("cp1")
	w.boot("cp1")
	pass(10 * time.Minute)
	st := old.agent().board.read()
	if st.Phase != member.Stopped || !old.down.Load() || !old.directoryDown.Load() || !strings.Contains(st.Problem, "which was superseded by an operator's order: cp2 leads epoch 1") {
		t.Errorf("the old leader is in phase %s, stopped its units: %v, says %q", st.Phase, old.down.Load(), st.Problem)
	}
	inits, _ := w.ledger()
	if len(inits) != 1 {
		t.Errorf("kubeadm init ran on %v", inits)
	}
	// Reset as its sentence says, it joins like any other.
	w.powerOff("cp1")
	old.nodeCA = ""
	old.down.Store(false)
	w.boot("cp1")
	w.formed(10*time.Minute, "cp1")
	if _, joins := w.ledger(); !slices.Contains(joins, "cp1") {
		t.Errorf("%v joined", joins)
	}
}

// TestSupersededWithoutANode: a holder of GO that was off before it laid anything
// of a node has nothing to be reset: it joins the others by itself.
func TestSupersededWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		cp1 := w.named("cp1")
		w.boot("cp1")
		synctest.Wait()
		w.boot("cp2")
		w.boot("cp3")
		w.awaitStage(t, cp1, func(_ *world, s *testServer) bool { return s.state.HoldsGo() })
		w.powerOff("cp1")
		if cp1.nodeCA != "" {
			t.Fatal("cp1 laid a node's CA already")
		}
		// It was off before the others heard of GO, too: what they voted for comes to
		// light when they can decide without it.
		pass(time.Hour)
		cp2, order := w.named("cp2"), election.Supersede{Dead: cp1.state.Hardware.HW}
		w.says("cp2", member.Deciding, "cp1 leads epoch 0, has not decided GO and does not answer; power it on again, or wait: after 10m0s without it the others choose another, "+
			"if they are enough: 3 of 3 votes needed, 2 here, missing: cp1 (here: cp2, cp3); ")
		w.says("cp2", member.Deciding, "; if they never come: bootstrap quorum --majority lets 2 decide")
		if _, err := cp2.server.Supersede(t.Context(), true, order, ""); err == nil {
			t.Error("the others do not know of GO, and it was superseded")
		}
		if _, err := cp2.server.LowerQuorum(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Minute)
		for _, name := range []string{"cp2", "cp3"} {
			w.says(name, member.Enrolling, "a certificate of the agent CA from cp1: cp1 was decided to build the first control plane and does not answer; ")
			w.says(name, member.Enrolling, ": bootstrap supersede --epoch 0 --confirm-dead "+order.Dead)
		}
		if _, err := cp2.server.Supersede(t.Context(), true, order, ""); err != nil {
			t.Fatal(err)
		}
		w.formed(10*time.Minute, "cp2", "cp3")
		w.boot("cp1")
		w.formed(10*time.Minute, "cp1")
		inits, joins := w.ledger()
		if !slices.Equal(inits, []string{"cp2"}) || !slices.Contains(joins, "cp1") {
			t.Errorf("kubeadm init ran on %v, join on %v", inits, joins)
		}
	})
}

// TestSupersedeSealed: a sealed cluster is given up only with the list of its
// nodes.
func TestSupersedeSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2)
		defer w.shutdown()
		w.boot("cp1")
		w.boot("w1")
		w.boot("w2")
		w.formed(time.Hour, "cp1", "w1", "w2")
		w.powerOff("cp1")
		w.boot("cp2")
		pass(time.Minute)
		cp2, order := w.named("cp2"), election.Supersede{Dead: w.named("cp1").state.Hardware.HW}
		for lost, want := range map[string]string{
			"":     "epoch 0 is sealed: its cluster exists",
			"none": "the nodes to be reset are w1,w2, --lose-cluster names none",
		} {
			if _, err := cp2.server.Supersede(t.Context(), true, order, lost); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", lost, err)
			}
		}
		if _, err := cp2.server.Supersede(t.Context(), true, order, "w1,w2"); err != nil {
			t.Fatal(err)
		}
		w.formed(10*time.Minute, "cp2")
		for _, name := range []string{"w1", "w2"} {
			if st := w.named(name).agent().board.read(); st.Phase != member.Stopped || !w.named(name).down.Load() {
				t.Errorf("%s is in phase %s: %q", name, st.Phase, st.Problem)
			}
		}
	})
}

// TestActsBeforeTheFence: an act asked too early is told so.
func TestActsBeforeTheFence(t *testing.T) {
	s := &Server{agent: New(Machine{Now: time.Now})}
	if _, err := s.LowerQuorum(context.Background(), true); !errors.Is(err, agent.ErrNotReady) {
		t.Error(err)
	}
}

// TestBuriedTakesNoPart: a server whose disk carries another's node stops what runs of
// it and is nobody to the others, at every boot, until a reset.
func TestBuriedTakesNoPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		const why = "this disk carries the node of hardware 1"
		clone := w.named("w1")
		clone.buried = why
		for _, s := range w.servers {
			w.boot(s.name)
		}
		w.formed(10*time.Minute, "cp1", "cp2", "cp3")
		for range 2 {
			st := clone.agent().board.read()
			if st.Phase != member.Stopped || st.Problem != why || !clone.down.Load() || !clone.directoryDown.Load() || clone.server != nil {
				t.Errorf("the clone is in phase %s, stopped its units: %v, says %q", st.Phase, clone.down.Load(), st.Problem)
			}
			w.powerOff("w1")
			clone.down.Store(false)
			w.boot("w1")
			pass(time.Minute)
		}
		w.powerOff("w1")
		clone.buried = ""
		clone.down.Store(false)
		w.boot("w1")
		w.formed(10 * time.Minute)
	})
}
