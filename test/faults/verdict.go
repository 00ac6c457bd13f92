package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/ledger"
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

// AwaitFormed waits until every one of the servers says of itself that it is ready
// in a sealed cluster, and that it is the same one. Its error says how far each is.
func AwaitFormed(ctx context.Context, servers []*Server) error {
	for {
		report, ca, formed := look(ctx, servers)
		if formed {
			return agree(ca)
		}
		pause := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("the cluster is not formed (%w):\n%s", context.Cause(ctx), report)
		case <-pause.C:
		}
	}
}

// look asks each server for itself, all at once.
func look(ctx context.Context, servers []*Server) (report string, ca map[string]string, formed bool) {
	type answer struct {
		status member.Status
		err    error
	}
	answers := make([]chan answer, len(servers))
	for i, s := range servers {
		answers[i] = make(chan answer, 1)
		go func() {
			status, err := s.Status(ctx)
			answers[i] <- answer{status, err}
		}()
	}
	ca, formed = map[string]string{}, true
	var b strings.Builder
	for i, s := range servers {
		a := <-answers[i]
		d := a.status.Decree
		if a.err != nil {
			fmt.Fprintf(&b, "  %s: %v\n", s.Name, a.err)
		} else {
			fmt.Fprintf(&b, "  %s: %s, %s e%d of %s, %d/%d votes; waits: %s; problem: %s\n",
				s.Name, a.status.Phase, d.State, d.Epoch, d.LeaderName, d.Votes, d.Quorum, a.status.Waiting, a.status.Problem)
		}
		ca[s.Name] = d.CAHash
		formed = formed && a.err == nil && a.status.Phase == member.Ready && d.State == string(election.PhaseSealed)
	}
	return b.String(), ca, formed
}

// agree says who names another CA.
func agree(ca map[string]string) error {
	seen := map[string]string{}
	for name, hash := range ca {
		seen[hash] = name
	}
	if len(seen) != 1 {
		return fmt.Errorf("the servers call different clusters theirs: %v", ca)
	}
	return nil
}
