package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
)

// voidNode says whether the node on this disk was made for a decree that was
// superseded since: as its first control plane, or as one that joined it.
func (a *Agent) voidNode(s election.State) bool {
	return slices.Contains(s.VoidCAs(), a.Kubernetes.NodeCA())
}

// standDown stops what belongs to a void cluster or is another server's, before this
// server hears of anybody: it must not rise, alone or among others.
func (a *Agent) standDown(ctx context.Context) error {
	return a.until(ctx, "the units of a node that must not run here to stop", func(ctx context.Context) error {
		return errors.Join(a.Speaker.Stop(ctx), a.Directory.Stop(ctx), a.Kubernetes.StandDown(ctx))
	})
}

func (a *Agent) voidText(d election.Decree) error {
	return fmt.Errorf("the node on this server has the CA %s, which was superseded by an operator's order: %s leads epoch %d with CA %s; "+
		"kubelet, kubeadm and announcer stay down here; to give this server to the cluster run bootstrap reset --yes and reboot",
		a.Kubernetes.NodeCA(), d.Leader.Name, d.Epoch, d.Leader.CAHash)
}

// errSuperseded ends a run of the flow; systemd starts the agent again, which
// begins the new epoch from what is on disk.
var errSuperseded = errors.New("the decree that this run acted by was superseded: the agent starts again")

// watchEpoch ends the run when the decree that it acts by is superseded.
func (a *Agent) watchEpoch(ctx context.Context, epoch uint64) error {
	for {
		d, _, changed := a.fence.look()
		if d.Epoch > epoch {
			a.Log.Warn("superseded", "epoch", epoch, "by", d.Epoch, "leader", d.Leader.Name)
			return errSuperseded
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// LowerQuorum weighs an operator's order to decide by a majority and, with yes,
// carries it out. It returns what happens and what it risks, in sentences.
func (s *Server) LowerQuorum(ctx context.Context, yes bool) ([]string, error) {
	return s.act(ctx, election.Lower{}, yes)
}

// Approve weighs an operator's order to believe the sealed cluster with this CA,
// and carries it out with yes.
func (s *Server) Approve(ctx context.Context, yes bool, caHash string) ([]string, error) {
	return s.act(ctx, election.Approve{CAHash: caHash}, yes)
}

// Supersede weighs an operator's order to replace a dead holder of GO, and begins
// it with yes. In a sealed cluster lost must name the nodes that joined it, all
// of which are to be reset, or be "none".
func (s *Server) Supersede(ctx context.Context, yes bool, order election.Supersede, lost string) ([]string, error) {
	order.LoseCluster = lost != ""
	told, err := s.act(ctx, order, false)
	if err != nil {
		return told, err
	}
	if s.agent.fence.read().Phase == election.PhaseSealed {
		joined := strings.Join(s.joinedNodes(ctx), ",")
		if joined == "" {
			joined = "none"
		}
		told = append(told, "nodes in sight that joined the cluster and must be reset: "+joined+"; such a node that is out of sight stays down by itself when it is back")
		if joined != lost {
			return told, fmt.Errorf("%w: the nodes to be reset are %s, --lose-cluster names %s: name exactly those", agent.ErrRefused, joined, lost)
		}
	}
	if !yes {
		return told, nil
	}
	_, err = s.act(ctx, order, true)
	return append(told, "The vote is begun; bootstrap status says what it lacks, and names the new leader when it is decided."), err
}

// joinedNodes names the servers in sight that have a node of Kubernetes, sorted.
func (s *Server) joinedNodes(ctx context.Context) []string {
	var names []string
	for _, st := range s.Servers(ctx) {
		if st.NodeCA != "" {
			names = append(names, st.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *Server) act(ctx context.Context, e election.Event, yes bool) ([]string, error) {
	a := s.agent
	if !a.connected.Load() {
		return nil, fmt.Errorf("this server's fence still starts: %w", agent.ErrNotReady)
	}
	weighed, refused, err := a.fence.act(ctx, e, yes)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, agent.ErrNotReady)
	case refused != nil:
		return nil, fmt.Errorf("%w: %w", agent.ErrRefused, refused)
	}
	if yes {
		a.Log.Warn("an operator's act", "act", fmt.Sprintf("%T%+v", e, e))
	}
	told := slices.Clone(weighed.Will)
	for _, danger := range weighed.Danger {
		told = append(told, "DANGER: "+danger)
	}
	return told, nil
}
