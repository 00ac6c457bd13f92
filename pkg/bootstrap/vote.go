package bootstrap

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// startFence gives the core its state and what this server brings.
func (a *Agent) startFence(ctx context.Context, work *errgroup.Group, s Settled) {
	cfg := election.FromSpec(a.Cluster.Spec)
	self := election.Self{Name: s.Node.Name, Address: s.Node.Private, Eligible: s.Eligible}
	f := newFence(a.Log, election.New(cfg, self, s.State))
	f.save = a.fabric.State.Save
	f.send = a.sendFence
	f.note = func(text string) { a.Log.Info("fence", "note", text) }
	f.hindered, f.freed = a.board.problem, a.board.solved
	f.changed = a.decreeChanged
	a.fence = f
	work.Go(func() error { return f.run(ctx) })

	if s.Evidence != "" { // before Start: it decides whether this server votes
		f.tell(ctx, election.Evidence{What: s.Evidence})
	}
	f.tell(ctx, election.Start{Boot: s.Boot, Run: rand.Text(), Stands: s.Stands})
	if s.Eligible && !a.joining() && !s.State.Superseded() {
		work.Go(func() error { return a.nominate(ctx, s.State.VoidCAs()) })
	}
}

// nominate makes this server one that may be proposed. It runs beside the roll
// call: keys take their time, and a full disk is no reason not to vote.
func (a *Agent) nominate(ctx context.Context, void []string) error {
	var last error
	err := retry(ctx, func(context.Context) error {
		candidate, err := a.candidate(void)
		if err == nil {
			a.fence.tell(ctx, election.Candidate{Leader: candidate})
		}
		return err
	}, func(err error) {
		last = err
		a.board.problem(err)
	})
	if err == nil && last != nil {
		a.board.solved(last)
	}
	return err
}

// candidate makes the CAs that this server would lead with, and pins them.
func (a *Agent) candidate(void []string) (election.Leader, error) {
	caHash, err := a.Kubernetes.EnsureAuthorities(void)
	if err != nil {
		return election.Leader{}, fmt.Errorf("making the cluster's CAs beforehand: %w", err)
	}
	agentCAHash, err := a.fabric.Trust.EnsureAgentCA()
	if err != nil {
		return election.Leader{}, fmt.Errorf("making the agent CA beforehand: %w", err)
	}
	return election.Leader{
		HW: a.self.HW, Inst: a.self.Inst, Name: a.self.Node.Name, Address: a.self.Node.Private,
		CAHash: caHash, AgentCAHash: agentCAHash,
	}, nil
}

// sendFence delivers a message to an instance at the address gossip knows.
func (a *Agent) sendFence(ctx context.Context, to string, m election.Message) ([]election.Received, error) {
	p, ok := a.peer(to)
	if !ok {
		return nil, fmt.Errorf("instance %s is not in sight", to)
	}
	data, err := election.EncodeMessage(m)
	if err != nil {
		return nil, err
	}
	replies, from, err := a.fabric.Calls.Fence(ctx, p, data)
	if err != nil {
		return nil, err
	}
	var out []election.Received
	for _, r := range replies {
		answer, err := election.DecodeMessage(r)
		if err != nil {
			return nil, fmt.Errorf("answer of %s: %w", p.Address, err)
		}
		out = append(out, election.Received{From: election.Sender{Inst: from.Inst, HW: from.HW}, Message: answer})
	}
	return out, nil
}

// peer finds an instance by gossip, or the leader by the decree.
func (a *Agent) peer(inst string) (agent.Peer, bool) {
	for _, p := range a.fabric.Gossip.Peers() {
		if p.Inst == inst {
			return agent.Peer{Inst: inst, Address: p.Address}, true
		}
	}
	if d := a.fence.read(); d.Leader.Inst == inst && d.Leader.Address.IsValid() {
		return agent.Peer{Inst: inst, Address: d.Leader.Address}, true
	}
	return agent.Peer{}, false
}

// watchPeers tells the core whom gossip sees.
func (a *Agent) watchPeers(ctx context.Context) error {
	for {
		var view election.View
		peers := a.fabric.Gossip.Peers()
		a.absences.see(peers, a.Now())
		for _, p := range peers {
			// This instance at another address is for the core to judge: a copied disk.
			if p.Inst != a.self.Inst || p.Address != a.self.Node.Private {
				view.Peers = append(view.Peers, election.Peer{Inst: p.Inst, HW: p.HW, Address: p.Address, Eligible: p.Eligible, Joining: p.Joining})
			}
		}
		a.fence.tell(ctx, view)
		select {
		case <-ctx.Done():
			return nil
		case <-a.fabric.Gossip.Changes():
		}
	}
}

// watchFitness tells the core what this server is ready for, until GO.
func (a *Agent) watchFitness(ctx context.Context) error {
	var last election.Fitness
	for first := true; ; first = false {
		if d := a.fence.read(); d.Phase == election.PhaseGo || d.Phase == election.PhaseSealed {
			return nil
		}
		fit := a.fitness(ctx)
		if first || fit.GoFit != last.GoFit || !slices.Equal(fit.Reasons, last.Reasons) {
			a.fence.tell(ctx, fit)
			last = fit
		}
		prepared := a.prepared
		if a.isPrepared() {
			prepared = nil
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-prepared:
		case <-a.compare: // the clock of one more may be what was missing, or this server leads
		case <-pause.C:
		}
		pause.Stop()
	}
}

func (a *Agent) fitness(ctx context.Context) election.Fitness {
	fit := election.Fitness{LeaderFit: a.self.Eligible}
	if !a.isPrepared() {
		reason := "host preparation is not done"
		if why := a.hindrance.Load(); why != nil {
			reason += ": " + (*why).Error()
		}
		fit.Reasons = append(fit.Reasons, reason)
	}
	if len(fit.Reasons) == 0 && a.self.Eligible {
		if reason := a.clockProblem(ctx); reason != "" {
			fit.Reasons = append(fit.Reasons, reason)
		}
	}
	fit.GoFit = len(fit.Reasons) == 0
	return fit
}

// clockProblem says why this server's clock may not make certificates yet.
func (a *Agent) clockProblem(ctx context.Context) string {
	synced, err := a.Clock.Synchronised()
	if err != nil {
		a.Log.Debug("reading the clock's state", "error", err)
	}
	if a.clockAsked.IsZero() {
		a.clockAsked = a.Now()
	}
	d := a.fence.read()
	clock := plan.Clock{Synced: synced, Waited: a.Now().Sub(a.clockAsked)}
	// Only the leader makes certificates: did every server ask every other, a fleet
	// that starts at once would be busy with that.
	if clock.NeedsPeers(a.Cluster.Spec.Time.Require) {
		if d.Leader.Inst != a.self.Inst {
			return "the clocks of the peers are compared when this server leads"
		}
		clock.Offsets = a.clockOffsets(ctx)
	}
	return clock.Problem(a.Cluster.Spec.Time.Require, d.Quorum)
}

// clockOffsets asks the servers in sight for their time and returns how far
// each is ahead of this one; this server's own zero is among them.
func (a *Agent) clockOffsets(ctx context.Context) []time.Duration {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	offsets := []time.Duration{0}
	for _, s := range a.askAll(ctx) {
		if s.err == nil && s.peer.Inst != a.self.Inst {
			offsets = append(offsets, s.status.Time.Sub(s.asked.Add(s.took/2)))
		}
	}
	return offsets
}

// awaitDecree returns the first decree that is good enough. Meanwhile this server
// waits for what the fence waits for.
func (a *Agent) awaitDecree(ctx context.Context, good func(election.Decree) bool) (election.Decree, error) {
	for {
		d, explanation, changed := a.fence.look()
		if good(d) {
			a.board.wait("")
			return d, nil
		}
		a.board.wait(explanation)
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-changed:
		}
	}
}

// milestone is what the journal is told of a decree.
type milestone struct {
	phase  election.Phase
	epoch  uint64
	leader string
	quorum bool // enough votes are here
}

// logDecree writes a line when something is decided, and when enough votes are
// here for the first time or no longer: what came when is read from the journal.
func (a *Agent) logDecree(d election.Decree) {
	now := milestone{phase: d.Phase, epoch: d.Epoch, leader: d.Leader.Name, quorum: d.Votes >= d.Quorum}
	if d.Phase == election.PhaseGo || d.Phase == election.PhaseSealed {
		now.quorum = false // nothing is waiting for votes
	}
	if now == a.reached {
		return
	}
	a.reached = now
	a.Log.Info("decree", "phase", d.Phase, "epoch", d.Epoch, "leader", d.Leader.Name, "votes", d.Votes, "quorum", d.Quorum, "expect", d.Expect)
}

// decreeChanged shows the decree in status, in the journal and in the gossip flags.
func (a *Agent) decreeChanged(d election.Decree) {
	a.logDecree(d)
	a.board.change(func(s *member.Status) {
		if s.Decree.Votes != d.Votes || s.Decree.Leader != d.Leader.Inst {
			select {
			case a.compare <- struct{}{}:
			default: // one that is not taken yet says as much
			}
		}
		s.Decree = member.Decree{
			State: string(d.Phase), Epoch: d.Epoch, Leader: d.Leader.Inst, LeaderName: d.Leader.Name,
			CAHash: d.Leader.CAHash, Votes: d.Votes, Quorum: d.Quorum, Expect: d.Expect,
		}
	})
	a.setFlags(func(f *Flags) {
		f.Decided = d.Phase == election.PhaseGo || d.Phase == election.PhaseSealed
		f.Sealed = d.Phase == election.PhaseSealed
	})
}

// setFlags changes what this server says of itself. Gossip hears of it under the
// lock: the last to speak must be the one that knows most.
func (a *Agent) setFlags(change func(*Flags)) {
	a.flagsMu.Lock()
	defer a.flagsMu.Unlock()
	next := a.flags
	next.Eligible, next.Joining = a.self.Eligible, a.joining()
	change(&next)
	if next != a.flags {
		a.flags = next
		a.fabric.Gossip.SetFlags(next)
	}
}
