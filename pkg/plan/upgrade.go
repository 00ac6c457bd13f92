package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// Times of the exchange of agents, one server at a time.
const (
	// AgentSilence is how long a server must not have answered before the others go on
	// without it; it has its turn when it is back. A reboot is shorter.
	AgentSilence = 10 * time.Minute
	// AgentClaim is how long a server says that it is next before it begins. In that
	// time every other server hears of it, also one that thought it gone.
	AgentClaim = 10 * time.Second
)

// AgentPeer is a server as another one sees it that wants to exchange its agent.
type AgentPeer struct {
	Inst, Name string
	Role       member.Role
	Answers    bool
	Silent     time.Duration // for how long it has not answered
	Ready      bool
	Agent      member.AgentStatus
}

// AgentStep is what a server does about its agent now.
type AgentStep string

// Steps.
const (
	AgentKeep  AgentStep = "keep"  // it runs what is pinned, or nothing is
	AgentHold  AgentStep = "hold"  // the agent was tried, here or elsewhere, and did not do
	AgentWait  AgentStep = "wait"  // another server is first
	AgentFirst AgentStep = "first" // it is this server's turn
)

// AgentTurn decides whether it is a server's turn to exchange its agent for the pinned
// one, and says why not. Servers go in one order, workers first, because least hangs
// on them; each waits until all before it run the pinned agent and are Ready. So one
// exchanges at a time, without a lock that a new agent would have to give back, and
// the first one whose agent does not do holds all others up.
//
// ahead is how many are before it in that order and not done.
func AgentTurn(self AgentPeer, pinned string, others []AgentPeer) (step AgentStep, why string, ahead int) {
	switch {
	case pinned == "" || self.Agent.SHA256 == pinned:
		return AgentKeep, "", 0
	case self.Agent.State == member.AgentReturned && self.Agent.Pinned == pinned:
		return AgentHold, self.Agent.Detail, 0
	}
	for _, p := range others {
		if p.Answers && p.Agent.State == member.AgentReturned && p.Agent.Pinned == pinned {
			return AgentHold, fmt.Sprintf("%s tried it and went back: %s", p.Name, p.Agent.Detail), 0
		}
	}
	var blocking string
	say := func(text string) { blocking = cmp.Or(blocking, text) }
	for _, p := range inAgentOrder(others) {
		before := agentOrder(p, self) < 0
		switch {
		case !p.Answers:
			if before && p.Silent < AgentSilence {
				say(fmt.Sprintf("%s, which does not answer and is passed over after %s", p.Name, AgentSilence))
				ahead++
			}
		case p.Agent.State == member.AgentTrial:
			say(p.Name + ", which tries it")
			ahead++
		case before && p.Agent.SHA256 != pinned:
			say(p.Name + ", which comes before this server")
			ahead++
		case before && !p.Ready:
			say(p.Name + ", which runs it and is not ready")
			ahead++
		}
	}
	if blocking != "" {
		return AgentWait, blocking, ahead
	}
	if !self.Ready {
		return AgentWait, "this server, which is not ready", 0
	}
	return AgentFirst, "", 0
}

func inAgentOrder(list []AgentPeer) []AgentPeer {
	return slices.SortedFunc(slices.Values(list), agentOrder)
}

// agentOrder puts control planes last.
func agentOrder(a, b AgentPeer) int {
	last := func(p AgentPeer) int {
		if p.Role == member.ControlPlane {
			return 1
		}
		return 0
	}
	return cmp.Or(last(a)-last(b), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Inst, b.Inst))
}
