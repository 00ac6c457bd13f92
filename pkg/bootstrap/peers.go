package bootstrap

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// Discovery is how the search for other servers stands, with the servers that
// gossip sees at what was found.
func (s *Server) Discovery(ctx context.Context) (member.Discovery, error) {
	a := s.agent
	if !a.connected.Load() {
		return member.Discovery{}, fmt.Errorf("this server looks for no others yet, it is in phase %s: %w", a.board.read().Phase, agent.ErrNotReady)
	}
	return named(a.fabric.Search.Report(), a.fabric.Gossip.Peers(), s.Servers(ctx), a.self.Inst, a.Now()), nil
}

// named adds to what was found who is there. Members that only gossip told of are
// added.
func named(d member.Discovery, inSight []Peer, servers []member.Status, self string, now time.Time) member.Discovery {
	names := map[string]string{}
	for _, s := range servers {
		names[s.Inst] = s.Name
	}
	at := map[netip.Addr]int{}
	for i, f := range d.Found {
		at[f.Address] = i
	}
	for _, p := range inSight {
		if p.Inst == self {
			continue
		}
		i, found := at[p.Address]
		if !found {
			i = len(d.Found)
			at[p.Address] = i
			d.Found = append(d.Found, member.Found{Address: p.Address, By: []string{member.ByGossip}, Asked: now})
		}
		f := &d.Found[i]
		f.Inst, f.HW, f.Name, f.Answered = p.Inst, p.HW, names[p.Inst], true
	}
	slices.SortFunc(d.Found, func(a, b member.Found) int { return a.Address.Compare(b.Address) })
	return d
}

// searchProblems are the ways of discovery that fail, while servers still look for
// each other.
func (a *Agent) searchProblems() []string {
	if a.board.read().Decree.State == string(election.PhaseSealed) {
		return nil
	}
	var out []string
	for _, w := range a.fabric.Search.Report().Ways {
		if w.Problem != "" && w.Resting == "" {
			out = append(out, fmt.Sprintf("discovery by %s: %s", w.Name, w.Problem))
		}
	}
	return out
}
