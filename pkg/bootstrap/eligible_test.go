package bootstrap

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// Of more eligible servers than there are places those behind different switches
// become control planes, whoever leads, and the others say what they are.
func TestControlPlanesSpread(t *testing.T) {
	for _, switches := range []string{"aaabc", "bcaaa", "aabbc", "abcab", "aaaaa", "-aab-"} {
		t.Run(switches, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5, 0)
				defer w.shutdown()
				w.cluster.Spec.Servers.ControlPlanes = 3
				names := []string{"cp1", "cp2", "cp3", "cp4", "cp5"}
				for i, name := range names {
					w.named(name).device.Switch = strings.Trim(switches[i:i+1], "-")
				}
				for _, name := range names {
					w.boot(name)
				}
				w.formed(5*time.Minute, names...)
				load, planes := map[string]int{}, 0
				for _, name := range names {
					if w.status(name).Role == member.ControlPlane {
						planes++
						load[w.named(name).device.Switch]++
					}
				}
				if planes != 3 {
					t.Errorf("%d control planes", planes)
				}
				if different := map[string]int{"aaabc": 3, "bcaaa": 3, "aabbc": 3, "abcab": 3, "aaaaa": 1}[switches]; different > 0 && len(load) != different {
					t.Errorf("control planes are behind %v", load)
				}
			})
		})
	}
}

// listGossip is a roll call that stands still.
type listGossip []Peer

func (l listGossip) Peers() []Peer            { return l }
func (l listGossip) Changes() <-chan struct{} { return nil }
func (l listGossip) SetFlags(Flags)           {}

// A server gives way for some seconds only: one in sight may never ask.
func TestGiveWayEnds(t *testing.T) {
	now := time.Unix(0, 0)
	a := New(Machine{Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: func() time.Time { return now }})
	a.Cluster.Spec.Servers.ControlPlanes = 3
	may := Flags{Eligible: true}
	peers := listGossip{{Inst: "1", Switch: "a", Flags: may}, {Inst: "2", Switch: "a", Flags: may}, {Inst: "3", Switch: "b", Flags: may}, {Inst: "4", Switch: "c", Flags: may}}
	a.fabric.Gossip = peers
	rows := []member.Member{{Inst: "1", Role: member.ControlPlane}}
	asks := func(inst string) error { return a.giveWay(member.Member{Inst: inst, Name: "cp" + inst}, rows) }
	if err := asks("3"); err != nil {
		t.Errorf("behind another switch: %v", err)
	}
	if err := asks("1"); err != nil {
		t.Errorf("a server with a row: %v", err)
	}
	if err := asks("2"); !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), "cp2 may become a control plane and gives way to servers behind other switches, which are in sight and have not asked yet; it is not waited for them longer than 20s") {
		t.Errorf("behind the same switch: %v", err)
	}
	now = now.Add(spreadPatience - time.Second)
	if err := asks("2"); err == nil || !strings.Contains(err.Error(), "longer than 1s") {
		t.Errorf("later: %v", err)
	}
	now = now.Add(time.Second)
	if err := asks("2"); err != nil {
		t.Errorf("at last: %v", err)
	}
	for i, f := range []Flags{{}, {Eligible: true, Joining: true}} { // workers, and servers that join, have no claim
		a.spread.since = nil
		a.fabric.Gossip = append(slices.Clone(peers[:2]), Peer{Inst: "3", Switch: "b", Flags: f}, Peer{Inst: "4", Switch: "c", Flags: f})
		if err := asks("2"); err != nil {
			t.Errorf("case %d: %v", i, err)
		}
	}
}

// Fewer eligible servers than places: a formed cluster says so, until one is in sight.
func TestLacking(t *testing.T) {
	spec := cluster.Spec{Servers: cluster.Servers{ControlPlanes: 3, Eligible: cluster.Eligible{Tag: "muster-role"}}}
	rows := []member.Member{{Inst: "1", Role: member.ControlPlane}, {Inst: "2", Role: member.ControlPlane}, {Inst: "3", Role: member.Worker}}
	inSight := []Peer{{Inst: "1", Flags: Flags{Eligible: true}}, {Inst: "2", Flags: Flags{Eligible: true}}, {Inst: "3"}}
	got := lacking(spec, rows, inSight)
	want := "2 of 3 control planes: no other server in sight may become one; spec.servers.eligible selects servers with the tag muster-role, or muster-role=control-plane; the places are kept for servers that come later"
	if len(got) != 1 || got[0].Problem != want {
		t.Errorf("it says %+v", got)
	}
	if got := lacking(spec, rows, append(inSight, Peer{Inst: "4", Flags: Flags{Eligible: true}})); got != nil {
		t.Errorf("one more is in sight: %+v", got)
	}
	rows[2].Role = member.ControlPlane
	if got := lacking(spec, rows, inSight); got != nil {
		t.Errorf("all places are taken: %+v", got)
	}
}

// An eligible rule that selects nobody: each server says what it lacks.
func TestNobodyEligible(t *testing.T) {
	a := New(Machine{Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now})
	a.Cluster.Spec.Servers.Eligible.Tag = "muster-rolle"
	a.device.Tags = []string{"muster-role=control-plane", "rack1"}
	a.fabric.Gossip = listGossip{{Inst: "1"}, {Inst: "2"}}
	forming := member.Status{Decree: member.Decree{State: "forming", Votes: 3, Quorum: 3}}
	want := "this server may not become a control plane: spec.servers.eligible selects servers with the tag muster-rolle, or muster-rolle=control-plane, and its tags are muster-role=control-plane, rack1"
	if got := a.eligibleProblems(forming); !slices.Equal(got, []string{want}) {
		t.Errorf("it says %q", got)
	}
	early := forming
	early.Decree.Votes = 2
	if got := a.eligibleProblems(early); got != nil {
		t.Errorf("while others may come: %q", got)
	}
	a.fabric.Gossip = listGossip{{Inst: "1", Flags: Flags{Eligible: true}}, {Inst: "2"}}
	if got := a.eligibleProblems(forming); got != nil {
		t.Errorf("one is eligible: %q", got)
	}
}
