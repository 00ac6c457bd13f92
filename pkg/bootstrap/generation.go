package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Times of the directory.
const (
	directoryLeadTime   = 2 * time.Minute  // bounds one attempt to start it
	probeDirectoryEvery = 30 * time.Second // it is asked whether it still answers
	firstLookEvery      = 2 * time.Second  // until there is a Lease to keep
)

// heard takes in that a generation of the directory exists; lower ones are void.
func (a *Agent) heard(generation uint64) {
	for {
		known := a.generation.Load()
		if generation <= known || a.generation.CompareAndSwap(known, generation) {
			return
		}
	}
}

// keepDirectory runs this control plane's directory until ctx ends, in the
// generation that stands: the Lease says which, and gives the right to make the
// next one when all copies are lost.
func (a *Agent) keepDirectory(ctx context.Context, d election.Decree) error {
	err := retry(ctx, func(context.Context) error {
		known, err := a.Directory.Generation(d.Epoch)
		a.heard(known)
		return err
	}, a.complain)
	if err == nil {
		a.complain(nil)
	}
	run := DirectoryRun{Address: a.self.Node.Private}
	run.Directory = plan.Directory{CAHash: d.Leader.CAHash, Epoch: d.Epoch, Generation: a.generation.Load()}
	for err == nil {
		a.running.Store(run.Generation)
		serving, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func(run DirectoryRun) {
			defer close(done)
			a.serveDirectory(serving, d, run)
		}(run)
		run, err = a.watchLease(ctx, d, run)
		stop()
		<-done
		a.directory.Store(false)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveDirectory starts the directory and keeps at it: after a power cut of all,
// it answers only when a majority of them is back.
func (a *Agent) serveDirectory(ctx context.Context, d election.Decree, run DirectoryRun) {
	said := ""
	failed := func(err error) {
		a.unanswered.Store(&err)
		if err.Error() != said { // a majority may be hours away
			said = err.Error()
			a.Log.Warn("directory", "error", err)
		}
	}
	for {
		err := retry(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, directoryLeadTime)
			defer cancel()
			run.Peers = a.directoryPeers(d)
			return a.Directory.Start(ctx, run)
		}, failed)
		if err != nil {
			return // ctx ended
		}
		a.unanswered.Store(nil)
		a.complain(nil)
		a.directory.Store(true)
		a.Log.Info("directory answers", "generation", run.Generation)
		said = ""
		if d.Mine || a.Kubernetes.Joined() || a.Kubernetes.Initialised() {
			a.setFlags(func(f *Flags) { f.ControlPlane = true })
		}
		for err == nil {
			if sleep(ctx, probeDirectoryEvery) != nil {
				return
			}
			_, err = a.Directory.Members(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		a.directory.Store(false)
		failed(err)
	}
}

// watchLease looks at the Lease until another generation must run here, or the
// same one must be made here; it returns that one. An error is the end of ctx.
func (a *Agent) watchLease(ctx context.Context, d election.Decree, run DirectoryRun) (DirectoryRun, error) {
	var watch plan.LeaseWatch
	var last plan.LeaseStep
	recorded := false
	for pause := firstLookEvery; ; {
		if err := sleep(ctx, pause); err != nil {
			return run, err
		}
		if g := a.generation.Load(); g > run.Generation {
			run.Generation, run.Make = g, false
			return run, nil
		}
		if !a.Kubernetes.Joined() && !a.Kubernetes.Initialised() || a.fence.read().Phase != election.PhaseSealed {
			pause = a.askGeneration(ctx, d)
			continue
		}
		pause = plan.LeaseEvery
		if !recorded {
			recorded = a.recordSelf(ctx) == nil
		}
		sight, err := a.seeLease(ctx, run)
		if err != nil {
			watch = plan.LeaseWatch{} // it must be seen without a break
			if a.directory.Load() {   // nothing is lost
				a.Log.Debug("reading the Lease", "error", err)
				err = nil
			}
			a.complain(err)
			continue
		}
		sight, watch = watch.Look(sight, time.Now())
		decision := plan.DecideLease(sight)
		if decision.Step == plan.LeaseTake {
			if sight.Elsewhere = a.answersElsewhere(ctx, d); sight.Elsewhere != "" {
				sight, watch = watch.Look(sight, time.Now())
				decision = plan.DecideLease(sight)
			}
		}
		if decision.Step != last && decision.Why != "" {
			a.Log.Warn("directory", "lease", decision.Step, "why", decision.Why)
		}
		last = decision.Step
		if next, ok := a.act(ctx, run, decision); ok {
			return next, nil
		}
	}
}

// act carries a decision out; ok says that next must run here now.
func (a *Agent) act(ctx context.Context, run DirectoryRun, decision plan.LeaseDecision) (next DirectoryRun, ok bool) {
	next = run
	next.Generation = decision.Lease.Generation
	next.Make = decision.Lease.Mine(a.self.Inst)
	switch decision.Step {
	case plan.LeaseKeep:
		a.complain(nil)
	case plan.LeaseFollow:
		a.complain(errors.New(decision.Why))
		if next.Directory != run.Directory || next.Make != run.Make {
			a.heard(decision.Lease.Generation)
			return next, true
		}
	case plan.LeaseWrite:
		a.complain(nil)
		written, err := a.Authority.WriteLease(ctx, decision.Lease)
		if err == nil && written {
			err = a.mirror(ctx)
		}
		if _, spec := a.spec.read(); err == nil && written && spec.Text != "" {
			err = a.mirrorSpec(ctx, spec)
		}
		if err != nil {
			a.Log.Warn("keeping the records of members in Kubernetes", "error", err)
		}
	case plan.LeaseTake:
		a.complain(errors.New(decision.Why))
		written, err := a.take(ctx, decision.Lease)
		if err != nil {
			a.complain(err)
		}
		if written {
			a.heard(decision.Lease.Generation)
			return next, true
		}
	default:
		a.complain(errors.New(decision.Why))
	}
	return run, false
}

// take swaps the Lease for the next generation; false without an error says that
// another was faster, which the next look shows. A server that was removed, and
// whose Kubernetes nobody stopped, takes none: nobody would join it.
func (a *Agent) take(ctx context.Context, l plan.Lease) (bool, error) {
	kept, err := a.Authority.Mirrored(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range kept {
		if r.Inst == a.self.Inst && r.Removed {
			return false, errors.New("this server was removed from the cluster, so it makes no directory: run kubeadm reset here and switch it off, or reinstall it")
		}
	}
	return a.Authority.WriteLease(ctx, l)
}

// complain puts what is wrong with the directory into status; nil is nothing. It
// hinders no formed node from being Ready.
func (a *Agent) complain(err error) {
	if err == nil {
		a.lost.Store(nil)
		return
	}
	text := err.Error()
	if why := a.unanswered.Load(); why != nil {
		text += " (here: " + (*why).Error() + ")"
	}
	a.lost.Store(&text)
}

// seeLease is what this control plane knows now.
func (a *Agent) seeLease(ctx context.Context, run DirectoryRun) (plan.LeaseSight, error) {
	s := plan.LeaseSight{Inst: a.self.Inst, Own: run.Directory, Answers: a.directory.Load()}
	err := a.Kubernetes.Healthy(ctx)
	if err == nil {
		s.Lease, s.Found, err = a.Authority.Lease(ctx)
	}
	if err != nil {
		return s, fmt.Errorf("the directory of this server does not answer, and the API server of this server does not say which generation of it stands: %w", err)
	}
	return s, nil
}

// answersElsewhere asks the other control planes for their directories.
func (a *Agent) answersElsewhere(ctx context.Context, d election.Decree) string {
	who := ""
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) error {
		_, err := a.fabric.Calls.Members(ctx, p)
		if err == nil {
			who = p.Address.String()
		}
		return err
	})
	if err != nil {
		a.Log.Debug("asking the other control planes for their directories", "error", err)
	}
	return who
}

// askGeneration is for a control plane that is on its way into Kubernetes, and so
// cannot read the Lease: others tell it which generation stands. It returns how
// long to wait then.
func (a *Agent) askGeneration(ctx context.Context, d election.Decree) time.Duration {
	if a.directory.Load() || d.Mine || a.fence.read().Phase != election.PhaseSealed {
		return firstLookEvery
	}
	if err := a.claimAgain(ctx, d); err != nil {
		a.Log.Debug("asking which generation of the directory stands", "error", err)
	}
	return plan.LeaseEvery
}

// claimAgain asks for this server's row again: it went with a directory that was
// lost before Kubernetes knew of it. The role must be the one it has.
func (a *Agent) claimAgain(ctx context.Context, d election.Decree) error {
	role := a.board.read().Role
	got, err := a.askForRole(ctx, d, a.self.Eligible && role == member.ControlPlane)
	if err == nil && got != role {
		return fmt.Errorf("the directory was lost and made again; before, this server was a %s, now others have that place and it is a %s: reinstall it", role, got)
	}
	return err
}

// askAsMember asks what only a server with a row may ask.
func (a *Agent) askAsMember(ctx context.Context, d election.Decree, ask func(context.Context, agent.Peer) error) error {
	err := a.askControlPlane(ctx, d, ask)
	if errors.Is(err, agent.ErrRefused) {
		return errors.Join(err, a.claimAgain(ctx, d))
	}
	return err
}
