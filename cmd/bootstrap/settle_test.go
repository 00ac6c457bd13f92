package main

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// disk is the root of a server that boots again and again.
type disk struct {
	root     string
	spec     cluster.Spec
	hardware device.Hardware
	forgot   int // times that the journal was emptied
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	return &disk{root: t.TempDir(),
		spec: cluster.Spec{ID: trustSpec, Identity: cluster.Identity{Source: "auto"}, Unsafe: cluster.Unsafe{StateFilesystem: true},
			Servers: cluster.Servers{Expect: 3, Quorum: cluster.QuorumSafe, Eligible: cluster.Eligible{Hostname: "cp*"}}},
		hardware: device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3533", MACs: []string{"68:05:ca:b8:f1:f8"}}}
}

// settle is one attempt.
func (d *disk) settle() (*settler, bootstrap.Settled, error) {
	s := &settler{cluster: cluster.Cluster{Spec: d.spec}, boot: "boot", root: d.root,
		hardware: func() (device.Hardware, error) { return d.hardware, nil },
		forget:   func() error { d.forgot++; return nil }}
	settled, err := s.settle(device.Device{ID: "i1", Hostname: "cp1", Addresses: []device.Address{
		{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")}}})
	return s, settled, err
}

// boot settles once, and saves the state as the fence does at its start.
func (d *disk) boot(t *testing.T) (*settler, bootstrap.Settled) {
	t.Helper()
	s, settled, err := d.settle()
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

// copy is another server with a copy of this disk.
func (d *disk) copy(t *testing.T, hardware device.Hardware) *disk {
	t.Helper()
	other := &disk{root: t.TempDir(), spec: d.spec, hardware: hardware}
	if err := os.CopyFS(other.root, os.DirFS(d.root)); err != nil {
		t.Fatal(err)
	}
	return other
}

func (d *disk) has(path string) bool {
	_, err := os.Stat(filepath.Join(d.root, path))
	return err == nil
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

// tree is every file of a disk with its content.
func (d *disk) tree(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSettleForeign: of another cluster's disk nothing is used and nothing
// touched, on whatever hardware, damaged writes and all.
func TestSettleForeign(t *testing.T) {
	first := newDisk(t)
	first.boot(t)
	first.write(t, layout.Elect+"/.muster-state.a-1", "half a write")
	first.write(t, layout.PKI+"/agent.key", "secret")
	first.write(t, layout.EtcdData+"/member/wal/0", "")
	for name, hardware := range map[string]device.Hardware{
		"same": first.hardware, "other": {UUID: "4c4c4544-0051-3210-8057-b2c04f4d3534", MACs: []string{"68:05:ca:b8:f1:aa"}},
	} {
		d := first.copy(t, hardware)
		d.spec.ID = id("9")
		before := d.tree(t)
		_, s := d.boot(t)
		if want := "the state on this disk belongs to cluster " + trustSpec + ", the user-data to cluster " + id("9") + ": nothing is touched; " +
			"to give it to this cluster, reinstall it"; s.Origin != election.Foreign || !strings.HasPrefix(s.Text, want) {
			t.Errorf("%s hardware: %+v", name, s)
		}
		if diff := cmp.Diff(before, d.tree(t)); diff != "" || d.forgot > 0 {
			t.Errorf("%s hardware: the disk was changed (journal emptied %d times): %s", name, d.forgot, diff)
		}
	}
}

// TestSettleClone: what a copied disk is, by what is on it and where it runs.
func TestSettleClone(t *testing.T) {
	other := device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3534", MACs: []string{"68:05:ca:b8:f1:aa"}}
	t.Run("of an unused server", func(t *testing.T) {
		unused := newDisk(t)
		unused.write(t, "etc/muster/cluster.yaml", "spec: {}")
		a, b := unused.copy(t, unused.hardware), unused.copy(t, other)
		_, one := a.boot(t)
		_, two := b.boot(t)
		if one.Origin != election.Fresh || two.Origin != election.Fresh || one.Inst == two.Inst || one.HW == two.HW || one.Text+two.Text != "" {
			t.Errorf("%+v\n%+v", one, two)
		}
	})
	for name, c := range map[string]struct {
		uuid     string
		hardware device.Hardware
		traces   bool
		says     string
	}{
		"of a used server": {newDisk(t).hardware.UUID, other, false, "a cloned or moved disk, or spec.identity.source was changed; this server takes part as a new instance"},
		"on a board with the same UUID": {newDisk(t).hardware.UUID, device.Hardware{UUID: newDisk(t).hardware.UUID, MACs: other.MACs}, false,
			"and other network cards (68:05:ca:b8:f1:f8, here 68:05:ca:b8:f1:aa): a disk cloned to a board with the same UUID, or all cards were replaced; this server takes part as a new instance"},
		"on boards with a UUID that many share": {"03000200-0400-0500-0006-000700080009", device.Hardware{UUID: "03000200-0400-0500-0006-000700080009", MACs: other.MACs}, false, "a cloned or moved disk"},
		"of a member of a cluster":              {newDisk(t).hardware.UUID, other, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			used := newDisk(t)
			used.hardware.UUID = c.uuid
			_, first := used.boot(t)
			used.write(t, layout.PKI+"/agent.key", "secret")
			used.write(t, layout.PKI+"/kubernetes/ca.key", "secret")
			if c.traces {
				used.write(t, layout.EtcdData+"/member/wal/0", "")
			}
			clone := used.copy(t, c.hardware)
			_, s := clone.boot(t)
			if s.Origin != election.Fresh || s.Inst == first.Inst || !strings.Contains(s.Text, c.says) {
				t.Errorf("the clone: %+v", s)
			}
			if clone.has(layout.PKI) != c.traces || clone.forgot != 1 || (s.Evidence != "") != c.traces || (s.Buried != "") != c.traces {
				t.Errorf("keys there: %v, journal emptied %d times, evidence %q, buried %q", clone.has(layout.PKI), clone.forgot, s.Evidence, s.Buried)
			}
			if _, again := clone.boot(t); again.Origin != election.Kept || again.Inst != s.Inst || again.Text != "" || clone.forgot != 1 || again.Buried != s.Buried {
				t.Errorf("its reboot: %+v", again)
			}
			if _, s := used.boot(t); s.Origin != election.Kept || s.Inst != first.Inst || !used.has(layout.PKI) || used.forgot > 0 || s.Buried != "" {
				t.Errorf("the server that was copied: %+v", s)
			}
		})
	}
}

// start asks what the units ask before kubelet and announcer start on this disk.
func (d *disk) start(t *testing.T) error {
	t.Helper()
	at := func(name string) string { return filepath.Join(d.root, name) }
	traces, err := readTraces(tracePaths{elect: at(layout.Elect), goStands: at(layout.GoStands), ca: at(layout.KubernetesPKI + "/ca.crt"),
		adminConf: at(layout.AdminConf), journal: at(layout.Journal), buried: at(layout.Buried)})
	if err == nil {
		readCards(func() (device.Hardware, error) { return d.hardware, nil }, &traces)
		err = bootstrap.CheckStart(traces)
	}
	return err
}

// TestBuriedStaysDown: a disk that carries the node of a formed cluster, in other
// hardware: its kubelet would be that node a second time. It stays down before the
// agent knows who this is, when it knows, at each boot after that, and back in the
// old hardware, until a reset.
func TestBuriedStaysDown(t *testing.T) {
	used := newDisk(t)
	s, _ := used.boot(t)
	ca, _ := fenceCA(t, 1)
	hash, err := plan.CAHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	state := s.current()
	state.Sealed, state.Seq = election.Sealed{CAHash: hash}, state.Seq+1
	if err := s.Save(state); err != nil {
		t.Fatal(err)
	}
	used.write(t, layout.KubernetesPKI+"/ca.crt", string(ca))
	used.write(t, layout.KubeletConf, "")
	if err := used.start(t); err != nil {
		t.Fatalf("the formed node stays down: %v", err)
	}
	clone := used.copy(t, device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3534", MACs: []string{"68:05:ca:b8:f1:aa"}})
	down := func(when, says string) {
		t.Helper()
		if err := clone.start(t); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "bootstrap reset --yes") {
			t.Errorf("%s: %v, expected %q", when, err, says)
		}
	}
	down("before the agent looked", "a server with the network cards 68:05:ca:b8:f1:f8; here are 68:05:ca:b8:f1:aa")
	const says = "this disk carries the node of hardware "
	for range 2 {
		_, settled := clone.boot(t)
		if !strings.HasPrefix(settled.Buried, says) || !strings.Contains(settled.Buried, layout.KubeletConf) {
			t.Errorf("settled: %+v", settled)
		}
		down("settled", settled.Buried)
	}
	clone.hardware = used.hardware
	clone.boot(t)
	down("back in its server", says)
	r := reset{root: clone.root, units: &resetUnitsFake{root: clone.root}}
	found, err := r.look(t.Context())
	if err == nil {
		err = r.clear(t.Context(), found)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.start(t); err != nil {
		t.Errorf("after a reset: %v", err)
	}
	if _, settled := clone.boot(t); settled.Buried != "" || settled.Origin != election.Fresh {
		t.Errorf("after a reset: %+v", settled)
	}
}

// TestBuriedFirst: the mark that keeps a disk down is on it before anything that
// tells of the former life is gone.
func TestBuriedFirst(t *testing.T) {
	used := newDisk(t)
	used.boot(t)
	used.write(t, layout.KubeletConf, "")
	clone := used.copy(t, device.Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3534", MACs: []string{"68:05:ca:b8:f1:aa"}})
	if err := os.MkdirAll(filepath.Join(clone.root, layout.Buried, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := clone.settle(); err == nil || !strings.Contains(err.Error(), "marking that this disk carries another server's node") {
		t.Errorf("got %v", err)
	}
	if clone.forgot > 0 || !clone.has(layout.Elect+"/state.b") {
		t.Errorf("journal emptied %d times, state there: %v", clone.forgot, clone.has(layout.Elect+"/state.b"))
	}
}

// TestSettleCards: network cards come late, come and go; the server stays who it
// is while one of those it ever had is there.
func TestSettleCards(t *testing.T) {
	const a, b, c = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	const uuid, replaced = "4c4c4544-0051-3210-8057-b2c04f4d3533", "all cards were replaced"
	type boot struct {
		macs []string
		says string // "" is the same instance
	}
	for name, tt := range map[string]struct {
		uuid, source string
		boots        []boot
	}{
		"a card comes late":            {uuid, "auto", []boot{{macs: []string{b}}, {macs: []string{a, b}}, {macs: []string{b}}}},
		"the lowest comes late, mac":   {"", "mac", []boot{{macs: []string{b}}, {macs: []string{a, b}}, {macs: []string{b, c}}}},
		"the lowest comes late, auto":  {"Not Specified", "auto", []boot{{macs: []string{b}}, {macs: []string{a, b}}}},
		"no card at first":             {uuid, "auto", []boot{{}, {macs: []string{a}}, {}}},
		"one of two is replaced":       {uuid, "auto", []boot{{macs: []string{a, b}}, {macs: []string{b, c}}}},
		"both, one after the other":    {uuid, "auto", []boot{{macs: []string{a, b}}, {macs: []string{b, c}}, {macs: []string{c}}}},
		"the other was away meanwhile": {uuid, "auto", []boot{{macs: []string{a, b}}, {macs: []string{b}}, {macs: []string{a}}}},
		"all are replaced":             {uuid, "auto", []boot{{macs: []string{a, b}}, {[]string{c}, replaced}, {macs: []string{c}}}},
		"all are replaced, mac":        {"", "mac", []boot{{macs: []string{a, b}}, {[]string{c}, "a cloned or moved disk"}}},
	} {
		d, inst, hw := newDisk(t), "", ""
		d.spec.Identity.Source = tt.source
		for i, now := range tt.boots {
			d.hardware = device.Hardware{UUID: tt.uuid, MACs: now.macs}
			_, s := d.boot(t)
			if same := s.Inst == inst && s.HW == hw; i > 0 && same != (now.says == "") || !strings.Contains(s.Text, now.says) || (s.Text == "") != (now.says == "") {
				t.Errorf("%s, boot %d: same instance %v, %q", name, i, same, s.Text)
			}
			inst, hw = s.Inst, s.HW
		}
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

// TestSettleWaitsForACard: without anything that says who this is nothing is
// written, and the card that comes up after boot settles it.
func TestSettleWaitsForACard(t *testing.T) {
	d := newDisk(t)
	d.hardware = device.Hardware{UUID: "To be filled by O.E.M."}
	_, _, err := d.settle()
	if want := `no hardware identity: the DMI product UUID is "to be filled by o.e.m.", which is none, and there is no Ethernet link with a permanent MAC address; ` +
		"set spec.identity.source: metadata"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if d.has(layout.Elect + "/state.b") {
		t.Error("a state was written")
	}
	d.hardware.MACs = []string{"68:05:ca:b8:f1:f8"}
	if _, s := d.boot(t); s.Origin != election.Fresh || s.Text != "" {
		t.Errorf("%+v", s)
	}
}

// TestSettleWipedMember: a member that lost its vote stays out, and keeps the keys
// that may be the last ones; a server without a cluster gets new ones.
func TestSettleWipedMember(t *testing.T) {
	for _, traces := range []bool{true, false} {
		d := newDisk(t)
		d.boot(t)
		d.write(t, layout.PKI+"/agent.key", "secret")
		if traces {
			d.write(t, layout.KubeletConf, "")
		}
		d.write(t, layout.Elect+"/state.b", "zeros")
		_, s := d.boot(t)
		if s.Origin != election.Fresh || !strings.Contains(s.Text, "counts as wiped") || (s.Evidence != "") != traces {
			t.Errorf("traces %v: %+v", traces, s)
		}
		if kept := d.has(layout.PKI); kept != traces || (d.forgot == 0) != traces {
			t.Errorf("traces %v: keys there: %v, journal emptied %d times", traces, kept, d.forgot)
		}
	}
}

// TestSettleDisk: a disk that takes or gives nothing is said, decides nothing,
// and is asked again.
func TestSettleDisk(t *testing.T) {
	d := newDisk(t)
	_, first := d.boot(t)
	slot := filepath.Join(d.root, layout.Elect, "state.b")
	for name, c := range map[string]struct {
		breaks, mends func() error
		says          string
	}{
		"unreadable state": {
			func() error { return errors.Join(os.Rename(slot, slot+".aside"), os.Symlink("/proc/self/mem", slot)) },
			func() error { return os.Rename(slot+".aside", slot) },
			"the fence's state cannot be read, which does not mean that it is lost",
		},
		"traces that cannot be looked for": {
			func() error { return os.WriteFile(filepath.Join(d.root, "etc"), nil, 0o600) },
			func() error { return os.Remove(filepath.Join(d.root, "etc")) },
			"looking for traces of a cluster on this disk: ",
		},
		"no write": {
			func() error { return os.Mkdir(filepath.Join(d.root, layout.Elect, "probe"), 0o700) },
			func() error { return os.Remove(filepath.Join(d.root, layout.Elect, "probe")) },
			"cannot hold votes, so this server does not vote: ",
		},
	} {
		if err := c.breaks(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.settle(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, expected %q", name, err, c.says)
		}
		if err := c.mends(); err != nil {
			t.Fatal(err)
		}
		if _, s := d.boot(t); s.Origin != election.Kept || s.Inst != first.Inst {
			t.Errorf("%s is over: %+v", name, s)
		}
	}
}

// TestSettleSource: another source makes another server of one that is not formed
// yet, which is how a fleet with one UUID gets on; a formed one stays who it is.
func TestSettleSource(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for _, change := range [][2]string{{"auto", "mac"}, {"auto", "metadata"}, {"mac", "metadata"}, {"metadata", "auto"}} {
			d := newDisk(t)
			d.spec.Identity.Source = change[0]
			s, first := d.boot(t)
			if sealed {
				state := s.current()
				state.Sealed, state.Seq = election.Sealed{CAHash: "sha256:1"}, state.Seq+1
				if err := s.Save(state); err != nil {
					t.Fatal(err)
				}
			}
			d.spec.Identity.Source = change[1]
			_, now := d.boot(t)
			if same := now.Inst == first.Inst && now.HW == first.HW; same != sealed || (now.Text == "") != sealed ||
				!sealed && !strings.Contains(now.Text, "or spec.identity.source was changed; this server takes part as a new instance") {
				t.Errorf("sealed %v, %v: same %v, %q", sealed, change, same, now.Text)
			}
		}
	}
}

// TestSettleSealed: a formed server writes no vote any more and comes back from a
// disk that takes none.
func TestSettleSealed(t *testing.T) {
	d := newDisk(t)
	s, first := d.boot(t)
	state := s.current()
	state.Sealed, state.Seq = election.Sealed{CAHash: "sha256:1"}, state.Seq+1
	if err := s.Save(state); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.root, layout.Elect, "probe"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, s := d.boot(t); s.Origin != election.Kept || s.Inst != first.Inst {
		t.Errorf("%+v", s)
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
