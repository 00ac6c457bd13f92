// Package addons applies the cluster file's list of add-ons to Kubernetes: in its
// order, server-side, with waits between, by one control plane at a time. What was
// applied is kept in Kubernetes itself, so that any control plane goes on where
// another stopped, and so that what the list no longer holds is taken away.
//
// Floor 2. It runs kubectl; docs/formats.md describes the ConfigMap.
package addons

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Object names one object of Kubernetes.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// String is as kubectl's users would write it.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// stays says that an object is left when the list no longer holds it: with it
// would go what others put there.
func (o Object) stays() bool {
	return o.Kind == "Namespace" && o.APIVersion == "v1" || o.Kind == "CustomResourceDefinition"
}

// State is what Kubernetes keeps of the add-ons (docs/formats.md).
type State struct {
	Version int    `json:"version"`
	List    string `json:"list"` // Hash of the list that is being applied
	// Revision is that of the cluster's spec which has the list; 0: the servers' own
	// cluster files.
	Revision uint64 `json:"revision,omitempty"`
	Holder   string `json:"holder"` // instance that applies it
	// Beat grows while the holder works. Clocks of different servers are never
	// compared.
	Beat   uint64    `json:"beat"`
	Done   bool      `json:"done"` // all of it is applied, and the rest taken away
	Addons []Applied `json:"addons"`
	// Stale are objects that earlier lists applied, to be taken away when this one is
	// applied and does not hold them.
	Stale []Object `json:"stale,omitempty"`
	// Left are objects that the list no longer holds and that stay.
	Left []Object `json:"left,omitempty"`
}

// ConfigMap is the one in kube-system that keeps State.
const ConfigMap = "muster-addons"

// stateVersion is that of State.
const stateVersion = 1

// Applied is one add-on as it was applied last.
type Applied struct {
	Name    string   `json:"name"`
	Hash    string   `json:"hash"` // of the add-on as the list has it
	Done    bool     `json:"done"` // also its waits are over
	Objects []Object `json:"objects"`
}

// parseState reads State; "" is one of no list.
func parseState(text string) (State, error) {
	if text == "" {
		return State{Version: stateVersion}, nil
	}
	var s State
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("it is not what muster writes (%w); delete it, and every add-on is applied anew", err)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("it is of version %d, this muster knows version %d: another control plane has a newer one, which applies the add-ons", s.Version, stateVersion)
	}
	return s, nil
}

// hash is that of a list of add-ons or of one: SHA-256 of its JSON in hex.
func hash(x any) string {
	data, err := json.Marshal(x)
	if err != nil {
		panic(err) // strings, times and slices of them
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// act is what a control plane does about the add-ons.
type act int

const (
	rest act = iota // all is applied, or not for this server to apply
	wait            // another applies it
	work            // this server applies it
)

// takeOver is how long the beat of a holder must stand still before another goes
// on, and how long the control planes that joined leave the list to the first. A
// holder beats every few seconds.
const takeOver = 2 * time.Minute

// decide says what the server me does about the list of a revision, when its state has
// stood still for as long as silent. first is the control plane that ran kubeadm init.
func decide(s State, list string, revision uint64, me string, first bool, silent time.Duration) (act, string) {
	switch {
	case s.List == list && s.Done:
		return rest, ""
	case s.List != "" && s.List != list && revision < s.Revision:
		return rest, fmt.Sprintf("the control planes apply the list of add-ons of revision %d; nothing is applied from here", s.Revision)
	case s.List != "" && s.List != list && revision == s.Revision:
		return rest, "the cluster was given another list of add-ons than this server's cluster file has; nothing is applied from here"
	case s.Holder == me || s.Holder == "" && first || silent >= takeOver:
		return work, ""
	case s.Holder == "":
		return wait, fmt.Sprintf("the first control plane to apply the add-ons; this one does after %s", takeOver)
	}
	return wait, fmt.Sprintf("instance %s to apply the add-ons; this server goes on when that one stands still for %s", s.Holder, takeOver)
}

// begin returns the state in which me applies the list.
func begin(s State, list []cluster.Addon, revision uint64, me string) State {
	s.Version, s.Holder, s.Done = stateVersion, me, false
	s.Revision = max(s.Revision, revision)
	s.Beat++
	if h := hash(list); s.List != h {
		s.List = h
		kept := []Applied{}
		for _, a := range s.Addons {
			if slices.ContainsFunc(list, func(b cluster.Addon) bool { return a.Name == b.Name }) {
				kept = append(kept, a)
			} else {
				s.Stale = unique(append(slices.Clone(s.Stale), a.Objects...))
			}
		}
		s.Addons = kept
	}
	return s
}

// applied returns the state with an add-on in it.
func (s State) applied(a cluster.Addon, objects []Object, done bool) State {
	s.Beat++
	s.Addons = slices.Clone(s.Addons)
	i := slices.IndexFunc(s.Addons, func(b Applied) bool { return a.Name == b.Name })
	if i < 0 {
		i = len(s.Addons)
		s.Addons = append(s.Addons, Applied{Name: a.Name})
	}
	s.Stale = unique(append(slices.Clone(s.Stale), s.Addons[i].Objects...))
	s.Addons[i] = Applied{Name: a.Name, Hash: hash(a), Done: done, Objects: unique(objects)}
	return s
}

// has says whether an add-on is applied, its waits included.
func (s State) has(a cluster.Addon) bool {
	return slices.ContainsFunc(s.Addons, func(b Applied) bool { return b.Name == a.Name && b.Hash == hash(a) && b.Done })
}

// surplus is what the list no longer holds: first what is to be deleted, the last
// applied first, then what stays.
func (s State) surplus() (gone, left []Object) {
	var keep []Object
	for _, a := range s.Addons {
		keep = append(keep, a.Objects...)
	}
	for _, o := range slices.Backward(append(slices.Clone(s.Left), s.Stale...)) {
		switch {
		case slices.ContainsFunc(keep, o.same):
		case o.stays():
			left = append(left, o)
		default:
			gone = append(gone, o)
		}
	}
	return gone, unique(left)
}

// finished is the state once all is applied and the rest is taken away.
func (s State) finished(left []Object) State {
	s.Beat++
	s.Done, s.Stale, s.Left = true, nil, left
	return s
}

// same says whether both name one object: an API group serves an object in several
// versions.
func (o Object) same(p Object) bool {
	return o.group() == p.group() && o.Kind == p.Kind && o.Namespace == p.Namespace && o.Name == p.Name
}

func (o Object) group() string {
	group, _, named := strings.Cut(o.APIVersion, "/")
	if !named {
		return "" // the core group: v1
	}
	return group
}

// unique drops what stands in the list before.
func unique(objects []Object) []Object {
	var out []Object
	for _, o := range objects {
		if !slices.ContainsFunc(out, o.same) {
			out = append(out, o)
		}
	}
	return out
}
