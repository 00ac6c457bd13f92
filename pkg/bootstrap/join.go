package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Times of a join.
const (
	renewJoinEvery     = 20 * time.Second // a turn is taken over after 3 min without renewal
	giveBackFor        = 3 * time.Minute  // by then another has taken the turn over
	kubeadmJoinTimeout = 30 * time.Minute // above every timeout in kubeadm's configuration
)

// lead is step 7: the GO holder, whose GO stands, builds the first control plane.
func (a *Agent) lead(ctx context.Context, d election.Decree) error {
	sealed := a.fence.read().Phase == election.PhaseSealed
	if !sealed {
		a.board.enter(member.Initialising)
	}
	var err error
	if a.Kubernetes.Initialised() {
		err = a.resume(ctx)
	} else {
		err = a.initialise(ctx)
	}
	if err != nil {
		return err
	}
	if !sealed {
		a.fence.tell(ctx, election.InitDone{Endpoint: a.self.Node.Endpoint})
	}
	a.setFlags(func(f *Flags) { f.ControlPlane = true })
	return nil
}

// rememberSealed notes in the journal that the cluster of this server is sealed, for
// the day on which the fence's state is lost. Nothing waits for it.
func (a *Agent) rememberSealed(ctx context.Context) error {
	for {
		d, _, changed := a.fence.look()
		if d.Phase == election.PhaseSealed {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	said := false
	_ = retry(ctx, func(context.Context) error {
		if a.Journal.Done(StepSealed) {
			return nil
		}
		return a.Journal.Finish(StepSealed)
	}, func(err error) {
		if !said {
			a.Log.Warn("journal", "step", StepSealed, "error", err)
		}
		said = true
	})
	return nil
}

// initialise runs kubeadm init. Whether GO stands is looked at before each
// attempt: a copy of this disk may have come into sight since the last one.
func (a *Agent) initialise(ctx context.Context) error {
	if err := a.awaitPrepared(ctx); err != nil {
		return err
	}
	return a.run(ctx, kubeadmInit, func(ctx context.Context) error {
		if err := a.stand(ctx); err != nil {
			return err
		}
		a.board.wait(toEnd(kubeadmInit))
		return a.Kubernetes.Init(ctx, a.self.Node)
	})
}

// standFirst waits until a GO of this server stands, before anything is signed or
// given in its name: it may have been superseded while the server was off.
func (a *Agent) standFirst(ctx context.Context, d election.Decree) error {
	if !d.Mine || d.Phase == election.PhaseSealed {
		return nil
	}
	a.board.enter(member.Initialising)
	return a.stand(ctx)
}

// stand returns when this server's GO was decided or confirmed since this boot,
// and the mark of it, without which the units' checks let nothing start, is laid.
func (a *Agent) stand(ctx context.Context) error {
	d, err := a.awaitDecree(ctx, func(d election.Decree) bool { return d.Stands || d.Phase == election.PhaseSealed })
	if err != nil || d.Phase == election.PhaseSealed {
		return err
	}
	return a.until(ctx, "the mark that GO stands", func(context.Context) error { return a.fabric.GoStands(d.Epoch) })
}

// What runs as a unit of its own, and is named in logs and waits.
const (
	kubeadmInit = "kubeadm init"
	kubeadmJoin = "kubeadm join"
)

// run repeats a run of kubeadm until it has done its work.
func (a *Agent) run(ctx context.Context, what string, do func(context.Context) error) error {
	began := a.Now()
	if err := a.until(ctx, toEnd(what), do); err != nil {
		return err
	}
	a.board.over(toEnd(what))
	a.Log.Info("done", "step", what, "seconds", int(a.Now().Sub(began).Seconds()))
	return nil
}

// toEnd is the wait while kubeadm runs, which may be minutes.
func toEnd(what string) string {
	return fmt.Sprintf("%s to end; here, journalctl -u %s shows how far", what, strings.ReplaceAll(what, " ", "-"))
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
		a.fence.tell(ctx, election.Closed{})
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
	joined := make(chan struct{})
	var held atomic.Pointer[agent.JoinTurn]
	held.Store(&turn)
	work.Go(func() error { return a.holdTurn(ctx, d, &held, joined) })
	a.board.enter(member.Joining)
	err = a.run(ctx, kubeadmJoin, func(ctx context.Context) error {
		if err := a.confirmTurn(ctx, d, &held); err != nil {
			return err
		}
		return a.join(ctx, d, true)
	})
	close(joined)
	if err == nil {
		a.fence.tell(ctx, election.Closed{})
	}
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
	return a.run(ctx, kubeadmJoin, func(ctx context.Context) error { return a.join(ctx, d, false) })
}

// awaitSealed waits until the first control plane is up and this host is ready.
func (a *Agent) awaitSealed(ctx context.Context) (election.Decree, error) {
	if a.fence.read().Phase != election.PhaseSealed {
		a.board.enter(member.Waiting)
	}
	d, err := a.awaitDecree(ctx, func(d election.Decree) bool { return d.Phase == election.PhaseSealed })
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
	return a.askAsMember(ctx, d, func(ctx context.Context, p agent.Peer) error {
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
	err := a.askAsMember(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		turn, err = a.fabric.Calls.AcquireJoin(ctx, p)
		if err == nil && !turn.Granted {
			err = fmt.Errorf("it is the turn of %s: %w", turn.Holder, agent.ErrNotReady)
		}
		return err
	})
	return turn, err
}

// holdTurn keeps the turn to join while this server's etcd is on its way to a
// vote, and gives it back then: what is left of kubeadm join (the kubelet's
// certificate, labels, waiting for components) was 11 of 15 s on a test server
// and hinders nobody. A turn that cannot be given back is taken over by the
// next after three minutes.
func (a *Agent) holdTurn(ctx context.Context, d election.Decree, held *atomic.Pointer[agent.JoinTurn], joined <-chan struct{}) error {
	look, renew := time.NewTicker(time.Second), time.NewTicker(renewJoinEvery)
	defer look.Stop()
	defer renew.Stop()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			return nil
		case <-joined:
			over = true
		case <-renew.C:
			err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
				return a.fabric.Calls.RenewJoin(ctx, p, *held.Load())
			})
			if err != nil && ctx.Err() == nil {
				a.Log.Warn("renewing the turn to join", "error", err)
			}
		case <-look.C:
			if votes, err := a.Kubernetes.Promoted(ctx, a.self.Node.Name); err != nil {
				a.Log.Debug("asking whether etcd votes", "error", err)
			} else if votes {
				over = true
				a.fence.tell(ctx, election.Closed{})
			}
		}
	}
	return a.releaseTurn(ctx, d, *held.Load())
}

// confirmTurn shows before an attempt that the turn is still this server's, or
// asks for it again: while the last attempt failed, another may have taken it
// over, or the directory that gave it may have been lost.
func (a *Agent) confirmTurn(ctx context.Context, d election.Decree, held *atomic.Pointer[agent.JoinTurn]) error {
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
		return a.fabric.Calls.RenewJoin(ctx, p, *held.Load())
	})
	if err == nil {
		return nil
	}
	turn, err := a.acquireJoin(ctx, d)
	if err == nil {
		held.Store(&turn)
	}
	return err
}

func (a *Agent) releaseTurn(ctx context.Context, d election.Decree, turn agent.JoinTurn) error {
	ctx, cancel := context.WithTimeout(ctx, giveBackFor)
	defer cancel()
	for pause := firstPause; ; pause = min(pause*2, lastPause) {
		err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
			return a.fabric.Calls.ReleaseJoin(ctx, p, turn)
		})
		if err == nil || ctx.Err() != nil {
			return nil
		}
		a.Log.Warn("giving the turn to join back", "error", err)
		if sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// join gets a token and runs kubeadm join. A control plane dials a healthy
// control plane's private address (the Elastic IP may be its own one day); a
// worker dials the endpoint, which outlives any single control plane.
func (a *Agent) join(ctx context.Context, d election.Decree, controlPlane bool) error {
	// A kubeadm that outlived a former agent may join etcd after the question below.
	underway, err := a.Kubernetes.JoinUnderway(ctx)
	if err != nil {
		return err
	}
	var material agent.JoinMaterial
	var from agent.Peer
	err = a.askAsMember(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		material, err = a.fabric.Calls.JoinMaterial(ctx, p)
		from = p
		return err
	})
	if err != nil {
		return err
	}
	how := plan.Join{ControlPlane: controlPlane, Server: plan.ServerURL(from.Address), Token: material.Token, CA: material.CA, EtcdGone: material.EtcdGone && !underway}
	if !controlPlane {
		how.Server = "https://" + a.self.Node.Endpoint
	}
	if err := plan.PinnedCA(material.CA, d.Leader.CAHash); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeadmJoinTimeout)
	defer cancel()
	a.board.wait(toEnd(kubeadmJoin))
	return a.Kubernetes.Join(ctx, a.self.Node, how)
}
