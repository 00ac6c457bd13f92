package faults

import (
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/fabric"
)

// cut ends all traffic between two groups; the load balancer is on the side of the
// first.
func (r *trial) cut(one, other []string) {
	for _, a := range append([]string{balancer}, one...) {
		for _, b := range other {
			r.Switch.Set(a, b, fabric.Rule{Cut: true})
			r.Switch.Set(b, a, fabric.Rule{Cut: true})
		}
	}
}

// everywhere makes all traffic between servers follow a rule.
func (r *trial) everywhere(rule fabric.Rule) {
	for _, a := range r.plan.Names {
		for _, b := range r.plan.Names {
			if a != b {
				r.Switch.Set(a, b, rule)
			}
		}
	}
}

// counted is all traffic between servers so far, of earlier trials too.
func (r *trial) counted() (all fabric.Counts) {
	for _, a := range r.plan.Names {
		for _, b := range r.plan.Names {
			c := r.Switch.Counted(a, b)
			all.Passed, all.Dropped = all.Passed+c.Passed, all.Dropped+c.Dropped
		}
	}
	return all
}

// sees waits until a server counts that many votes.
func (r *trial) sees(name string, votes int) {
	r.Helper()
	r.until(name, "it sees the votes", func(s member.Status) bool { return s.Decree.Votes == votes })
}

func TestFormation(t *testing.T) {
	t.Run("3+2", func(t *testing.T) {
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.on()
		r.formed()
	})
	t.Run("1+0", func(t *testing.T) {
		variation(t)
		r := begin(t, 1, 1, "cp1")
		r.on()
		r.formed()
	})
	t.Run("one never boots", func(t *testing.T) {
		variation(t)
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.on("cp1", "cp2", "cp3", "w1")
		r.formed("cp1", "cp2", "cp3", "w1")
	})
}

// No side of a partition decides without its quorum; together they do, once.
func TestPartition(t *testing.T) {
	t.Run("2|1", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2")
		r.cut([]string{"cp1", "w1"}, []string{"w2"})
		r.on()
		r.sees("cp1", 2)
		r.sees("w2", 1)
		r.calm(3 * time.Second)
		r.said("cp1", "3", "votes needed")
		r.Switch.Reset()
		r.formed()
	})
	t.Run("3|2", func(t *testing.T) {
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.cut([]string{"cp1", "cp2", "w1"}, []string{"cp3", "w2"})
		r.on()
		r.sees("cp1", 3)
		r.sees("cp3", 2)
		r.calm(3 * time.Second)
		r.Switch.Reset()
		r.formed()
	})
	t.Run("at some moment", func(t *testing.T) {
		variation(t)
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.on()
		r.pause(r.between(0, 3*time.Second))
		r.cut([]string{"cp1", "w1"}, []string{"cp2", "cp3", "w2"})
		r.pause(r.between(2*time.Second, 8*time.Second))
		r.Switch.Reset()
		r.formed()
	})
}

func TestLoss(t *testing.T) {
	t.Run("one way", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2")
		// w2 hears everybody, and nobody hears it.
		for _, to := range []string{"cp1", "w1", balancer} {
			r.Switch.Set("w2", to, fabric.Rule{Cut: true})
		}
		r.on()
		r.sees("cp1", 2)
		r.calm(3 * time.Second)
		r.Switch.Reset()
		r.formed()
	})
	t.Run("20 % and reordering", func(t *testing.T) {
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.everywhere(fabric.Rule{Loss: 0.2, Jitter: 20 * time.Millisecond, Duplicate: 0.02})
		before := r.counted()
		r.on()
		r.formed()
		after := r.counted()
		passed, dropped := after.Passed-before.Passed, after.Dropped-before.Dropped
		// A fifth, as far as a few thousand frames can tell.
		if share := float64(dropped) / float64(passed+dropped); share < 0.15 || share > 0.25 {
			t.Errorf("%d frames passed and %d were lost, a share of %.2f; expected 0.2", passed, dropped, share)
		}
	})
}
