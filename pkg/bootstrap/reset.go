package bootstrap

import (
	"fmt"
	"slices"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// Life is what a reset would end: what a server's disk says of its part in the
// cluster.
type Life struct {
	State   *election.State // nil: none, or damaged
	Config  election.Config // of the cluster file
	Role    member.Role     // as the journal has it
	Made    bool            // the journal says that kubeadm has made a node here
	CAHash  string          // of /etc/kubernetes/pki/ca.crt, "" where there is none
	Removed bool            // the cluster took this instance out
	Left    bool            // it left the cluster
	Etcd    bool            // etcd's data are here, also of a join that has not ended: etcd may count its vote
}

// counted says that the cluster counts on the node of this server. A cluster file
// that tells no cluster, because it is gone or cannot be read, tells no other one.
func (l Life) counted() bool {
	s := l.State
	if s == nil || s.SpecID != l.Config.SpecID && l.Config.SpecID != "" {
		return false
	}
	made := l.Made || l.Etcd && l.CAHash == s.Sealed.CAHash
	return s.IsSealed() && made && !l.Removed && !l.Left && !slices.Contains(s.VoidCAs(), l.CAHash)
}

// WeighReset says what a reset of this server risks, in sentences. The error, of
// the kind agent.ErrRefused, says why only force may do it.
func WeighReset(l Life, force bool) (danger []string, err error) {
	s := l.State
	switch {
	case l.counted() && l.Role != member.Worker:
		err = fmt.Errorf("%w: this server is a control plane of the formed cluster, which counts on its etcd: bootstrap leave takes it out; if the cluster gave it up already, or is to be destroyed: bootstrap reset --force", agent.ErrRefused)
		danger = append(danger, "DANGER: its etcd leaves the others only if its API server still answers. If not, a member that never comes back is left, and one server more that is off may stop the cluster.",
			"DANGER: if it is the only control plane, the cluster is lost for good.")
	case l.counted():
		err = fmt.Errorf("%w: this server is a worker of the formed cluster: bootstrap leave takes it out; if that is done otherwise, or is not needed: bootstrap reset --force", agent.ErrRefused)
		danger = append(danger, "DANGER: its pods end without warning, and its node stays in Kubernetes until somebody deletes it.")
	case s != nil && !s.IsSealed() && !s.Superseded() && s.HoldsGo():
		err = fmt.Errorf("%w: this server was decided to build the first control plane, and no other may; if it shall not: bootstrap reset --force here, then bootstrap supersede on another", agent.ErrRefused)
		danger = append(danger, "DANGER: nobody builds a cluster then until an operator supersedes this server.")
	}
	if err != nil && force {
		err = nil
	}
	if s != nil && s.IsSealed() && s.SpecID != l.Config.SpecID && l.Config.SpecID != "" && (l.Made || l.Etcd) && !l.Removed && !l.Left {
		danger = append(danger, fmt.Sprintf("DANGER: it was a node of another formed cluster, %s. If that one still runs, it counts on this server: take it out there first.", s.SpecID))
	}
	if s != nil && !s.IsSealed() && len(s.Slots) > 0 {
		c := l.Config
		danger = append(danger, fmt.Sprintf("DANGER: its votes are lost, and it votes again as a new instance. With %d servers and a quorum of %d, more than %d that were reset, reinstalled or are one too many could make two clusters.", c.N, c.Q, max(2*c.Q-c.N-1, 0)))
	}
	return danger, err
}
