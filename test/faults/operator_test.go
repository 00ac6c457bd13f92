package faults

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/ledger"
)

// The holder of GO is gone before the cluster is sealed. Nobody takes over until an
// operator says so; then the others form one cluster, and the old one, back in a
// network of its own and then with the others, starts nothing.
func TestSupersede(t *testing.T) {
	for name, names := range map[string][]string{
		"3+2": {"cp1", "cp2", "cp3", "w1", "w2"},
		"3+0": {"cp1", "cp2", "cp3"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "3+0" {
				variation(t)
			}
			r := begin(t, len(names), 3, names...)
			r.must(r.Pace(4 * time.Second))
			r.on()
			old := r.began()
			lost := r.lines(ledger.Init)[0]
			var others []string
			for _, name := range names {
				if name != old {
					others = append(others, name)
					r.until(name, "it knows of GO", func(s member.Status) bool { return s.Decree.State == string(election.PhaseGo) })
				}
			}
			r.must(r.by[old].PowerLoss(r.ctx))
			r.calm(3 * time.Second)
			r.must(r.Pace(500 * time.Millisecond))

			// Not before it is out of sight: that the command would refuse.
			r.until(others[0], "the holder is out of sight", func(s member.Status) bool { return s.Decree.Votes == len(names)-1 })
			supersede := []string{"bootstrap", "supersede", "--epoch", strconv.FormatUint(lost.Epoch, 10), "--confirm-dead", lost.HW}
			r.operate(others[0], supersede...)
			r.calm(3 * time.Second) // that only said what would happen
			r.superseded = []string{lost.Inst}
			r.operate(others[0], append(supersede, "--yes")...)
			r.formed(others...)

			// The old one in a network of its own.
			r.cut(others, []string{old})
			r.on(old)
			r.until(old, "it remembers GO", func(s member.Status) bool { return s.Decree.State == string(election.PhaseGo) })
			before := len(r.lines(""))
			r.pause(8 * time.Second)
			r.restsIn(old, lost, before)
			// And with the others.
			r.Switch.Reset()
			r.said(old, "superseded by an operator's order")
			r.pause(5 * time.Second)
			r.restsIn(old, lost, before)
		})
	}
}

// restsIn checks that a superseded server began nothing since the ledger had so many
// lines, and that its kubelet is down.
func (r *trial) restsIn(name string, lost ledger.Line, before int) {
	r.Helper()
	for _, l := range r.lines("")[before:] {
		if l.Inst == lost.Inst || l.Server == name && l.What == ledger.Init {
			r.Errorf("%s was superseded, and the ledger has %+v", name, l)
		}
	}
	for _, unit := range []string{layout.UnitKubelet, layout.UnitKubeadmInit, layout.UnitAnnounce} {
		// is-active ends with 3 for a unit that is down.
		if out, err := r.by[name].Exec(r.ctx, "systemctl", "is-active", unit); err == nil {
			r.Errorf("%s of %s, which was superseded, is %s", unit, name, out)
		}
	}
}

// lines of the ledger; "" is all.
func (r *trial) lines(what string) []ledger.Line {
	r.Helper()
	lines, err := r.Ledger()
	r.must(err)
	return slices.DeleteFunc(lines, func(l ledger.Line) bool { return what != "" && l.What != what })
}

// An operator lowers the quorum to a majority.
func TestMajority(t *testing.T) {
	lower := []string{"bootstrap", "quorum", "--majority", "--yes"}
	t.Run("one never boots", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2")
		r.on("cp1", "w1")
		r.said("cp1", "3 of 3 votes needed, 2 here", "bootstrap quorum --majority")
		r.calm(3 * time.Second)
		r.operate("w1", lower...)
		r.formed("cp1", "w1")
	})
	// Both sides of a partition are impatient: only one has a majority.
	t.Run("3|2", func(t *testing.T) {
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.cut([]string{"cp1", "cp2", "w1"}, []string{"cp3", "w2"})
		r.on()
		r.sees("cp1", 3)
		r.sees("cp3", 2)
		for _, name := range []string{"cp3", "cp1"} {
			r.operate(name, lower...)
		}
		r.formed("cp1", "cp2", "w1")
		r.said("cp3", "3 of 5 votes needed, 2 here")
		r.Switch.Reset()
		r.formed()
	})
}
