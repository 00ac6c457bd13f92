package faults

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig/machine"
)

// A used disk in other hardware: it takes part as somebody new.
func TestCopiedDisk(t *testing.T) {
	r := begin(t, 3, 1, "cp1", "w1", "w2")
	r.on("cp1", "w1")
	r.sees("cp1", 2)
	was := r.until("w1", "it is somebody", func(s member.Status) bool { return s.Inst != "" })
	r.must(r.by["w1"].PowerLoss(r.ctx))
	r.must(r.by["w2"].CopyDisk(r.ctx, r.by["w1"]))
	r.on("w1", "w2")
	r.formed()
	if is := r.until("w2", "it is somebody", func(s member.Status) bool { return s.Inst != "" }); is.Inst == was.Inst {
		t.Errorf("w2 has the disk of w1 and takes itself for it: instance %s", is.Inst)
	}
	if !r.journalHas("w2", "a cloned or moved disk") {
		t.Error("w2 does not say that its disk is of other hardware")
	}
}

// Hardware of the same identity, as boards with one UUID are.
func TestSameHardware(t *testing.T) {
	// With a copy of the used disk it is one instance at two addresses: both stop.
	t.Run("copied disk", func(t *testing.T) {
		r := begin(t, 3, 1, "cp1", "w1", "w2", "twin")
		r.by["twin"].Hardware = r.by["w1"].Hardware
		r.on("w1")
		r.sees("w1", 1)
		r.must(r.by["w1"].PowerLoss(r.ctx))
		r.must(r.by["twin"].CopyDisk(r.ctx, r.by["w1"]))
		r.on("w1", "twin")
		for name, other := range map[string]string{"w1": "twin", "twin": "w1"} {
			r.said(name, r.by[other].Address.String())
		}
		// The others count its vote; it does not give it.
		r.on("cp1", "w2")
		r.until("cp1", "three are in sight", func(s member.Status) bool { return s.Decree.Votes == 3 })
		r.calm(5 * time.Second)
		r.must(r.by["twin"].PowerLoss(r.ctx))
		// It was told of an address where nobody is now; a restart looks anew, and is
		// told again until gossip has forgotten the copy.
		r.until("cp1", "GO, with the vote of w1", func(s member.Status) bool {
			if state := election.Phase(s.Decree.State); state == election.PhaseGo || state == election.PhaseSealed {
				return true
			}
			own, err := r.by["w1"].Status(r.ctx)
			if err == nil && strings.Contains(own.Waiting, r.by["twin"].Address.String()) {
				_, err := r.by["w1"].Exec(r.ctx, "systemctl", "restart", "muster")
				r.must(err)
			}
			return false
		})
		r.formed("cp1", "w1", "w2")
	})
	// With a disk of its own it is another life of the same hardware: no vote for
	// either while both are there.
	t.Run("own disk", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2", "twin")
		r.by["twin"].Hardware = r.by["w1"].Hardware
		r.on("w1", "twin")
		r.said("w1", "two live instances carry the hardware id", r.by["twin"].Address.String())
		r.on("cp1", "w2")
		r.sees("cp1", 2)
		r.said("cp1", "two live instances carry the hardware id")
		r.calm(5 * time.Second)
		r.must(r.by["twin"].PowerLoss(r.ctx))
		r.formed("cp1", "w1", "w2")
	})
}

// A server that is wiped while the cluster forms counts as one more; the law has
// room for it.
func TestWipe(t *testing.T) {
	t.Run("before GO", func(t *testing.T) {
		variation(t)
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			r.must(r.by[name].Fill(r.ctx, unfit))
		}
		r.on()
		before := r.until("w2", "it voted", func(s member.Status) bool { return s.Decree.State == string(election.PhaseLeader) })
		r.must(r.by["w2"].Wipe(r.ctx))
		r.on("w2")
		r.until("w2", "it is somebody else", func(s member.Status) bool { return s.Inst != "" && s.Inst != before.Inst })
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			r.must(r.by[name].Empty())
		}
		r.formed()
	})
	// After GO it may have a row in the directory, whose name nobody takes over; then
	// it says what to do.
	t.Run("after GO", func(t *testing.T) {
		r := begin(t, 3, 1, "cp1", "w1", "w2")
		r.must(r.Pace(3 * time.Second))
		r.on()
		r.until("w2", "it has a role", func(s member.Status) bool { return s.Role == member.Worker })
		r.must(r.by["w2"].Wipe(r.ctx))
		r.on("w2")
		r.formed("cp1", "w1")
		r.said("w2", "the node name is taken", "bootstrap replace")
		r.replaced("cp1", "w2")
		r.formed()
	})
}

// replaced gives the place of a server that is gone to the one of its name, once
// gossip has forgotten its former life.
func (r *trial) replaced(on, name string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	var refused error
	err := machine.Poll(ctx, name+" is replaced", func() bool {
		_, refused = r.by[on].Exec(ctx, "bootstrap", "replace", name, "--yes")
		return refused == nil
	})
	if err != nil {
		r.Fatalf("%s is not replaced: %v", name, refused)
	}
}
