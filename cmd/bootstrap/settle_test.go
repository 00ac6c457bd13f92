package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
)

// disk is the root of a server that boots again and again.
type disk struct {
	root     string
	spec     cluster.Spec
	hardware device.Hardware
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	return &disk{root: t.TempDir(),
		spec: cluster.Spec{ID: trustSpec, Identity: cluster.Identity{Source: "auto"}, Unsafe: cluster.Unsafe{StateFilesystem: true},
			Servers: cluster.Servers{Expect: 3, Quorum: cluster.QuorumSafe, Eligible: cluster.Eligible{Hostname: "cp*"}}},
		hardware: device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3533", MACs: []string{"68:05:ca:b8:f1:f8"}}}
}

// boot settles once, and saves the state as the fence does at its start.
func (d *disk) boot(t *testing.T) (*settler, bootstrap.Settled) {
	t.Helper()
	s := &settler{cluster: cluster.Cluster{Spec: d.spec}, boot: "boot", root: d.root, hardware: func() (device.Hardware, error) { return d.hardware, nil }}
	settled, err := s.settle(device.Device{ID: "i1", Hostname: "cp1", Addresses: []device.Address{
		{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")}}})
	if err != nil {
		t.Fatal(err)
	}
	if settled.Origin == election.Fresh {
		state := settled.State
		state.Seq++
		if err := s.Save(state); err != nil {
			t.Fatal(err)
		}
		if s.current().Seq != state.Seq {
			t.Error("the state that was saved is not the current one")
		}
	}
	return s, settled
}

func (d *disk) write(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSettle: one disk through its lives.
func TestSettle(t *testing.T) {
	d := newDisk(t)
	_, first := d.boot(t)
	if first.Origin != election.Fresh || len(first.Inst) != 32 || len(first.HW) != 32 || !first.Eligible || first.Boot != "boot" || first.Text != "" {
		t.Errorf("first boot: %+v", first)
	}
	if first.Node.Name != "cp1" || first.Node.Private != netip.MustParseAddr("10.99.14.9") {
		t.Errorf("node %+v", first.Node)
	}
	_, again := d.boot(t)
	if again.Origin != election.Kept || again.Inst != first.Inst || again.HW != first.HW {
		t.Errorf("after a reboot: %+v", again)
	}

	// A new network card leaves the server who it is; another board does not.
	d.hardware.MACs = append(d.hardware.MACs, "68:05:ca:b8:f1:ff")
	if _, s := d.boot(t); s.Inst != first.Inst {
		t.Errorf("a network card more makes another instance: %+v", s)
	}
	old := d.hardware
	d.hardware = device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3534", MACs: []string{"68:05:ca:b8:f1:aa"}}
	_, moved := d.boot(t)
	if moved.Origin != election.Fresh || moved.Inst == first.Inst || moved.HW == first.HW || !strings.Contains(moved.Text, "a cloned or moved disk") {
		t.Errorf("the disk in another server: %+v", moved)
	}
	if _, s := d.boot(t); s.Origin != election.Kept || s.Inst != moved.Inst {
		t.Errorf("its reboot: %+v", s)
	}
	d.hardware = old
	if _, s := d.boot(t); s.Inst == first.Inst || s.Inst == moved.Inst {
		t.Errorf("the disk back in its server is an old instance again: %+v", s)
	}
}

// TestSettleDamaged: a state in doubt is never used; it is a new life.
func TestSettleDamaged(t *testing.T) {
	d := newDisk(t)
	_, first := d.boot(t)
	d.write(t, layout.Elect+"/state.b", "zeros")
	_, s := d.boot(t)
	if s.Origin != election.Fresh || s.Inst == first.Inst || !strings.Contains(s.Text, "counts as wiped") || !strings.Contains(s.Text, "state.b") {
		t.Errorf("%+v", s)
	}
	if _, next := d.boot(t); next.Origin != election.Kept || next.Inst != s.Inst {
		t.Errorf("its reboot: %+v", next)
	}
}

// TestSettleForeign: another cluster's state is neither used nor touched.
func TestSettleForeign(t *testing.T) {
	d := newDisk(t)
	d.boot(t)
	before := read(t, filepath.Join(d.root, layout.Elect), "state.b")
	d.spec.ID = id("9")
	_, s := d.boot(t)
	if s.Origin != election.Foreign || !strings.Contains(s.Text, "belongs to cluster "+trustSpec) {
		t.Errorf("%+v", s)
	}
	if after := read(t, filepath.Join(d.root, layout.Elect), "state.b"); string(after) != string(before) {
		t.Error("the state was changed")
	}
}

// TestSettleEvidence: what lies in /etc/kubernetes and /var/lib/etcd is told, at
// every boot.
func TestSettleEvidence(t *testing.T) {
	d := newDisk(t)
	d.write(t, layout.KubeletConf, "")
	d.write(t, layout.EtcdData+"/member/snap/db", "")
	for range 2 {
		if _, s := d.boot(t); s.Evidence != "/var/lib/etcd/member, /etc/kubernetes/kubelet.conf" {
			t.Errorf("evidence %q", s.Evidence)
		}
	}
}

// TestSettleStands: the mark of this boot counts for this instance's GO alone.
func TestSettleStands(t *testing.T) {
	d := newDisk(t)
	s, first := d.boot(t)
	path := filepath.Join(d.root, layout.GoStands)
	d.write(t, layout.GoStands, "")
	if err := writeGoStands(path, first.Inst, 0); err != nil {
		t.Fatal(err)
	}
	if _, settled := d.boot(t); settled.Stands {
		t.Error("GO stands that was never decided")
	}
	state := s.current()
	leader := election.Leader{HW: first.HW, Inst: first.Inst, Name: "cp1", Address: first.Node.Private, CAHash: "sha256:1", AgentCAHash: "sha256:2"}
	state.Slots = []election.Slot{{Decided: election.Value{Kind: election.Lead, Leader: leader}}, {Decided: election.Value{Kind: election.Go}}}
	state.GoMarker, state.Seq = true, state.Seq+1
	if err := s.Save(state); err != nil {
		t.Fatal(err)
	}
	if _, settled := d.boot(t); !settled.Stands {
		t.Error("the agent's restart forgot that GO stands")
	}
	if err := writeGoStands(path, first.Inst, 1); err != nil {
		t.Fatal(err)
	}
	if _, settled := d.boot(t); settled.Stands {
		t.Error("a mark of another epoch counts")
	}
}
