package bootstrap

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// answer is one server's status, or why there is none.
type answer struct {
	peer   Peer
	status member.Status
	err    error
	asked  time.Time
	took   time.Duration
}

// askEach bounds one server's answer to status.
const askEach = 2 * time.Second

// askAll asks every server in sight at once.
func (a *Agent) askAll(ctx context.Context) []answer {
	peers := a.fabric.Gossip.Peers()
	answers := make([]answer, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askEach)
			defer cancel()
			asked := a.Now()
			status, err := a.fabric.Calls.Status(ctx, agent.Peer{Inst: p.Inst, Address: p.Address})
			answers[i] = answer{peer: p, status: status, err: err, asked: asked, took: a.Now().Sub(asked)}
		})
	}
	all.Wait()
	return answers
}

// Servers is the status of every server that this one knows of, by name: those
// that answer, those in sight that do not, and those only the directory knows.
func (s *Server) Servers(ctx context.Context) []member.Status {
	a := s.agent
	own := s.Status(ctx)
	out := []member.Status{own}
	if !a.connected.Load() {
		return out
	}
	seen := map[string]bool{own.Inst: true}
	rows := s.knownRows(ctx)
	for _, one := range a.askAll(ctx) {
		if seen[one.peer.Inst] {
			continue
		}
		seen[one.peer.Inst] = true
		if one.err != nil {
			one.status = unanswered(one, rows)
		}
		out = append(out, one.status)
	}
	for _, row := range rows {
		if !seen[row.Inst] {
			out = append(out, member.Status{Member: row, Problem: fmt.Sprintf(
				"not in sight; it was last in phase %s: is it powered on, and does its network reach %s?", row.Phase, own.Address)})
		}
	}
	lagging(out)
	slices.SortFunc(out, func(x, y member.Status) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Inst, y.Inst))
	})
	if own.Decree.State == string(election.PhaseSealed) && len(rows) > 0 && !a.joining() {
		inSight := a.fabric.Gossip.Peers()
		out = append(out, missing(a.Cluster.Spec, out, inSight)...)
		out = append(out, lacking(a.Cluster.Spec, rows, inSight)...)
	}
	return out
}

// missing is a line for the expected servers that nobody knows in a cluster that
// was formed without them; before, the sentence of the wait for votes tells. Such a
// server has no name yet. Its address is told where discovery lists it. Servers in
// sight with joining user-data are none of the expected ones.
func missing(spec cluster.Spec, known []member.Status, inSight []Peer) []member.Status {
	hardware, at := map[string]bool{}, map[netip.Addr]bool{}
	for _, s := range known {
		joined := slices.ContainsFunc(inSight, func(p Peer) bool { return p.Inst == s.Inst && p.Joining })
		if s.HW != "" && !joined {
			hardware[s.HW] = true
		}
		at[s.Address] = true
	}
	n := spec.Servers.Expect - len(hardware)
	if n <= 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d expected servers never answered, or were removed; the cluster was formed without them, they join when they are powered on", n, spec.Servers.Expect)
	var silent []string
	for _, d := range spec.Discovery {
		for _, address := range d.Static {
			if !at[address] {
				silent, at[address] = append(silent, address.String()), true
			}
		}
	}
	if len(silent) > 0 {
		text += "; of the addresses in spec.discovery nobody is at " + strings.Join(silent, ", ")
	}
	return []member.Status{{Problem: text}}
}

// lagging says of each server that answers why it does not run by the newest revision
// of the spec that anybody knows.
func lagging(servers []member.Status) {
	var newest uint64
	for _, s := range servers {
		newest = max(newest, s.Spec.Newest)
	}
	for i := range servers {
		s := &servers[i].Spec
		if servers[i].Time.IsZero() || s.Revision >= newest {
			continue
		}
		s.Newest = newest
		switch {
		case s.Lag != "":
		case servers[i].Phase == member.Ready:
			s.Lag = fmt.Sprintf("it asks every %s, keeps the revision and starts its agent again", specEveryWorker)
		default:
			s.Lag = "it takes the revision when it is a node of the cluster"
		}
	}
}

func unanswered(one answer, rows []member.Member) member.Status {
	status := member.Status{Member: member.Member{Inst: one.peer.Inst, HW: one.peer.HW, Address: one.peer.Address, Name: one.peer.Address.String()}}
	for _, row := range rows {
		if row.Inst == one.peer.Inst {
			status.Member = row
		}
	}
	status.Problem = "in sight but does not answer: " + one.err.Error()
	return status
}

// knownRows reads the directory, here or at a control plane; without one there
// are no rows, and status shows those in sight.
func (s *Server) knownRows(ctx context.Context) []member.Member {
	ctx, cancel := context.WithTimeout(ctx, askEach)
	defer cancel()
	if rows, err := s.Members(ctx); err == nil {
		return rows
	}
	a := s.agent
	if !a.fabric.Trust.Enrolled() {
		return nil
	}
	d := a.fence.read()
	var rows []member.Member
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		rows, err = a.fabric.Calls.Members(ctx, p)
		return err
	})
	if err != nil {
		a.Log.Debug("reading the directory for status", "error", err)
	}
	return rows
}
