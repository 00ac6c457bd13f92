package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
	"golang.org/x/sync/errgroup"
)

// Steps in the journal (docs/formats.md).
const (
	stepControlPlane   = "role-control-plane"
	stepWorker         = "role-worker"
	renewJoinEvery     = 20 * time.Second // a turn is taken over after 3 min without renewal
	directoryLeadTime  = 2 * time.Minute  // for one attempt to start the directory
	kubeadmJoinTimeout = 30 * time.Minute // above every timeout in kubeadm's configuration
)

// takeRole enrols this server with the agent CA of the decree and gets it a row
// in the directory. The GO holder signs for itself and opens the directory.
func (a *Agent) takeRole(ctx context.Context, work *errgroup.Group, d election.Decree) (member.Role, error) {
	node, err := plan.NodeFor(a.Cluster, a.device, d.Leader.Address)
	if err != nil {
		return member.NoRole, Permanent(err)
	}
	a.self.Node.Endpoint = node.Endpoint // the rest stands since settle, and others read it
	if !a.fabric.Trust.Enrolled() {
		a.board.enter(member.Enrolling)
	}
	if err := a.until(ctx, "a certificate of the agent CA from "+d.Leader.Name, func(ctx context.Context) error { return a.enrol(ctx, d) }); err != nil {
		return member.NoRole, err
	}
	role, err := a.claimRole(ctx, work, d)
	if err != nil {
		return role, err
	}
	a.board.change(func(s *member.Status) { s.Role = role })
	a.Log.Info("role", "role", role, "epoch", d.Epoch)
	work.Go(func() error { return a.reportPhases(ctx) })
	return role, nil
}

// enrol gets the leaf of the agent CA that the decree pins.
func (a *Agent) enrol(ctx context.Context, d election.Decree) error {
	t := a.fabric.Trust
	if t.Enrolled() {
		return nil
	}
	csr, err := t.CSR()
	if err != nil {
		return Permanent(fmt.Errorf("making a certificate request: %w", err))
	}
	var e agent.Enrolment
	if d.Mine {
		if err := t.Lead(d.Leader.AgentCAHash); err != nil {
			return Permanent(err)
		}
		e, err = t.Sign(agent.Caller{Inst: a.self.Inst, HW: a.self.HW, Address: a.self.Node.Private}, csr)
	} else {
		err = a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
			e, err = a.fabric.Calls.Enrol(ctx, p, agent.EnrolRequest{CSR: csr})
			return err
		})
	}
	if err != nil {
		return err
	}
	return t.Install(e, d.Leader.AgentCAHash)
}

// claimRole asks for a row in the directory; after a reboot the journal knows.
func (a *Agent) claimRole(ctx context.Context, work *errgroup.Group, d election.Decree) (member.Role, error) {
	known := member.NoRole
	switch {
	case a.Journal.Done(stepControlPlane):
		known = member.ControlPlane
	case a.Journal.Done(stepWorker):
		known = member.Worker
	}
	if d.Mine || known == member.ControlPlane {
		work.Go(func() error { return a.openDirectory(ctx, d) })
	}
	if known != member.NoRole {
		return known, nil
	}
	var role member.Role
	err := a.until(ctx, "a role from the directory", func(ctx context.Context) (err error) {
		if d.Mine {
			role, err = a.claimOwn(ctx, d)
			return err
		}
		return a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
			reply, err := a.fabric.Calls.ClaimRole(ctx, p, agent.RoleRequest{
				Name: a.self.Node.Name, Address: a.self.Node.Private, Eligible: a.self.Eligible})
			role = reply.Role
			return err
		})
	})
	if err != nil {
		return role, err
	}
	step := stepWorker
	if role == member.ControlPlane {
		step = stepControlPlane
		if !d.Mine {
			work.Go(func() error { return a.openDirectory(ctx, d) })
		}
	}
	return role, a.Journal.Finish(step)
}

// claimOwn takes the GO holder's place among the control planes.
func (a *Agent) claimOwn(ctx context.Context, d election.Decree) (member.Role, error) {
	if !a.directory.Load() {
		return member.NoRole, fmt.Errorf("the directory of this server does not answer yet: %w", agent.ErrNotReady)
	}
	m := member.Member{Inst: a.self.Inst, HW: a.self.HW, Name: a.self.Node.Name, Address: a.self.Node.Private, Epoch: d.Epoch}
	return a.Directory.ClaimRole(ctx, m, true, true, a.Cluster.Spec.Servers.ControlPlanes)
}

// openDirectory starts this control plane's directory and keeps at it: after a
// power cut of all, it answers only when a majority of them is back.
func (a *Agent) openDirectory(ctx context.Context, d election.Decree) error {
	pause := firstPause
	for {
		attempt, cancel := context.WithTimeout(ctx, directoryLeadTime)
		err := a.Directory.Start(attempt, d.Epoch, d.Leader.CAHash, a.self.Node.Private, a.directoryPeers(d))
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		a.Log.Warn("directory", "error", err)
		if sleep(ctx, pause) != nil {
			return nil
		}
		pause = min(pause*2, lastPause)
	}
	a.directory.Store(true)
	a.Log.Info("directory answers")
	if d.Mine || a.Kubernetes.Joined() || a.Kubernetes.Initialised() {
		a.setFlags(func(f *Flags) { f.ControlPlane = true })
	}
	return nil
}

// directoryPeers are the other control planes; the GO holder has none to join.
func (a *Agent) directoryPeers(d election.Decree) []netip.Addr {
	if d.Mine {
		return nil
	}
	var out []netip.Addr
	for _, p := range a.controlPlanes(d) {
		out = append(out, p.Address)
	}
	return out
}

// controlPlanes are the servers to ask: the leader of the decree first, because
// it is the first that can answer, then whoever gossip says can.
func (a *Agent) controlPlanes(d election.Decree) []agent.Peer {
	var out []agent.Peer
	if !d.Mine && d.Leader.Address.IsValid() {
		out = append(out, agent.Peer{Inst: d.Leader.Inst, Address: d.Leader.Address})
	}
	for _, p := range a.fabric.Gossip.Peers() {
		if p.ControlPlane && p.Inst != a.self.Inst && p.Inst != d.Leader.Inst {
			out = append(out, agent.Peer{Inst: p.Inst, Address: p.Address})
		}
	}
	return out
}

// askControlPlane asks one control plane after the other until one answers.
func (a *Agent) askControlPlane(ctx context.Context, d election.Decree, ask func(context.Context, agent.Peer) error) error {
	const each = 20 * time.Second
	var errs []error
	for _, p := range a.controlPlanes(d) {
		one, cancel := context.WithTimeout(ctx, each)
		err := ask(one, p)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errors.New("no control plane is in sight")
	}
	return errors.Join(errs...)
}

// lead is step 7: the GO holder builds the first control plane.
func (a *Agent) lead(ctx context.Context, d election.Decree) error {
	if !a.Kubernetes.Initialised() {
		a.board.enter(member.Initialising)
		if _, err := a.fence.await(ctx, func(d election.Decree) bool { return d.Stands || d.Phase == election.PhaseSealed }); err != nil {
			return err
		}
		if err := a.awaitPrepared(ctx); err != nil {
			return err
		}
		if err := a.run(ctx, "kubeadm init", func(ctx context.Context) error { return a.Kubernetes.Init(ctx, a.self.Node) }); err != nil {
			return err
		}
	} else if err := a.resume(ctx); err != nil {
		return err
	}
	if now, _ := a.fence.read(); now.Phase != election.PhaseSealed {
		a.fence.tell(ctx, election.InitDone{Endpoint: a.self.Node.Endpoint})
	}
	a.setFlags(func(f *Flags) { f.ControlPlane = true })
	return nil
}

// run repeats a run of kubeadm until it has done its work.
func (a *Agent) run(ctx context.Context, what string, do func(context.Context) error) error {
	began := a.Now()
	if err := a.until(ctx, what, do); err != nil {
		return err
	}
	a.Log.Info("done", "step", what, "seconds", int(a.Now().Sub(began).Seconds()))
	return nil
}

// resume brings a formed node back after a reboot: it needs no peer, no
// metadata and no Elastic IP.
func (a *Agent) resume(ctx context.Context) error {
	a.board.enter(member.Preparing)
	if err := a.awaitPrepared(ctx); err != nil {
		return err
	}
	return a.until(ctx, "containerd and kubelet", a.Kubernetes.Resume)
}

// joinControlPlane is step 8 for a control plane: its turn, the CAs, kubeadm.
func (a *Agent) joinControlPlane(ctx context.Context, work *errgroup.Group, d election.Decree) error {
	if a.Kubernetes.Joined() {
		if err := a.resume(ctx); err != nil {
			return err
		}
		a.setFlags(func(f *Flags) { f.ControlPlane = a.directory.Load() })
		return nil
	}
	d, err := a.awaitSealed(ctx)
	if err != nil {
		return err
	}
	if err := a.until(ctx, "the cluster's CAs from a control plane", func(ctx context.Context) error { return a.adoptAuthorities(ctx, d) }); err != nil {
		return err
	}
	var turn agent.JoinTurn
	err = a.until(ctx, "the turn to join: control planes join one at a time", func(ctx context.Context) (err error) {
		turn, err = a.acquireJoin(ctx, d)
		return err
	})
	if err != nil {
		return err
	}
	renewing, stop := context.WithCancel(ctx)
	work.Go(func() error { return a.renewJoin(renewing, d, turn) })
	a.board.enter(member.Joining)
	err = a.run(ctx, "kubeadm join", func(ctx context.Context) error { return a.join(ctx, d, true) })
	stop()
	if err != nil {
		return err
	}
	err = a.until(ctx, "to give the turn to join back", func(ctx context.Context) error {
		return a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
			return a.fabric.Calls.ReleaseJoin(ctx, p, turn)
		})
	})
	if a.directory.Load() {
		a.setFlags(func(f *Flags) { f.ControlPlane = true })
	}
	return err
}

// joinWorker is step 8 for a worker.
func (a *Agent) joinWorker(ctx context.Context, d election.Decree) error {
	if a.Kubernetes.Joined() {
		return a.resume(ctx)
	}
	d, err := a.awaitSealed(ctx)
	if err != nil {
		return err
	}
	a.board.enter(member.Joining)
	return a.run(ctx, "kubeadm join", func(ctx context.Context) error { return a.join(ctx, d, false) })
}

// awaitSealed waits until the first control plane is up and this host is ready.
func (a *Agent) awaitSealed(ctx context.Context) (election.Decree, error) {
	d, _ := a.fence.read()
	if d.Phase != election.PhaseSealed {
		a.board.enter(member.Waiting)
		a.board.wait(fmt.Sprintf("%s to finish kubeadm init; on %s, journalctl -u kubeadm-init shows it", d.Leader.Name, d.Leader.Name))
	}
	d, err := a.fence.await(ctx, func(d election.Decree) bool { return d.Phase == election.PhaseSealed })
	if err != nil {
		return d, err
	}
	return d, a.awaitPrepared(ctx)
}

// bundle is what a control plane hands to the next one, sealed to its key.
type bundle struct {
	Version     int    `json:"version"`
	Authorities []byte `json:"authorities"`
	AgentCA     []byte `json:"agentCA"`
}

const bundleVersion = 1

func (a *Agent) adoptAuthorities(ctx context.Context, d election.Decree) error {
	public, err := a.fabric.Trust.Receiver()
	if err != nil {
		return Permanent(err)
	}
	return a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
		reply, err := a.fabric.Calls.Authorities(ctx, p, agent.AuthoritiesRequest{PublicKey: public})
		if err != nil {
			return err
		}
		plain, err := a.fabric.Trust.Open(reply.Sealed)
		if err != nil {
			return fmt.Errorf("opening the CAs that %s sent: %w", p.Address, err)
		}
		var b bundle
		if err := json.Unmarshal(plain, &b); err != nil || b.Version != bundleVersion {
			return fmt.Errorf("the CAs that %s sent have version %d, this agent reads %d: run the same bootstrap on all servers", p.Address, b.Version, bundleVersion)
		}
		if err := a.Kubernetes.AdoptAuthorities(b.Authorities, d.Leader.CAHash); err != nil {
			return err
		}
		return a.fabric.Trust.AdoptAgentCA(b.AgentCA, d.Leader.AgentCAHash)
	})
}

func (a *Agent) acquireJoin(ctx context.Context, d election.Decree) (agent.JoinTurn, error) {
	var turn agent.JoinTurn
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		turn, err = a.fabric.Calls.AcquireJoin(ctx, p)
		if err == nil && !turn.Granted {
			err = fmt.Errorf("it is the turn of %s: %w", turn.Holder, agent.ErrNotReady)
		}
		return err
	})
	return turn, err
}

func (a *Agent) renewJoin(ctx context.Context, d election.Decree, turn agent.JoinTurn) error {
	for sleep(ctx, renewJoinEvery) == nil {
		err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
			return a.fabric.Calls.RenewJoin(ctx, p, turn)
		})
		if err != nil && ctx.Err() == nil {
			a.Log.Warn("renewing the turn to join", "error", err)
		}
	}
	return nil
}

// join gets a token and runs kubeadm join. A control plane dials a healthy
// control plane's private address (the Elastic IP may be its own one day); a
// worker dials the endpoint, which outlives any single control plane.
func (a *Agent) join(ctx context.Context, d election.Decree, controlPlane bool) error {
	var material agent.JoinMaterial
	var from agent.Peer
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		material, err = a.fabric.Calls.JoinMaterial(ctx, p)
		from = p
		return err
	})
	if err != nil {
		return err
	}
	how := plan.Join{ControlPlane: controlPlane, Server: plan.ServerURL(from.Address), Token: material.Token, CA: material.CA}
	if !controlPlane {
		how.Server = "https://" + a.self.Node.Endpoint
	}
	if err := plan.PinnedCA(material.CA, d.Leader.CAHash); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeadmJoinTimeout)
	defer cancel()
	return a.Kubernetes.Join(ctx, a.self.Node, how)
}

// reportPhases keeps this server's row in the directory true, so that status can
// tell how far a server was that no longer answers.
func (a *Agent) reportPhases(ctx context.Context) error {
	var reported member.Phase
	for {
		a.board.mu.Lock()
		phase, detail, changed := a.board.status.Phase, a.board.status.Waiting, a.board.changed
		a.board.mu.Unlock()
		if phase != reported {
			if a.reportPhase(ctx, agent.PhaseReport{Phase: phase, Detail: detail}) == nil {
				reported = phase
				continue
			}
			if sleep(ctx, lastPause) != nil {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (a *Agent) reportPhase(ctx context.Context, r agent.PhaseReport) error {
	if a.directory.Load() {
		return a.Directory.SetPhase(ctx, a.self.Inst, r.Phase, r.Detail)
	}
	d, _ := a.fence.read()
	return a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
		return a.fabric.Calls.ReportPhase(ctx, p, r)
	})
}
