package election

import (
	"fmt"
	"slices"
	"strings"
)

// feature is a set of things that happened in a schedule.
type feature uint32

// Things that a simulation must have met often enough to mean anything.
const (
	sawLeader feature = 1 << iota
	sawGo
	sawAbdicate
	sawEpochs
	sawSealed
	sawCompleted
	sawTornWrite
	sawUnsynced
	sawUntold
	sawDamage
	sawWipe
	sawRollback
	sawExtra
	sawBound
	sawPartition
	sawDuplicate
	sawStranger
	sawConfirmed
	sawLowered
	sawSuperseded
	sawApproved
)

// features names the features, with the least share of schedules, in percent,
// that must show each.
var features = []struct {
	feature feature
	name    string
	percent float64
}{
	{sawLeader, "LEADER before peace", 50},
	{sawGo, "GO before peace", 25},
	{sawAbdicate, "a leader gave up or was given up", 5},
	{sawEpochs, "more than one epoch", 3},
	{sawSealed, "sealed", 5},
	{sawCompleted, "a proposal was completed by another", 1},
	{sawTornWrite, "power lost before a write was whole", 5},
	{sawUnsynced, "power lost before a rename was synced", 3},
	{sawUntold, "power lost after a write, before it was told", 3},
	{sawDamage, "a damaged state", 1},
	{sawWipe, "a wiped server", 5},
	{sawRollback, "a disk put back", 1},
	{sawExtra, "an extra server", 5},
	{sawBound, "as much harm as the law allows", 5},
	{sawPartition, "a partition", 20},
	{sawDuplicate, "a message twice", 20},
	{sawStranger, "a server with other numbers", 20},
	{sawConfirmed, "GO confirmed after a reboot", 1},
	{sawLowered, "an operator lowered the quorum", 2},
	{sawSuperseded, "a holder of GO was superseded", 1},
	{sawApproved, "an operator approved a sealed cluster", 0.1},
}

func (w *sim) saw(f feature) { w.seen |= f }

// conclude notes what a schedule came to.
func (w *sim) conclude() {
	for _, v := range w.decrees {
		if v.Kind == Abdicate {
			w.saw(sawAbdicate)
		}
	}
	if len(w.decrees) > 2 {
		w.saw(sawEpochs)
	}
	if len(w.sealed) > 0 {
		w.saw(sawSealed)
	}
	if w.harm == w.limit && w.limit > 0 {
		w.saw(sawBound)
	}
}

func describeEvent(e Event) string {
	switch e := e.(type) {
	case Received:
		return fmt.Sprintf("from %s: %s", e.From.Inst, describeMessage(e.Message))
	case View:
		var out []string
		for _, p := range e.Peers {
			out = append(out, p.Inst+"/"+p.HW)
		}
		return "sees " + strings.Join(out, " ")
	case Timer:
		return "timer " + string(e.Kind)
	case Candidate:
		return "candidate " + e.Leader.Inst
	}
	return fmt.Sprintf("%T%+v", e, e)
}

func describeEffect(e Effect) string {
	if s, ok := e.(Send); ok {
		return "sending " + describeMessage(s.Message) + " to " + s.To
	}
	return fmt.Sprintf("%T", e)
}

func describeMessage(m Message) string {
	out := []string{string(m.Kind)}
	switch m.Kind {
	case Prepare, Promise, Nack, Accept, Accepted:
		out = append(out, fmt.Sprintf("slot %d %s", m.Slot, describeBallot(m.Ballot)))
	case Stands:
		out = append(out, fmt.Sprint(m.Standing))
	}
	if m.Accepted != (Ballot{}) {
		out = append(out, "accepted "+describeBallot(m.Accepted))
	}
	if m.Promised != (Ballot{}) {
		out = append(out, "promised "+describeBallot(m.Promised))
	}
	if m.Value != (Value{}) {
		out = append(out, m.Value.describe())
	}
	if len(m.Decided) > 0 {
		out = append(out, "knows "+describeValues(m.Decided))
	}
	if m.Sealed != (Sealed{}) {
		out = append(out, fmt.Sprintf("sealed %d", m.Sealed.Epoch))
	}
	return strings.Join(out, " ")
}

func describeBallot(b Ballot) string { return fmt.Sprintf("%d/%s/%s", b.Round, b.Inst, b.Run) }

func describeValues(values []Value) string {
	var out []string
	for _, v := range values {
		out = append(out, v.describe())
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func describeState(s State) string {
	out := fmt.Sprintf("state %d of %s round %d %s", s.Seq, s.Inst, s.Round, describeValues(s.Decided()))
	if n := s.known(); n < len(s.Slots) {
		x := s.Slots[n]
		out += fmt.Sprintf(" slot %d promised %s", n, describeBallot(x.Promised))
		if x.Accepted != (Ballot{}) {
			out += fmt.Sprintf(" accepted %s %s", describeBallot(x.Accepted), x.Value.describe())
		}
	}
	if s.IsSealed() {
		out += " sealed"
	}
	return out
}

// positions says where every machine stands.
func (w *sim) positions() string {
	var out []string
	for _, m := range w.machines {
		if m.up {
			out = append(out, fmt.Sprintf("%s: %s %s", m.self.Name, m.core.Decree().Phase, m.core.Explain()))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
