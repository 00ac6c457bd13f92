package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// settler finds out who this server is and keeps the election's state on disk.
type settler struct {
	cluster  cluster.Cluster
	boot     string
	root     string // "/" on a server
	hardware func() (device.Hardware, error)
	log      *slog.Logger

	store *durable.Store
	mu    sync.Mutex
	state election.State
}

// settle reads hardware and state and says with which instance this server takes
// part.
func (s *settler) settle(d device.Device) (bootstrap.Settled, error) {
	var out bootstrap.Settled
	spec := s.cluster.Spec
	facts, err := s.hardware()
	if err != nil {
		return out, err
	}
	hw, err := device.HW(spec.Identity.Source, facts, d.ID)
	if err != nil {
		return out, err
	}
	node, err := plan.NodeFor(s.cluster, d, netip.Addr{})
	if err != nil {
		return out, err
	}
	eligible, err := plan.Eligible(spec.Servers.Eligible, d)
	if err != nil {
		return out, err
	}
	if s.store, err = durable.Open(filepath.Join(s.root, layout.Elect), spec.Unsafe.StateFilesystem); err != nil {
		return out, err
	}
	found, err := s.store.Load()
	if err != nil {
		return out, err
	}
	hardware := election.Hardware{HW: hw, UUID: facts.UUID, MACs: facts.MACs}
	state, origin, text := election.Settle(found.State, election.FromSpec(spec), hardware, identity.NewInst())
	if origin == election.Fresh && found.Origin != durable.Fresh {
		if err := s.store.Discard(); err != nil {
			return out, err
		}
	}
	s.state = state
	out = bootstrap.Settled{
		Self:  bootstrap.Self{Inst: state.Inst, HW: hw, Node: node, Eligible: eligible},
		State: state, Origin: origin, Boot: s.boot,
		Text:     strings.Join(nonEmpty(found.Text, text), "; "),
		Evidence: evidence(s.root),
	}
	stands, err := readGoStands(filepath.Join(s.root, layout.GoStands))
	if err != nil {
		return out, err
	}
	out.Stands = stands.confirms(state)
	return out, nil
}

func nonEmpty(texts ...string) []string {
	var out []string
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return out
}

// evidence names traces of a cluster on this disk: a server whose state knows no
// decree, but which carries them, was in a cluster and must not help to found
// one. It is looked for at every start, because the state of such a server is
// written like any other.
func evidence(root string) string {
	var found []string
	for _, path := range []string{
		filepath.Join(layout.EtcdData, "member"), layout.KubeletConf, layout.AdminConf,
		filepath.Join(layout.Manifests, "etcd.yaml"), filepath.Join(layout.Manifests, "kube-apiserver.yaml"),
	} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			found = append(found, path)
		}
	}
	return strings.Join(found, ", ")
}

// Save makes a state of the election durable.
func (s *settler) Save(state election.State) error {
	if err := s.store.Save(state); err != nil {
		return fmt.Errorf("saving the election's state: %w", err)
	}
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	return nil
}

// current is the newest state on disk.
func (s *settler) current() election.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}
