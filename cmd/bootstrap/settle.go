package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
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
	forget   func() error // empties the journal
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
	node, err := plan.NodeFor(s.cluster, d, netip.Addr{})
	if err != nil {
		return out, err
	}
	eligible, err := plan.Eligible(spec.Servers.Eligible, d)
	if err != nil {
		return out, err
	}
	if s.store, err = durable.Open(s.path(layout.Elect), spec.Unsafe.StateFilesystem); err != nil {
		return out, err
	}
	found, err := s.store.Load()
	if err != nil {
		return out, err
	}
	hardware, err := s.identify(found.State, d)
	if err != nil {
		return out, err
	}
	traces, err := evidence(s.root)
	if err != nil {
		return out, err
	}
	state, origin, text := election.Settle(found.State, election.FromSpec(spec), hardware, identity.NewInst())
	if state, err = s.lay(state, origin, found, traces); err != nil {
		return out, err
	}
	s.state = state
	buried, err := readBuried(s.path(layout.Buried))
	if err != nil {
		return out, err
	}
	if buried != "" {
		text = "" // it takes part as nobody
	}
	out = bootstrap.Settled{
		Self:  bootstrap.Self{Inst: state.Inst, HW: state.Hardware.HW, Node: node, Device: d, Eligible: eligible},
		State: state, Origin: origin, Boot: s.boot,
		Text:     strings.Join(nonEmpty(found.Text, text), "; "),
		Evidence: traces, Buried: buried,
	}
	stands, err := readGoStands(s.path(layout.GoStands))
	if err != nil {
		return out, err
	}
	out.Stands = stands.confirms(state)
	return out, nil
}

func (s *settler) path(name string) string { return filepath.Join(s.root, name) }

// identify is the hardware as it votes. A formed server stays who it is, whatever
// source its cluster file names now: with another id it would be no member any more.
func (s *settler) identify(found *election.State, d device.Device) (election.Hardware, error) {
	facts, err := s.hardware()
	if err != nil {
		return election.Hardware{}, err
	}
	voted := ""
	if found != nil {
		voted = found.Hardware.HW
	}
	hw, err := device.KeptHW(s.cluster.Spec.Identity.Source, facts, d.ID, voted)
	if found != nil && found.IsSealed() {
		for _, source := range []string{device.SourceAuto, device.SourceMetadata} {
			if id, otherErr := device.KeptHW(source, facts, d.ID, voted); otherErr == nil && id == voted {
				hw, err = id, nil
			}
		}
	}
	return election.Hardware{HW: hw, UUID: facts.UUID, MACs: facts.MACs}, err
}

// lay brings the disk to what was settled. Another cluster's is left alone. A
// server that needs to write no vote any more does not depend on room on its disk.
func (s *settler) lay(state election.State, origin election.Origin, found durable.Found, traces string) (election.State, error) {
	if origin == election.Foreign {
		return state, nil
	}
	if !state.IsSealed() {
		if err := s.store.Prove(); err != nil {
			return state, err
		}
	}
	if origin == election.Fresh {
		return state, s.bury(found, state.Hardware, traces)
	}
	if !reflect.DeepEqual(state.Hardware, found.State.Hardware) { // a card more: the next boot must know it
		state.Seq++
		return state, s.store.Save(state)
	}
	return state, nil
}

// bury removes what a former life or another server left: keys, the journal, and
// last the state, by which the rest is known. Where a cluster left traces beside
// them the keys stay, for whoever rescues it: such a server founds nothing. When the
// traces are another server's the disk is marked before anything goes: with the
// journal and the state goes what keeps that node down here.
func (s *settler) bury(found durable.Found, is election.Hardware, traces string) error {
	if found.Origin == durable.Fresh {
		return nil
	}
	if found.State != nil && traces != "" {
		text := bootstrap.BuriedText(found.State.Hardware, is, traces)
		if err := durable.WriteFile(s.path(layout.Buried), []byte(text+"\n"), 0o600); err != nil {
			return fmt.Errorf("marking that this disk carries another server's node: %w", err)
		}
	}
	if traces == "" {
		if err := os.RemoveAll(s.path(layout.PKI)); err != nil {
			return fmt.Errorf("removing the keys of a former life: %w", err)
		}
		if err := os.RemoveAll(s.path(layout.Spec)); err != nil {
			return fmt.Errorf("removing the spec of a former life: %w", err)
		}
	}
	if cloned := found.State != nil; cloned || traces == "" {
		if err := s.forget(); err != nil {
			return err
		}
	}
	if err := durable.Flush(s.path(layout.State)); err != nil {
		return err
	}
	return s.store.Discard()
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
// What cannot be looked at is an error, never the same as not there.
func evidence(root string) (string, error) {
	var found []string
	for _, path := range []string{
		filepath.Join(layout.EtcdData, "member"), layout.KubeletConf, layout.AdminConf,
		filepath.Join(layout.Manifests, "etcd.yaml"), filepath.Join(layout.Manifests, "kube-apiserver.yaml"),
	} {
		switch _, err := os.Stat(filepath.Join(root, path)); {
		case err == nil:
			found = append(found, path)
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("looking for traces of a cluster on this disk: %w", err)
		}
	}
	return strings.Join(found, ", "), nil
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
