package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/ledger"
	"github.com/mustermetal/muster/test/rig/machine"
)

// Judge says what is wrong with a ledger, whatever happened: at most one instance
// that was not superseded began kubeadm init, always with the same authorities, and
// whoever joined joined that cluster.
func Judge(lines []ledger.Line, superseded ...string) error {
	inits := map[string]ledger.Line{} // by instance
	var standing []string
	var errs []error
	for _, l := range lines {
		if l.What != ledger.Init {
			continue
		}
		first, again := inits[l.Inst]
		if again && first.CA != l.CA {
			errs = append(errs, fmt.Errorf("instance %s on %s ran kubeadm init with the CA %s and again with %s", l.Inst, l.Server, first.CA, l.CA))
		}
		if !again && !slices.Contains(superseded, l.Inst) {
			standing = append(standing, l.Inst)
		}
		inits[l.Inst] = l
	}
	if len(standing) > 1 {
		var who []string
		for _, inst := range standing {
			l := inits[inst]
			who = append(who, fmt.Sprintf("%s (instance %s, CA %s, %s)", l.Server, inst, l.CA, l.Time.Format(time.StampMilli)))
		}
		errs = append(errs, fmt.Errorf("kubeadm init ran on %d instances: %s", len(standing), strings.Join(who, ", ")))
	}
	for _, l := range lines {
		if l.What == ledger.Join && (len(standing) == 0 || l.CA != inits[standing[0]].CA) {
			errs = append(errs, fmt.Errorf("%s joined a cluster with the CA %s, which no kubeadm init that stands made", l.Server, l.CA))
		}
	}
	return errors.Join(errs...)
}

// Joined lists the servers that began kubeadm init or ended kubeadm join, sorted.
func Joined(lines []ledger.Line) []string {
	var out []string
	for _, l := range lines {
		if l.What == ledger.Init || l.What == ledger.Join {
			out = append(out, l.Server)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// AwaitFormed waits until n of the servers say of themselves that they are ready in
// a sealed cluster, and that it is the same one. It returns the others. Its error says
// how far each is.
func AwaitFormed(ctx context.Context, servers []*Server, n int) (rest []*Server, err error) {
	for {
		began := time.Now()
		answers := ask(ctx, servers)
		rest = rest[:0]
		seen := map[string]bool{}
		for i, a := range answers {
			if a.ready() {
				seen[a.status.Decree.CAHash] = true
			} else {
				rest = append(rest, servers[i])
			}
		}
		if len(servers)-len(rest) >= n {
			if len(seen) != 1 {
				return rest, fmt.Errorf("the servers call different clusters theirs:\n%s", report(servers, answers))
			}
			return rest, nil
		}
		pause := time.NewTimer(machine.Rest(time.Since(began), 200*time.Millisecond))
		select {
		case <-ctx.Done():
			pause.Stop()
			return rest, fmt.Errorf("the cluster is not formed (%w):\n%s", context.Cause(ctx), report(servers, answers))
		case <-pause.C:
		}
	}
}

// answer is what one server says of itself.
type answer struct {
	status member.Status
	err    error
}

func (a answer) ready() bool {
	return a.err == nil && a.status.Phase == member.Ready && a.status.Decree.State == string(election.PhaseSealed)
}

// ask asks each server for itself, all at once.
func ask(ctx context.Context, servers []*Server) []answer {
	answers := make([]answer, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() { answers[i].status, answers[i].err = s.Status(ctx) })
	}
	all.Wait()
	return answers
}

// report says how far each server is, a line each.
func report(servers []*Server, answers []answer) string {
	var b strings.Builder
	for i, a := range answers {
		if a.err != nil {
			fmt.Fprintf(&b, "  %s: %v\n", servers[i].Name, a.err)
			continue
		}
		d := a.status.Decree
		fmt.Fprintf(&b, "  %s: %s, %s e%d of %s, %d/%d votes; waits: %s; problem: %s\n",
			servers[i].Name, a.status.Phase, d.State, d.Epoch, d.LeaderName, d.Votes, d.Quorum, a.status.Waiting, a.status.Problem)
	}
	return b.String()
}
