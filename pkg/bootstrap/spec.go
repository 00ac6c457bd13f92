package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// Times of the spec.
const (
	specEvery       = 5 * time.Second  // a control plane looks into the directory
	specEveryWorker = 10 * time.Second // a worker asks a control plane
	specDoubt       = time.Minute      // for which control planes may not have read the newest yet
)

// errRevised ends a run of the flow; systemd starts the agent again, which runs by
// the revision that was kept.
var errRevised = errors.New("the cluster's spec has a new revision that changes something here: the agent starts again")

// specWatch is what this server knows of the cluster's spec.
type specWatch struct {
	mu     sync.Mutex
	status member.SpecStatus
	newest member.Spec // as last seen, with its text
	other  string      // what is wrong between what is kept here and what the cluster has
}

// differs notes a sentence about two histories of the spec, "" for none.
func (w *specWatch) differs(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.other = text
}

// problem is that sentence.
func (w *specWatch) problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.other
}

func (w *specWatch) read() (member.SpecStatus, member.Spec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.newest
}

// runs notes what this server runs by, and why by no other.
func (w *specWatch) runs(revision uint64, lag error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Revision, w.status.Newest, w.status.Lag = revision, max(w.status.Newest, revision), ""
	if lag != nil {
		w.status.Lag = lag.Error()
	}
}

// saw notes the newest revision; its text may be left out when it is the same.
func (w *specWatch) saw(s member.Spec) member.Spec {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Text == "" && s.Revision == w.newest.Revision {
		s.Text = w.newest.Text
	}
	w.newest = s
	w.status.Newest = max(w.status.Newest, s.Revision)
	return s
}

// followSpec looks for a higher revision of the cluster's spec than the one that this
// server runs by, keeps it, and ends the run when it changes anything here. It begins
// when the server is a node: kubeadm has run by what it began with.
func (a *Agent) followSpec(ctx context.Context, d election.Decree, role member.Role) error {
	every := specEvery
	if role == member.Worker {
		every = specEveryWorker
	}
	running, hindered := a.Revisions.Running()
	a.spec.runs(running.Revision, hindered)
	var behind time.Time                                      // since when the cluster has a lower revision
	for look := true; look; look = sleep(ctx, every) == nil { // at once: who sees Ready may apply
		newest, err := a.newestSpec(ctx, d, running)
		if err != nil {
			a.Log.Debug("asking for the cluster's spec", "error", err)
			a.spec.runs(running.Revision, fmt.Errorf("it does not hear which revision is the newest: %w", err))
			continue
		}
		newest = a.spec.saw(newest)
		if newest.Revision >= running.Revision {
			behind = time.Time{}
		} else if behind.IsZero() {
			behind = a.Now()
		}
		text := twoHistories(running, newest, !behind.IsZero() && a.Now().Sub(behind) > specDoubt)
		if text != a.spec.problem() && text != "" {
			a.Log.Warn("spec", "problem", text)
		}
		a.spec.differs(text)
		if newest.Revision <= running.Revision {
			a.spec.runs(running.Revision, hindered)
			continue
		}
		if a.onTrial() { // which counts each start, and sends the agent back in the end
			a.spec.runs(running.Revision, fmt.Errorf("revision %d of the spec waits for the trial of this server's new agent, minutes at most", newest.Revision))
			continue
		}
		differs, err := a.Revisions.Keep(newest)
		if err != nil {
			err = fmt.Errorf("revision %d of the spec cannot be run by here: %w", newest.Revision, err)
			if status, _ := a.spec.read(); status.Lag != err.Error() {
				a.Log.Warn("spec", "error", err)
			}
			a.spec.runs(running.Revision, err)
			continue
		}
		a.Log.Info("the cluster's spec has a new revision", "revision", newest.Revision, "before", running.Revision, "changes", differs)
		if differs {
			return errRevised
		}
		running, hindered = newest, nil
		a.spec.runs(running.Revision, nil)
	}
	return nil
}

// twoHistories says what is wrong between the revision that a server runs by and the
// newest of the cluster, where a directory was lost and filled anew between two applies.
// behind says that the newest has been lower for too long to be on its way. What the
// one stood for that is not in force nobody but its operator knows.
func twoHistories(running, newest member.Spec, behind bool) string {
	const remedy = "apply the cluster file that shall count, which every server takes then (bootstrap apply -f)"
	switch {
	case running.Revision == 0 || running.Revision < newest.Revision:
		return ""
	case running.Revision > newest.Revision && behind:
		return fmt.Sprintf("this server runs by revision %d of the spec, and the cluster has %d: the directory was lost, and no control plane keeps what this server does; %s, with --revision %d", running.Revision, newest.Revision, remedy, newest.Revision)
	case running.Revision == newest.Revision && newest.Text != "" && newest.Sum() != running.Sum():
		return fmt.Sprintf("this server runs by another revision %d of the spec than the cluster (sha256 %s, there %s): the directory was lost and filled anew between two applies; %s. Where that is what the cluster has: rm /var/lib/muster/spec.json here, and systemctl restart muster",
			running.Revision, short(running.Sum()), short(newest.Sum()), remedy)
	}
	return ""
}

// newestSpec asks this server's directory, or a control plane.
func (a *Agent) newestSpec(ctx context.Context, d election.Decree, running member.Spec) (member.Spec, error) {
	if a.directory.Load() {
		return a.specOfDirectory(ctx, running)
	}
	known := running
	if _, seen := a.spec.read(); seen.Text != "" {
		known = seen
	}
	var newest member.Spec
	err := a.askControlPlane(ctx, d, func(ctx context.Context, p agent.Peer) (err error) {
		newest, err = a.fabric.Calls.Spec(ctx, p, agent.SpecRequest{Known: known.Revision, Sum: known.Sum()})
		return err
	})
	return newest, err
}

// specOfDirectory reads the directory, and brings the revision back that this server
// keeps when that is higher: the directory was lost and made again. With which spec
// the cluster formed is written by a server that founded it.
func (a *Agent) specOfDirectory(ctx context.Context, running member.Spec) (member.Spec, error) {
	found, err := a.Directory.Spec(ctx, -1) // with its text: a lost directory may have another of that number
	if err != nil {
		return member.Spec{}, err
	}
	if found != nil && found.Revision >= running.Revision {
		return *found, nil
	}
	if running.Revision == 0 {
		if a.joining() {
			return member.Spec{}, errors.New("the directory has no spec yet; a control plane that founded the cluster writes it")
		}
		if running, err = formedWith(a.Cluster); err != nil {
			return running, err
		}
	}
	return running, a.Directory.RestoreSpec(ctx, running)
}

// formedWith is revision 0.
func formedWith(c cluster.Cluster) (member.Spec, error) {
	return specOf(0, c)
}

// specOf is a revision of the spec.
func specOf(revision uint64, c cluster.Cluster) (member.Spec, error) {
	shared := cluster.Shared(c)
	text, err := cluster.Marshal(shared)
	return member.Spec{Revision: revision, ControlPlanes: shared.Spec.Servers.ControlPlanes, Text: string(text)}, err
}

// Spec answers a server that asks for the cluster's spec, from what this control
// plane saw last: a thousand workers ask every few seconds.
func (s *Server) Spec(_ context.Context, _ agent.Caller, r agent.SpecRequest) (member.Spec, error) {
	if _, err := s.db(); err != nil {
		return member.Spec{}, err
	}
	_, newest := s.agent.spec.read()
	if newest.Text == "" {
		return newest, fmt.Errorf("this control plane has not read the cluster's spec yet: %w", agent.ErrNotReady)
	}
	if newest.Revision == r.Known && (r.Sum == "" || r.Sum == newest.Sum()) {
		newest.Text = ""
	}
	return newest, nil
}
