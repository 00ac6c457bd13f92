package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// keptSpec is the content of layout.Spec (docs/formats.md).
type keptSpec struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // spec.id: another cluster's is not run by
	member.Spec
}

const keptSpecVersion = 1

// revisions keeps the revision of the cluster's spec that this server runs by, beside
// its own cluster file. It implements bootstrap.Revisions.
type revisions struct {
	own  cluster.Cluster // /etc/muster/cluster.yaml
	path string

	mu       sync.Mutex
	running  member.Spec
	now      cluster.Cluster // own, as far as running does not say otherwise
	hindered error           // why a revision that was kept is not run by
}

// openRevisions reads what was kept. What cannot be run by leaves the server with its
// own cluster file; status says so, and the cluster tells it the newest anew.
func openRevisions(own cluster.Cluster, path string) *revisions {
	r := &revisions{own: own, path: path, now: own}
	kept, err := readSpec(path, own.Spec.ID)
	if err != nil || kept == nil {
		r.hindered = err
		return r
	}
	if r.now, err = r.follow(kept.Text); err != nil {
		r.now, r.hindered = own, fmt.Errorf("revision %d of the spec in %s: %w", kept.Revision, path, err)
		return r
	}
	r.running = *kept
	return r
}

// readSpec returns nil when no revision of this cluster was kept.
func readSpec(path, id string) (*member.Spec, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the spec that was kept: %w", err)
	}
	var kept keptSpec
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&kept); err != nil {
		return nil, fmt.Errorf("reading the spec that was kept in %s: %w", path, err)
	}
	if kept.Version != keptSpecVersion {
		return nil, fmt.Errorf("the spec that was kept in %s has version %d, this agent reads %d", path, kept.Version, keptSpecVersion)
	}
	if kept.ID != id {
		return nil, nil
	}
	return &kept.Spec, nil
}

// follow is the cluster file by which this server would run with a spec.
func (r *revisions) follow(text string) (cluster.Cluster, error) {
	spec, problems := cluster.ParseSpec("spec", []byte(text), cluster.Beside{})
	if err := cluster.Err(problems); err != nil {
		return r.own, err
	}
	if spec.Spec.ID != r.own.Spec.ID {
		return r.own, fmt.Errorf("it is of the cluster with spec.id %s, this server is of %s", spec.Spec.ID, r.own.Spec.ID)
	}
	next := change.Follow(r.own, spec)
	return next, cluster.Err(cluster.CheckFormed("spec, laid over "+layout.ClusterFile, next))
}

// Running is what this agent began with.
func (r *revisions) Running() (member.Spec, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running, r.hindered
}

// Check says why this server could not run by a spec.
func (r *revisions) Check(text string) error {
	_, err := r.follow(text)
	return err
}

// Keep makes a revision durable and says whether it differs from what runs.
func (r *revisions) Keep(spec member.Spec) (bool, error) {
	next, err := r.follow(spec.Text)
	if err != nil {
		return false, err
	}
	data, err := json.Marshal(keptSpec{Version: keptSpecVersion, ID: r.own.Spec.ID, Spec: spec})
	if err != nil {
		return false, fmt.Errorf("keeping the spec: %w", err)
	}
	if err := durable.WriteFile(r.path, append(data, '\n'), 0o600); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	differs := len(change.Between(r.now, next)) > 0
	r.running, r.now, r.hindered = spec, next, nil
	return differs, nil
}

// readEffective reads the cluster file by which this server runs: the one at path, and
// over it the revision of the cluster's spec that was kept.
func readEffective(path string) (cluster.Cluster, error) {
	c, err := readCluster(path)
	if err != nil || path != layout.ClusterFile {
		return c, err
	}
	return openRevisions(c, layout.Spec).now, nil
}
