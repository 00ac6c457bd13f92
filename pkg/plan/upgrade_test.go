package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

const (
	oldAgent = "old"
	newAgent = "new"
)

// runs is a ready server with an agent.
func runs(name, sum string) AgentPeer {
	role := member.Worker
	if name[0] == 'c' {
		role = member.ControlPlane
	}
	return AgentPeer{Inst: "i-" + name, Name: name, Role: role, Answers: true, Ready: true, Agent: member.AgentStatus{SHA256: sum}}
}

func (p AgentPeer) with(f func(*AgentPeer)) AgentPeer {
	f(&p)
	return p
}

func TestAgentTurn(t *testing.T) {
	unready := func(p *AgentPeer) { p.Ready = false }
	silent := func(d time.Duration) func(*AgentPeer) {
		return func(p *AgentPeer) { p.Answers, p.Ready, p.Silent, p.Agent = false, false, d, member.AgentStatus{} }
	}
	trial := func(p *AgentPeer) { p.Agent.State = member.AgentTrial }
	returned := func(p *AgentPeer) {
		p.Agent.State, p.Agent.Pinned, p.Agent.Detail = member.AgentReturned, newAgent, "it ended with 1"
	}
	for _, row := range []struct {
		name   string
		self   AgentPeer
		pinned string
		others []AgentPeer
		want   AgentStep
		why    string
		ahead  int
	}{
		{"nothing is pinned", runs("cp1", oldAgent), "", nil, AgentKeep, "", 0},
		{"it runs", runs("cp1", newAgent), newAgent, []AgentPeer{runs("w1", oldAgent)}, AgentKeep, "", 0},
		{"alone", runs("cp1", oldAgent), newAgent, nil, AgentFirst, "", 0},
		{"alone and not ready", runs("cp1", oldAgent).with(unready), newAgent, nil, AgentWait, "this server, which is not ready", 0},
		{"it did not do here", runs("cp1", oldAgent).with(returned), newAgent, nil, AgentHold, "it ended with 1", 0},
		{"another one did not do here", runs("cp1", oldAgent).with(returned), "newer", nil, AgentFirst, "", 0},
		{"it did not do elsewhere", runs("w1", oldAgent), newAgent, []AgentPeer{runs("w2", oldAgent).with(returned)}, AgentHold, "w2 tried it and went back: it ended with 1", 0},
		{"a worker is before control planes", runs("w1", oldAgent), newAgent, []AgentPeer{runs("cp1", oldAgent)}, AgentFirst, "", 0},
		{"a control plane is after workers", runs("cp1", oldAgent), newAgent, []AgentPeer{runs("w2", oldAgent), runs("w1", oldAgent), runs("cp2", oldAgent)}, AgentWait, "w1, which comes before this server", 2},
		{"the one before runs it", runs("cp2", oldAgent), newAgent, []AgentPeer{runs("cp1", newAgent), runs("cp3", oldAgent)}, AgentFirst, "", 0},
		{"the one before runs it, on trial", runs("cp2", oldAgent), newAgent, []AgentPeer{runs("cp1", newAgent).with(trial)}, AgentWait, "cp1, which tries it", 1},
		{"the one before runs it and is not ready", runs("cp2", oldAgent), newAgent, []AgentPeer{runs("cp1", newAgent).with(unready)}, AgentWait, "cp1, which runs it and is not ready", 1},
		{"one after it is on trial", runs("cp1", oldAgent), newAgent, []AgentPeer{runs("cp3", newAgent).with(trial)}, AgentWait, "cp3, which tries it", 1},
		{"the one before is silent", runs("cp2", oldAgent), newAgent, []AgentPeer{runs("cp1", oldAgent).with(silent(time.Minute))}, AgentWait, "cp1, which does not answer and is passed over after 10m0s", 1},
		{"the one before is silent for long", runs("cp2", oldAgent), newAgent, []AgentPeer{runs("cp1", oldAgent).with(silent(AgentSilence))}, AgentFirst, "", 0},
		{"one after it is silent", runs("cp1", oldAgent), newAgent, []AgentPeer{runs("cp2", oldAgent).with(silent(0))}, AgentFirst, "", 0},
		{"one after it is not ready", runs("cp1", oldAgent), newAgent, []AgentPeer{runs("cp2", oldAgent).with(unready)}, AgentFirst, "", 0},
	} {
		step, why, ahead := AgentTurn(row.self, row.pinned, row.others)
		if step != row.want || why != row.why || ahead != row.ahead {
			t.Errorf("%s: %s, %q, %d ahead; expected %s, %q, %d", row.name, step, why, ahead, row.want, row.why, row.ahead)
		}
	}
}

// TestOneAgentAtATime plays rolls in which servers fall silent, come back and look at
// each other late, as in a cluster: never are two on trial, and all come to run it.
func TestOneAgentAtATime(t *testing.T) {
	for seed := range uint64(300) {
		r := newRoll(rand.New(rand.NewPCG(seed, 7)))
		for step := 0; !r.done(); step++ {
			if step > 100_000 {
				t.Fatalf("seed %d: after %s they run %v", seed, r.now, r.servers)
			}
			r.tick()
			if n := r.trials(); n > 1 {
				t.Fatalf("seed %d: after %s %d servers are on trial: %v", seed, r.now, n, r.servers)
			}
		}
	}
}

// roll is a cluster whose servers look at the others every few seconds.
type roll struct {
	rand    *rand.Rand
	now     time.Duration
	servers []*rolling
}

type rolling struct {
	AgentPeer
	off        bool
	next       time.Duration // when it looks again
	decided    AgentStep
	claimed    time.Duration
	trialEnds  time.Duration
	lastAnswer map[string]time.Duration
}

func (s *rolling) String() string {
	return fmt.Sprintf("%s %s %s off=%t", s.Name, s.Agent.SHA256, s.Agent.State, s.off)
}

func newRoll(r *rand.Rand) *roll {
	w := &roll{rand: r}
	for i := range 2 + r.IntN(5) {
		name := fmt.Sprintf("w%d", i)
		if i%2 == 0 {
			name = fmt.Sprintf("cp%d", i)
		}
		w.servers = append(w.servers, &rolling{AgentPeer: runs(name, oldAgent), lastAnswer: map[string]time.Duration{}})
	}
	return w
}

func (w *roll) done() bool {
	for _, s := range w.servers {
		if s.Agent.SHA256 != newAgent || s.Agent.State != "" {
			return false
		}
	}
	return true
}

func (w *roll) trials() (n int) {
	for _, s := range w.servers {
		if s.Agent.State == member.AgentTrial {
			n++
		}
	}
	return n
}

// tick is one second in which one server may fall silent or come back, not in the
// middle of a trial, and best just when another begins.
func (w *roll) tick() {
	w.now += time.Second
	if s := w.servers[w.rand.IntN(len(w.servers))]; (w.rand.IntN(300) == 0 && !s.off || s.off && w.rand.IntN(400) == 0 || s.off && w.begins() && w.rand.IntN(4) == 0) && s.Agent.State != member.AgentTrial {
		s.off, s.Agent.State, s.claimed = !s.off, "", 0
		s.next, s.decided = w.now, ""
		s.lastAnswer = map[string]time.Duration{}
	}
	for _, s := range w.servers {
		switch {
		case s.off:
		case s.Agent.State == member.AgentTrial && w.now >= s.trialEnds:
			s.Agent.State = ""
		case s.Agent.State != member.AgentTrial && w.now >= s.next:
			// What it decides it does a few seconds after it looked: answers take time.
			w.act(s, s.decided)
			s.decided = w.look(s)
			s.next = w.now + time.Duration(1+w.rand.IntN(5))*time.Second
		}
	}
}

func (w *roll) begins() bool {
	return slices.ContainsFunc(w.servers, func(s *rolling) bool { return s.decided == AgentFirst && !s.off })
}

func (w *roll) look(s *rolling) AgentStep {
	var others []AgentPeer
	for _, p := range w.servers {
		if p == s {
			continue
		}
		one := p.AgentPeer
		if _, heard := s.lastAnswer[p.Name]; p.off && !heard {
			s.lastAnswer[p.Name] = w.now
		}
		if one.Answers, one.Ready = !p.off, !p.off; !p.off {
			s.lastAnswer[p.Name] = w.now
		}
		one.Silent = w.now - s.lastAnswer[p.Name]
		others = append(others, one)
	}
	step, _, _ := AgentTurn(s.AgentPeer, newAgent, others)
	return step
}

func (w *roll) act(s *rolling, step AgentStep) {
	switch {
	case step != AgentFirst:
		s.claimed = 0
		s.Agent.State = ""
	case s.claimed == 0:
		s.claimed, s.Agent.State = w.now, member.AgentNext
	case w.now-s.claimed >= AgentClaim:
		s.Agent.SHA256, s.Agent.State = newAgent, member.AgentTrial
		s.trialEnds = w.now + time.Duration(10+w.rand.IntN(60))*time.Second
	}
}
