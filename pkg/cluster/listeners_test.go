package cluster

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestListeners holds the one list to what validation knows of taken ports: a port
// of ours that is not settable must be refused to those that are.
func TestListeners(t *testing.T) {
	p := mustParse(t, good).Spec.Ports
	settable := []uint16{p.Gossip, p.Agents, p.Enrolment, p.Directory}
	for _, l := range p.Listeners() {
		if slices.Contains(settable, l.First) {
			continue
		}
		if !slices.ContainsFunc(takenPorts, func(r struct {
			from, to uint16
			by       string
		}) bool {
			return r.from <= l.First && l.Last <= r.to
		}) {
			t.Errorf("%s listens on %d, which spec.ports may take, too", l.Program, l.First)
		}
	}
	want := []PortRange{{2379, 2381}, {6443, 6443}, {9760, 9760}, {9761, 9761}, {9762, 9762}, {9763, 9763}, {10250, 10250}}
	if diff := cmp.Diff(want, p.GuardedPorts()); diff != "" {
		t.Errorf("guarded (-want +got):\n%s", diff)
	}
}
