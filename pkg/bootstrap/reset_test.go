package bootstrap

import (
	"errors"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

func TestWeighReset(t *testing.T) {
	const id, inst, hw, ca = "5b0c", "a1", "h1", "sha256:good"
	config := election.Config{SpecID: id, N: 5, Q: 4}
	state := func(change func(*election.State)) *election.State {
		s := &election.State{SpecID: id, Inst: inst, Hardware: election.Hardware{HW: hw}}
		if change != nil {
			change(s)
		}
		return s
	}
	sealed := func(s *election.State) { s.Sealed = election.Sealed{CAHash: ca} }
	leads := election.Value{Kind: election.Lead, Leader: election.Leader{Inst: inst, HW: hw, CAHash: ca}}
	goes := func(s *election.State) {
		s.GoMarker = true
		s.Slots = []election.Slot{{Decided: leads}, {Decided: election.Value{Kind: election.Go, Leader: leads.Leader}}}
	}
	for _, c := range []struct {
		name          string
		life          Life
		refused, says string
	}{
		{"nothing there", Life{}, "", ""},
		{"a roll call without a vote", Life{State: state(nil)}, "", ""},
		{"it voted", Life{State: state(func(s *election.State) { s.Slots = []election.Slot{{}} })}, "", "With 5 servers and a quorum of 4, more than 2 that were reset"},
		{"it holds GO", Life{State: state(goes)}, "bootstrap supersede on another", "until an operator supersedes"},
		{"sealed and not joined yet", Life{State: state(sealed), Role: member.Worker}, "", ""},
		{"a join that has not ended, and etcd may count its vote", Life{State: state(sealed), Role: member.ControlPlane, CAHash: ca, Etcd: true}, "counts on its etcd", "a member that never comes back"},
		{"etcd's data of another CA", Life{State: state(sealed), CAHash: "sha256:other", Etcd: true}, "", ""},
		{"a worker", Life{State: state(sealed), Role: member.Worker, Made: true, CAHash: ca}, "bootstrap leave takes it out", "its pods end"},
		{"a control plane", Life{State: state(sealed), Role: member.ControlPlane, Made: true, CAHash: ca}, "counts on its etcd", "the cluster is lost for good"},
		{"removed", Life{State: state(sealed), Role: member.ControlPlane, Made: true, CAHash: ca, Removed: true}, "", ""},
		{"left", Life{State: state(sealed), Role: member.ControlPlane, Made: true, CAHash: ca, Left: true}, "", ""},
		{"of another cluster", Life{State: state(func(s *election.State) { sealed(s); s.SpecID = "other" }), Role: member.ControlPlane, Made: true, CAHash: ca}, "", "a node of another formed cluster, other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.life.Config = config
			danger, err := WeighReset(c.life, false)
			if (c.refused != "") != errors.Is(err, agent.ErrRefused) || c.refused != "" && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v, expected a refusal with %q", err, c.refused)
			}
			if said := strings.Join(danger, "\n"); (c.says == "") != (said == "") || !strings.Contains(said, c.says) {
				t.Errorf("it says %q, expected %q", said, c.says)
			}
			forced, err := WeighReset(c.life, true)
			if err != nil || len(forced) != len(danger) {
				t.Errorf("with force: %q, %v; expected no error and the same dangers", forced, err)
			}
		})
	}
}

// A cluster file that is gone or cannot be read makes no server free to go.
func TestWeighResetWithoutClusterFile(t *testing.T) {
	for _, role := range []member.Role{member.ControlPlane, member.Worker} {
		life := Life{
			State: &election.State{SpecID: "5b0c", Sealed: election.Sealed{CAHash: "sha256:good"}}, Config: election.Config{},
			Role: role, Made: true, CAHash: "sha256:good",
		}
		if danger, err := WeighReset(life, false); !errors.Is(err, agent.ErrRefused) || len(danger) == 0 {
			t.Errorf("a %s: %q, %v; expected a refusal", role, danger, err)
		}
	}
}
