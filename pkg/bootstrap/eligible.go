package bootstrap

import (
	"fmt"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// spreadPatience is how long a server waits for one behind another switch to ask
// for its place among the control planes. Those that were powered on together ask
// within a second.
const spreadPatience = 20 * time.Second

// spread lets one claim at a time decide, and remembers who waits since when.
type spread struct {
	sync.Mutex
	since map[string]time.Time // by instance
}

// giveWay returns why a server that may become a control plane has to ask again
// later, nil when it need not. rows are those of the directory.
func (a *Agent) giveWay(m member.Member, rows []member.Member) error {
	placed := map[string]bool{}
	for _, r := range rows {
		if r.Inst == m.Inst {
			return nil
		}
		placed[r.Inst] = true
	}
	var seek plan.Seekers
	var taken []string
	behind := map[string]string{} // switches of those in sight
	for _, p := range a.fabric.Gossip.Peers() {
		behind[p.Inst] = p.Switch
		if p.Eligible && !p.Joining && !placed[p.Inst] && p.Inst != m.Inst {
			seek.Others = append(seek.Others, p.Switch)
		}
	}
	seek.Asking = behind[m.Inst]
	free := a.Cluster.Spec.Servers.ControlPlanes
	for _, r := range rows {
		if r.Role == member.ControlPlane {
			free--
			taken = append(taken, behind[r.Inst])
		}
	}
	if !plan.GivesWay(seek, taken, free) {
		return nil
	}
	now := a.Now()
	if a.spread.since == nil {
		a.spread.since = map[string]time.Time{}
	}
	first, waits := a.spread.since[m.Inst]
	if !waits {
		first = now
		a.spread.since[m.Inst] = now
	}
	left := spreadPatience - now.Sub(first)
	if left <= 0 {
		a.Log.Info("the servers behind other switches do not ask; the place is given all the same", "to", m.Name)
		return nil
	}
	return fmt.Errorf("%s may become a control plane and gives way to servers behind other switches, which are in sight and have not asked yet; it is not waited for them longer than %s: %w",
		m.Name, left.Round(time.Second), agent.ErrNotReady)
}

// eligibleProblems say why this server is not what it could have been.
func (a *Agent) eligibleProblems(s member.Status) []string {
	servers := a.Cluster.Spec.Servers
	if a.self.Eligible {
		if s.Role == member.Worker && s.Phase != member.Ready && !a.joining() {
			return []string{fmt.Sprintf("this server may become a control plane, but all %d places are taken: it is a worker", servers.ControlPlanes)}
		}
		return nil
	}
	if a.joining() || s.Decree.State != string(election.PhaseForming) || s.Decree.Votes < s.Decree.Quorum {
		return nil
	}
	for _, p := range a.fabric.Gossip.Peers() {
		if p.Eligible {
			return nil
		}
	}
	return []string{plan.WhyNotEligible(servers.Eligible, a.device)}
}

// lacking is a line for the places of control planes that nobody in sight may take,
// in a cluster that has formed.
func lacking(spec cluster.Spec, rows []member.Member, inSight []Peer) []member.Status {
	placed, have := map[string]bool{}, 0
	for _, r := range rows {
		placed[r.Inst] = true
		if r.Role == member.ControlPlane {
			have++
		}
	}
	for _, p := range inSight {
		if p.Eligible && !placed[p.Inst] {
			return nil // it asks, or will
		}
	}
	k := spec.Servers.ControlPlanes
	if have >= k {
		return nil
	}
	return []member.Status{{Problem: fmt.Sprintf("%d of %d control planes: no other server in sight may become one; %s; the places are kept for servers that come later",
		have, k, plan.WhoIsEligible(spec.Servers.Eligible))}}
}
