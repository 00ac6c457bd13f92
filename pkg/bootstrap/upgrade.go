package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Program is the agent's own program, and the way to another one.
type Program interface {
	// Running is the sha256 of the program that runs.
	Running() (string, error)
	// Pinned is that of the program that is to run on this server, "" when any may.
	Pinned() string
	// Last is the last exchange on this server; empty when there was none.
	Last() (Exchange, error)
	// Fetch returns when the pinned program lies on this server, verified.
	Fetch(ctx context.Context, sha256 string) error
	// Exchange begins an exchange for it; the agent is started anew by it.
	Exchange(ctx context.Context, sha256 string) error
	// Keep removes the fetched programs that are none of these.
	Keep(sha256 ...string) error
	// GoOn starts what carries an exchange out, where that does not run, and returns when
	// the exchange is over or cannot go on.
	GoOn(ctx context.Context) error
}

// Exchange is one of agents.
type Exchange struct {
	To       string // sha256
	UnderWay bool
	Returned string // why the former program is back
}

// Pauses between two looks at the other servers' agents. Each look asks all of them,
// so who is far from its turn looks seldom.
const (
	agentLook    = 5 * time.Second
	agentAhead   = 2 * time.Second // for each server before this one
	agentSeldom  = 5 * time.Minute
	agentSettled = 30 * time.Second // there is nothing to exchange
	agentTrial   = time.Second
	agentGoOn    = 10 * time.Second // an exchange under way starts by itself within
)

// agentRoll is what keepAgent remembers between two looks.
type agentRoll struct {
	heard   map[string]time.Time // when a server answered last, or was missed first
	claimed time.Time            // since when this server is next
	fetched string               // sha256 of what lies here

	underWay time.Time // since when an exchange is
	hindered string    // why it does not go on
}

// keepAgent belongs to step 10: it exchanges this server's agent for the pinned one
// when it is this server's turn, and tells in status how that stands.
func (a *Agent) keepAgent(ctx context.Context, server *Server) error {
	if a.Program == nil {
		return nil
	}
	roll := agentRoll{heard: map[string]time.Time{}}
	said := ""
	for {
		pause, err := a.lookAtAgent(ctx, server, &roll)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.board.change(func(s *member.Status) { s.Agent.Detail = err.Error() })
			if err.Error() != said {
				a.Log.Warn("exchange of the agent", "error", err)
			}
			said = err.Error()
		}
		if sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// lookAtAgent is one look, and one step where it is this server's turn.
func (a *Agent) lookAtAgent(ctx context.Context, server *Server, roll *agentRoll) (time.Duration, error) {
	last, err := a.Program.Last()
	if err != nil {
		return agentSettled, err
	}
	running, err := a.Program.Running()
	if err != nil {
		return agentSettled, err
	}
	tell := func(s member.AgentStatus) {
		s.SHA256 = running
		a.board.change(func(st *member.Status) { st.Agent = s })
	}
	pinned := a.Program.Pinned()
	if last.UnderWay {
		return a.goOn(ctx, last, roll, tell)
	}
	roll.underWay, roll.hindered = time.Time{}, ""
	if pinned == "" || pinned == running {
		tell(member.AgentStatus{})
		return agentSettled, a.Program.Keep(running, pinned)
	}
	own := member.AgentStatus{SHA256: running, Pinned: pinned}
	if last.Returned != "" && last.To == pinned {
		own.State, own.Detail = member.AgentReturned, last.Returned
	}
	self := plan.AgentPeer{Inst: a.self.Inst, Name: a.self.Node.Name, Role: a.board.read().Role, Ready: a.board.read().Phase == member.Ready, Agent: own}
	step, why, ahead := plan.AgentTurn(self, pinned, a.agentPeers(ctx, server, roll))
	if step != plan.AgentFirst {
		roll.claimed = time.Time{}
	}
	switch step {
	case plan.AgentHold:
		if own.State == "" {
			own.State, own.Detail = member.AgentHeld, why
		}
		tell(own)
		return agentSettled, nil
	case plan.AgentWait:
		own.State, own.Detail = member.AgentWaits, "waits for "+why
		tell(own)
		return min(max(agentLook, time.Duration(ahead)*agentAhead), agentSeldom), nil
	}
	return a.takeTurn(ctx, own, roll, tell)
}

// goOn waits for an exchange that is under way. All other servers wait for it too, so
// one whose unit does not run is started again, and what keeps it is told.
func (a *Agent) goOn(ctx context.Context, last Exchange, roll *agentRoll, tell func(member.AgentStatus)) (time.Duration, error) {
	trial := member.AgentStatus{Pinned: last.To, State: member.AgentTrial, Detail: roll.hindered}
	if trial.Detail == "" {
		trial.Detail = "bootstrap " + short(last.To) + " has to be ready in time, or the former one comes back"
	}
	tell(trial)
	if roll.underWay.IsZero() {
		roll.underWay = a.Now()
	}
	if a.Now().Sub(roll.underWay) < agentGoOn {
		return agentTrial, nil
	}
	if err := a.Program.GoOn(ctx); err != nil {
		err = fmt.Errorf("the exchange for bootstrap %s does not go on, and all other servers wait for it: %w", short(last.To), err)
		roll.hindered = err.Error()
		return agentLook, err
	}
	return agentTrial, nil
}

// takeTurn claims the turn, has the program fetched, and begins, in as many looks: the
// others are looked at again before it begins.
func (a *Agent) takeTurn(ctx context.Context, own member.AgentStatus, roll *agentRoll, tell func(member.AgentStatus)) (time.Duration, error) {
	if roll.claimed.IsZero() {
		roll.claimed = a.Now()
	}
	if roll.fetched != own.Pinned {
		own.State = member.AgentFetches
		tell(own)
		if err := a.Program.Keep(own.SHA256, own.Pinned); err != nil {
			return agentLook, err
		}
		if err := a.Program.Fetch(ctx, own.Pinned); err != nil {
			return agentLook, fmt.Errorf("fetching bootstrap %s: %w", short(own.Pinned), err)
		}
		roll.fetched = own.Pinned
		own.State = member.AgentNext
		tell(own)
		return max(agentTrial, plan.AgentClaim-a.Now().Sub(roll.claimed)), nil
	}
	if left := plan.AgentClaim - a.Now().Sub(roll.claimed); left > 0 {
		own.State = member.AgentNext
		tell(own)
		return left, nil
	}
	own.State, own.Detail = member.AgentTrial, "begins"
	tell(own)
	a.Log.Info("the agent is exchanged", "from", own.SHA256, "to", own.Pinned)
	if err := a.Program.Exchange(ctx, own.Pinned); err != nil {
		return agentLook, fmt.Errorf("exchanging the agent for %s: %w", short(own.Pinned), err)
	}
	return agentTrial, nil
}

// agentPeers are the other servers as they answer now.
func (a *Agent) agentPeers(ctx context.Context, server *Server, roll *agentRoll) []plan.AgentPeer {
	var out []plan.AgentPeer
	for _, s := range server.Servers(ctx) {
		if s.Inst == "" || s.Inst == a.self.Inst { // one that never came has no instance
			continue
		}
		answers := !s.Time.IsZero()
		if _, known := roll.heard[s.Inst]; answers || !known {
			roll.heard[s.Inst] = a.Now()
		}
		out = append(out, plan.AgentPeer{
			Inst: s.Inst, Name: s.Name, Role: s.Role, Answers: answers, Silent: a.Now().Sub(roll.heard[s.Inst]),
			Ready: s.Phase == member.Ready, Agent: s.Agent,
		})
	}
	return out
}

// agentProblem is what a person has to do something about.
func agentProblem(s member.AgentStatus) string {
	if s.State != member.AgentReturned && s.State != member.AgentHeld {
		return ""
	}
	return fmt.Sprintf("bootstrap %s is pinned and not taken: %s; pin another one, or see docs/node-life.md", short(s.Pinned), s.Detail)
}

// errNoSelf is what AgentAnswer says before the program is known.
var errNoSelf = errors.New("the agent does not know its own program yet")

// AgentAnswer says which program answers, and whether this server is ready.
func (s *Server) AgentAnswer() (sha256 string, ready bool, err error) {
	st := s.agent.board.read()
	if st.Agent.SHA256 == "" {
		return "", false, errNoSelf
	}
	return st.Agent.SHA256, st.Phase == member.Ready, nil
}

// short is enough of a sha256 for a person to compare.
func short(sum string) string { return sum[:min(12, len(sum))] }

// onTrial says whether this server's program is being exchanged.
func (a *Agent) onTrial() bool {
	if a.Program == nil {
		return false
	}
	last, err := a.Program.Last()
	return err == nil && last.UnderWay
}
