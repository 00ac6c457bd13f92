package bootstrap

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
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
	slices.SortFunc(out, func(x, y member.Status) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Inst, y.Inst))
	})
	return out
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
