package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
)

// resetUnitsFake is systemd that remembers orders, and kubeadm reset as its unit
// runs it.
type resetUnitsFake struct {
	root   string
	active []string
	orders []string
	fail   string // this order fails once
}

func (u *resetUnitsFake) order(text string) error {
	if u.fail == text {
		u.fail = ""
		return errors.New(text + " failed")
	}
	u.orders = append(u.orders, text)
	return nil
}

func (u *resetUnitsFake) Stop(_ context.Context, unit string) error {
	u.active = slices.DeleteFunc(u.active, func(x string) bool { return x == unit })
	return u.order("stop " + unit)
}

func (u *resetUnitsFake) Start(_ context.Context, unit string) error {
	if _, err := os.Stat(filepath.Join(u.root, layout.ResetConfig)); err != nil {
		return err
	}
	return u.order("start " + unit)
}

func (u *resetUnitsFake) Restart(_ context.Context, unit string) error {
	return u.order("restart " + unit)
}

func (u *resetUnitsFake) Active(_ context.Context, unit string) (bool, error) {
	return slices.Contains(u.active, unit), nil
}

func (u *resetUnitsFake) Activating(context.Context, string) (bool, error) { return false, nil }

// formerLife lays what a worker of a formed cluster has on its disk, and what stays.
func formerLife(t *testing.T, c cluster.Cluster) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range map[string]string{
		layout.KubeletConf: "half", layout.KubeletData + "/config.yaml": "x", layout.EtcdData + "/member/snap/db": "x",
		layout.PKI + "/leaf.key": "secret", layout.Directory + "/e0-g0/open-1": "x", layout.Device: "{}", layout.AnnouncePlan: "{}",
		layout.Directory + "-e0-g0.made": "x",
		layout.Manifests + "/etcd.yaml":  "x",
		layout.ClusterFile:               "kept", layout.Artifacts + "/kubelet": "kept", layout.CNIConfDir + "/10-net.conflist": "kept",
	} {
		mustDo(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700))
		mustDo(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o600))
	}
	mustDo(t, os.MkdirAll(filepath.Join(root, layout.Elect), 0o700))
	store, err := durable.Open(filepath.Join(root, layout.Elect), true)
	mustDo(t, err)
	config := election.FromSpec(c.Spec)
	mustDo(t, store.Save(election.State{
		Seq: 1, SpecID: c.Spec.ID, Config: config.Hash(), N: config.N, Inst: id("a"), Hardware: election.Hardware{HW: id("b")},
		Sealed: election.Sealed{CAHash: "sha256:" + strings.Repeat("ab", 32), Endpoint: "10.99.14.9:6443"},
	}))
	journal, err := durable.OpenJournal(filepath.Join(root, layout.Journal), "boot", time.Now)
	mustDo(t, err)
	mustDo(t, journal.Finish(bootstrap.StepWorker))
	mustDo(t, journal.Finish(kubeadm.StepJoin))
	return root
}

// filesBelow lists what is left below a directory.
func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	mustDo(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, root))
		}
		return err
	}))
	return out
}

func TestReset(t *testing.T) {
	inNamespace(t)
	c := cluster.Cluster{}
	c.Spec.ID, c.Spec.Servers.Expect = "5b0c1e9a4d7f", 3
	root := formerLife(t, c)
	units := &resetUnitsFake{root: root, active: []string{layout.UnitAgent, layout.UnitKubelet}}
	none := func(context.Context) (bool, error) { return false, nil }
	run := func(yes, force bool) (string, error) {
		r := reset{root: root, yes: yes, force: force, units: units, net: netReset{
			state: filepath.Join(root, "network.json"), agent: filepath.Join(root, "a"), speaker: filepath.Join(root, "s"),
			kubeVIP: filepath.Join(root, "v"), guarded: none, unguard: func(context.Context) (bool, error) { return false, units.order("clear the network") },
		}}
		var stdout, stderr bytes.Buffer
		err := r.run(t.Context(), c, &stdout, &stderr)
		return stdout.String(), err
	}
	before := filesBelow(t, root)
	_, err := run(true, false)
	var coded exitError
	if !errors.As(err, &coded) || coded.code != exitPermission || !strings.Contains(err.Error(), "worker of the formed cluster") {
		t.Fatalf("a healthy worker: %v, expected a refusal with exit code 77", err)
	}
	said, err := run(false, true)
	mustDo(t, err)
	want := `stop muster.service
stop kubelet.service
run kubeadm reset, which ends the pods and, where its API server answers, takes this server's etcd out of the cluster's
empty /etc/kubernetes
empty /var/lib/kubelet
empty /var/lib/etcd
remove /var/lib/muster/journal
remove /var/lib/muster/pki
remove /var/lib/muster/directory
remove /var/lib/muster/device.json
remove /run/muster/announce.json
remove /var/lib/muster/directory-e0-g0.made
remove /var/lib/muster/elect, this server's vote and instance
DANGER: its pods end without warning, and its node stays in Kubernetes until somebody deletes it.
Nothing was done: add --yes to do it.
`
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, filesBelow(t, root)); diff != "" || len(units.orders) > 0 {
		t.Fatalf("something was done without --yes: %q\n%s", units.orders, diff)
	}

	units.fail = "stop " + layout.UnitDirectory // cut off after kubeadm reset
	if _, err := run(true, true); err == nil {
		t.Fatal("a unit that does not stop is no error")
	}
	if found, err := durable.Read(filepath.Join(root, layout.Elect)); err != nil || found.State == nil {
		t.Fatalf("the vote went before the rest: %+v, %v", found, err)
	}
	units.orders = nil
	if _, err := run(true, true); err != nil {
		t.Fatal(err)
	}
	order := []string{
		"stop muster-upgrade.service", "stop muster.service", "stop kubeadm-init.service", "stop kubeadm-join.service", "start kubeadm-reset.service",
		"clear the network", // kubeadm asks at the Elastic IP, which may be on this lo only
		"stop kubelet.service", "stop muster-announce.service", "stop muster-directory.service", "stop muster-routes.service",
	}
	if diff := cmp.Diff(order, units.orders); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	left := []string{layout.CNIConfDir + "/10-net.conflist", layout.ClusterFile, layout.ResetConfig, layout.Artifacts + "/kubelet"}
	if diff := cmp.Diff(left, filesBelow(t, root)); diff != "" { // the unit takes its permission away
		t.Errorf("left on the disk (-want +got):\n%s", diff)
	}
	if said, err := run(true, false); err != nil || said != "Nothing of a former life is here.\n" {
		t.Errorf("once more: %q, %v", said, err)
	}
}
