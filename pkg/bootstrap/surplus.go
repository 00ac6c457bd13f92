package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// askedLately is how long a server that waits for an approval is named after it
// last asked; it asks every few seconds.
const askedLately = time.Minute

// surplus is the servers that asked this one for a role and are one too many.
type surplus struct {
	mu    sync.Mutex
	asked map[string]asker // by hardware
}

type asker struct {
	name    string
	address netip.Addr
	at      time.Time
}

// note takes the outcome of a claim.
func (s *surplus) note(m member.Member, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = map[string]asker{}
	}
	delete(s.asked, m.HW)
	if errors.Is(err, agent.ErrSurplus) {
		s.asked[m.HW] = asker{m.Name, m.Address, now}
	}
}

// waiting are those that asked lately.
func (s *surplus) waiting(now time.Time) map[string]asker {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]asker{}
	for hw, a := range s.asked {
		if now.Sub(a.at) <= askedLately {
			out[hw] = a
		}
	}
	return out
}

func (s *surplus) problems(now time.Time) []string {
	var out []string
	for hw, a := range s.waiting(now) {
		out = append(out, fmt.Sprintf("%s (%s, hardware %s) is one server more than this cluster expects and waits: bootstrap approve %s lets it in, or switch it off", a.name, a.address, hw, hw))
	}
	slices.Sort(out)
	return out
}

// ApproveServer weighs an operator's order to let servers of this hardware in
// beside those that are expected, and carries it out with yes.
func (s *Server) ApproveServer(ctx context.Context, yes bool, hw string) ([]string, error) {
	if s.agent.board.read().Role == member.Worker {
		return nil, fmt.Errorf("%w: this server is a worker and keeps no directory: run the command on a control plane", agent.ErrRefused)
	}
	rows, err := s.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range rows {
		if m.HW == hw {
			return nil, fmt.Errorf("%w: %s has the hardware %s and is a member already", agent.ErrRefused, m.Name, hw)
		}
	}
	told := []string{fmt.Sprintf("No server of the hardware %s asked here within the last minute; one that does later gets in.", hw)}
	if a, ok := s.agent.surplus.waiting(s.agent.Now())[hw]; ok {
		told = []string{fmt.Sprintf("%s (%s, hardware %s) gets in, and %d servers are members then.", a.name, a.address, hw, len(rows)+1)}
	}
	told = append(told, "What the cluster file expects stays as it is, and so does the quorum.",
		"DANGER: whoever has the user-data can give itself any hardware id. Compare it with bootstrap status on the server that you mean.")
	if !yes {
		return told, nil
	}
	s.agent.Log.Warn("an operator's act", "act", "approve", "hw", hw)
	return told, s.agent.Directory.Approve(ctx, hw)
}

// Remove weighs an operator's order to take a member out of the directory for
// ever and to revoke its certificate, and carries it out with yes. Kubernetes is
// not touched: a member whose etcd votes must leave etcd first.
func (s *Server) Remove(ctx context.Context, yes bool, name string) ([]string, error) {
	db, err := s.db()
	if err != nil {
		return nil, err
	}
	plan, err := db.Remove(ctx, name, false)
	if err != nil {
		return nil, err
	}
	if plan.Role == member.ControlPlane {
		if err := s.leftEtcd(ctx, plan.Member.Name); err != nil {
			return nil, err
		}
	}
	told := removalTold(plan)
	if !yes {
		return told, nil
	}
	s.agent.Log.Warn("an operator's act", "act", "remove", "name", plan.Member.Name, "inst", plan.Member.Inst)
	_, err = db.Remove(ctx, name, true)
	return told, err
}

// etcdctl runs on any control plane whose etcd is up.
const etcdctl = "kubectl -n kube-system exec etcd-%s -- etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt " +
	"--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key member"

// leftEtcd refuses to remove a member whose etcd votes: its certificates for etcd
// are Kubernetes' and would go on to be good.
func (s *Server) leftEtcd(ctx context.Context, name string) error {
	votes, err := s.agent.Kubernetes.Promoted(ctx, name)
	if err != nil {
		return fmt.Errorf("whether the etcd of %s votes is not known here: %w: %w", name, err, agent.ErrNotReady)
	}
	if votes {
		list := fmt.Sprintf(etcdctl, s.agent.self.Node.Name)
		return fmt.Errorf("%w: the etcd of %s votes; take it out first, with the id that the list has for it: %s list; %s remove ID", agent.ErrRefused, name, list, list)
	}
	return nil
}

// removalTold says what a removal does and what it risks.
func removalTold(plan member.Removal) []string {
	m := plan.Member
	var told []string
	who := fmt.Sprintf("%s (%s, hardware %s, instance %s)", m.Name, m.Address, m.HW, m.Inst)
	if plan.Role == member.NoRole {
		told = append(told, who+" was removed before.")
	} else {
		told = append(told, fmt.Sprintf("%s, a %s, loses its place in the directory and its certificate. Every control plane that runs refuses it within 5 seconds.", who, plan.Role))
	}
	if plan.Node != "" {
		told = append(told, fmt.Sprintf("Its node of the directory, a %s, goes.", plan.Node))
	}
	told = append(told, fmt.Sprintf("Kubernetes is not touched. Its node there, if it is still there: kubectl drain %s --ignore-daemonsets --delete-emptydir-data; kubectl delete node %s", m.Name, m.Name))
	if m.HW == member.UnknownHW {
		told = append(told, "DANGER: its row was made again from its node in Kubernetes, so nobody knows its instance, and its certificate stays good.")
	}
	if strings.Contains(plan.Node, "voter") && plan.Voters < 3 {
		told = append(told, fmt.Sprintf("DANGER: the directory has %d voters then. With fewer than three, one server that is off stops it, until another control plane joins.", plan.Voters))
	}
	if plan.Role == member.ControlPlane {
		told = append(told, "DANGER: it held the keys of all CAs of the cluster. Whoever has its disk has them still: wipe it.")
	}
	if plan.Role != member.NoRole {
		told = append(told, "DANGER: this instance never comes back. The server does, as another one, when it is reinstalled.")
	}
	return told
}
