package addons

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// Cluster is Kubernetes as the add-ons need it.
type Cluster interface {
	// Apply applies manifests server-side and names the objects.
	Apply(ctx context.Context, manifests []byte) ([]Object, error)
	// Await returns nil when it is so, and an error when it is not within the time
	// that ctx has.
	Await(ctx context.Context, w cluster.AddonWait) error
	// Delete takes objects away; those that are not there are no error.
	Delete(ctx context.Context, objects []Object) error
}

// Store keeps a text in Kubernetes.
type Store interface {
	// Load returns the text and the version that it has; both are empty when there is none.
	Load(ctx context.Context) (text, version string, err error)
	// Save writes the text if it still has that version, and returns the next one, or
	// none when another was faster.
	Save(ctx context.Context, text, version string) (next string, err error)
}

// Keeper applies the add-ons of one server's cluster file.
type Keeper struct {
	List []cluster.Addon
	// Revision is that of the spec which has the list. One of a higher revision comes
	// instead of what was applied.
	Revision uint64
	Cluster  Cluster
	Store    Store
	// Fetch gets the manifests of an add-on.
	Fetch func(ctx context.Context, a cluster.Addon) ([]byte, error)
	Inst  string // this server's
	First bool   // this server ran kubeadm init
	Now   func() time.Time
}

// Times of the work.
const (
	look     = 5 * time.Second  // between two looks at what another does, and tries of what failed
	patience = 10 * time.Second // of one try to see a wait fulfilled; a beat follows it
	// pulse lies between two beats of a try that takes long, such as a large manifest at a
	// slow API server: three of them may be lost before another takes over.
	pulse = takeOver / 4
)

// errTurnLost says that another server applies the add-ons now.
var errTurnLost = fmt.Errorf("another control plane began to apply the add-ons (ConfigMap kube-system/%s)", ConfigMap)

// Run returns when the list is applied, by this server or by another, or is not for
// this server to apply. report hears how far each add-on is, and what went wrong.
func (k *Keeper) Run(ctx context.Context, report func(list []member.AddonStatus, problem error)) error {
	if len(k.List) == 0 && k.Revision == 0 {
		return nil
	}
	var beat uint64
	since := k.Now()
	for {
		s, version, err := k.load(ctx)
		if err == nil {
			if s.List == "" && len(k.List) == 0 { // a higher revision has none, and none was applied before
				return nil
			}
			if s.Beat != beat {
				beat, since = s.Beat, k.Now()
			}
			do, why := decide(s, hash(k.List), k.Revision, k.Inst, k.First, k.Now().Sub(since))
			report(k.status(s, why), nil)
			switch do {
			case rest:
				return nil
			case work:
				r := &run{Keeper: k, state: begin(s, k.List, k.Revision, k.Inst), version: version, report: report}
				if err = r.all(ctx); err == nil {
					return nil
				}
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			report(k.status(s, ""), err)
		}
		if err := sleep(ctx, look); err != nil {
			return err
		}
	}
}

func (k *Keeper) load(ctx context.Context) (State, string, error) {
	text, version, err := k.Store.Load(ctx)
	if err != nil {
		return State{}, "", err
	}
	s, err := parseState(text)
	if err != nil {
		return State{}, "", fmt.Errorf("the state of the add-ons in the ConfigMap kube-system/%s: %w", ConfigMap, err)
	}
	return s, version, nil
}

// status says of each add-on of this server's list how far it is, and of the first
// that is not applied what it waits for.
func (k *Keeper) status(s State, waits string) []member.AddonStatus {
	var out []member.AddonStatus
	for _, a := range k.List {
		st := member.AddonStatus{Name: a.Name, State: member.AddonApplied}
		if !s.has(a) {
			st.State, st.Detail, waits = member.AddonPending, waits, ""
		}
		out = append(out, st)
	}
	return out
}

// run is one turn of this server to apply the list.
type run struct {
	*Keeper
	state   State
	version string
	report  func([]member.AddonStatus, error)
}

// all applies what is not applied yet, in order, and takes away what the list no
// longer holds. An error is worth another try.
func (r *run) all(ctx context.Context) error {
	if err := r.save(ctx, r.state); err != nil {
		return err
	}
	for _, a := range r.List {
		if r.state.has(a) {
			continue
		}
		if err := r.one(ctx, a); err != nil {
			return fmt.Errorf("add-on %s: %w", a.Name, err)
		}
	}
	gone, left := r.state.surplus()
	if len(gone) > 0 {
		if err := r.beating(ctx, func(ctx context.Context) error { return r.Cluster.Delete(ctx, gone) }); err != nil {
			return fmt.Errorf("taking away what the list of add-ons no longer holds: %w", err)
		}
	}
	if err := r.save(ctx, r.state.finished(left)); err != nil {
		return err
	}
	r.report(r.status(r.state, ""), nil)
	return nil
}

// one applies one add-on and waits for what it waits for.
func (r *run) one(ctx context.Context, a cluster.Addon) error {
	var objects []Object
	err := r.insist(ctx, a, "its manifests to be applied", func(ctx context.Context) error {
		manifests, err := r.Fetch(ctx, a)
		if err != nil {
			return err
		}
		objects, err = r.Cluster.Apply(ctx, manifests)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.save(ctx, r.state.applied(a, objects, len(a.Wait) == 0)); err != nil {
		return err
	}
	for _, w := range a.Wait {
		err := r.insist(ctx, a, describe(w), func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return r.Cluster.Await(ctx, w)
		})
		if err != nil {
			return err
		}
	}
	if len(a.Wait) == 0 {
		return nil
	}
	return r.save(ctx, r.state.applied(a, objects, true))
}

// describe is a wait for a person.
func describe(w cluster.AddonWait) string {
	in := ""
	if w.Namespace != "" {
		in = " in " + w.Namespace
	}
	switch {
	case w.Rollout != "":
		return "the rollout of " + w.Rollout + in
	case w.CRD != "":
		return "the CRD " + w.CRD + " to be served"
	}
	return w.Of + in + " to be " + w.Condition
}

// insist tries until it goes well: a CRD that is not served yet, a webhook whose
// pods do not run yet, a mirror that is down. What takes longer than the add-on's
// timeout is a problem, and is tried on. The beat tells the others that somebody
// does; who lost the turn meanwhile stops.
func (r *run) insist(ctx context.Context, a cluster.Addon, what string, try func(context.Context) error) error {
	timeout := a.Timeout
	if timeout == 0 {
		timeout = cluster.AddonTimeout
	}
	began := r.Now()
	for {
		err := r.beating(ctx, try)
		if err == nil || errors.Is(err, errTurnLost) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var late error
		if r.Now().Sub(began) >= timeout {
			late = fmt.Errorf("add-on %s waits for %s for more than %s: %w", a.Name, what, timeout, err)
		}
		r.report(r.status(r.state, fmt.Sprintf("waits for %s: %v", what, err)), late)
		if err := r.beat(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, look); err != nil {
			return err
		}
	}
}

// beating tries once, and beats meanwhile. The turn that is lost ends the try. A beat
// that cannot be written is no reason to: the next one tells.
func (r *run) beating(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- try(ctx) }()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if err := r.beat(ctx); errors.Is(err, errTurnLost) {
				cancel()
				<-done // what it began may not go on beside the other's
				return err
			}
		}
	}
}

// beat tells the others that somebody works.
func (r *run) beat(ctx context.Context) error {
	next := r.state
	next.Beat++
	return r.save(ctx, next)
}

// save writes the state as this server has it.
func (r *run) save(ctx context.Context, s State) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("writing the state of the add-ons: %w", err)
	}
	version, err := r.Store.Save(ctx, string(text), r.version)
	if err != nil {
		return err
	}
	if version == "" {
		return errTurnLost
	}
	r.state, r.version = s, version
	return nil
}

// sleep waits, or returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
