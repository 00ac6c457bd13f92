package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// mirror is where artefacts come from: their files by name, and what was done.
type mirror struct {
	files              map[string][]string
	fetched, installed []string
	fail               error
	root               string
}

func (a *mirror) Fetch(_ context.Context, pins []cluster.Pin, report func(member.Fetching)) error {
	for _, p := range pins {
		a.fetched = append(a.fetched, p.Name)
	}
	report(member.Fetching{Done: len(pins), Items: len(pins), Faults: []string{"http://dead: connection refused"}})
	return a.fail
}

func (a *mirror) Install(_ context.Context, p cluster.Pin, place func(string) (string, bool)) error {
	a.installed = append(a.installed, p.Name)
	for _, f := range a.files[p.Name] {
		dest, ok := place(f)
		if !ok {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(dest), 0o755), os.WriteFile(dest, []byte(p.Name+" "+p.Version), 0o755)); err != nil {
			return err
		}
	}
	return nil
}

func (a *mirror) Path(_ context.Context, p cluster.Pin) (string, error) {
	return "/cache/" + p.Name, nil
}

func digest(text string) cluster.Digest {
	sum := sha256.Sum256([]byte(text))
	return cluster.Digest{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(text))}
}

// locked are the pins of a cluster, as userdata lock makes them.
func locked() []cluster.Pin {
	var pins []cluster.Pin
	for _, a := range (cluster.Spec{
		Kubernetes: cluster.Kubernetes{Version: "v1.36.3"},
		Artifacts:  cluster.Artifacts{Images: []cluster.ImageArchive{{Name: "core"}}},
	}).Wanted() {
		pins = append(pins, cluster.Pin{Name: a.Name, Version: a.Version, AMD64: digest(a.Name + " " + a.Version)})
	}
	return pins
}

func lockedHost(t *testing.T) (*Host, *machine, *mirror) {
	h, m := setUp(t)
	m.versions = map[string]string{
		"containerd": "containerd github.com/containerd/containerd/v2 v2.3.4 0123456\n", "crictl": "crictl version v1.36.0\n", "kubelet": "Kubernetes v1.36.3\n",
	}
	m.lay(layout.Artifacts+"/x", "")
	a := &mirror{root: m.root, files: map[string][]string{
		"kubeadm": {"kubeadm"}, "kubelet": {"kubelet"}, "kubectl": {"kubectl"}, "runc": {"runc"}, "crictl": {"crictl"},
		"containerd":  {"bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/containerd-stress"},
		"cni-plugins": {"loopback", "bridge", "LICENSE", "README.md"},
	}}
	h.Artifacts, h.Arch, h.Cluster.Lock = a, "amd64", locked()
	return h, m, a
}

// Where /usr cannot be written all goes elsewhere, and is run from there.
func TestPreparesElsewhere(t *testing.T) {
	h, m, _ := lockedHost(t)
	for _, p := range append(artefacts(layout.Local), layout.Local.Bin()+"/crictl") {
		_ = os.Remove(m.path(p))
	}
	before := below(t, m.path("/usr"))
	h.Prefix = layout.Opt
	if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, below(t, m.path("/usr"))); diff != "" {
		t.Errorf("changed below /usr (-before +after):\n%s", diff)
	}
	for _, p := range append(artefacts(layout.Opt), "/opt/bin/crictl", "/opt/bin/crictl.yaml") {
		if !h.exists(p) {
			t.Errorf("%s was not laid", p)
		}
	}
	for _, name := range m.ran {
		if strings.HasPrefix(name, "/usr/") {
			t.Errorf("%s was run", name)
		}
	}
	config, err := os.ReadFile(m.path(containerdConfig))
	if err != nil || !strings.Contains(string(config), `BinaryName = "/opt/sbin/runc"`) {
		t.Errorf("containerd's configuration does not name runc (%v):\n%s", err, config)
	}
	if kubelet := string(m.installed[layout.UnitKubelet]); !strings.Contains(kubelet, "\nExecStart=/opt/bin/kubelet ") {
		t.Errorf("the kubelet's unit:\n%s", kubelet)
	}
}

// below lists what is in a directory and its directories.
func below(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestInstallsWhatIsMissing: a server with nothing gets everything, once.
func TestInstallsWhatIsMissing(t *testing.T) {
	h, m, a := lockedHost(t)
	for _, p := range append(artefacts(layout.Local), layout.Local.Bin()+"/crictl") {
		_ = os.Remove(m.path(p))
	}
	var seen []member.Preparation
	report := func(p member.Preparation) { seen = append(seen, p) }
	if err := h.Prepare(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	all := []string{"cni-plugins", "containerd", "crictl", "images-core", "kubeadm", "kubectl", "kubelet", "runc"}
	if diff := cmp.Diff(all, a.fetched); diff != "" {
		t.Error(diff)
	}
	for _, p := range append(artefacts(layout.Local), layout.Local.Bin()+"/crictl", layout.CNIBinDir+"/bridge") {
		if !h.exists(p) {
			t.Errorf("%s was not laid", p)
		}
	}
	for _, p := range []string{layout.CNIBinDir + "/LICENSE", layout.CNIBinDir + "/README.md", layout.Local.Bin() + "/containerd-stress"} {
		if h.exists(p) {
			t.Errorf("%s was laid", p)
		}
	}
	if diff := cmp.Diff([]string{"/cache/images-core"}, m.imported); diff != "" {
		t.Error(diff)
	}
	end := seen[len(seen)-1]
	if end.Step != "" || end.Artefacts.Done != 8 || len(end.Artefacts.Faults) != 1 {
		t.Errorf("the last report is %+v", end)
	}
	a.fetched, a.installed, m.imported, m.writes = nil, nil, nil, 0
	m.lay("/sys/module/br_netfilter/x", "")
	if err := h.Prepare(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	if len(a.fetched)+len(a.installed)+len(m.imported)+m.writes != 0 {
		t.Errorf("a second run fetched %v, installed %v, imported %v, wrote %d files", a.fetched, a.installed, m.imported, m.writes)
	}

	t.Run("what was lost comes back", func(t *testing.T) {
		_ = os.Remove(m.path(layout.Local.Runc()))
		if err := h.Prepare(t.Context(), report); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"runc"}, a.installed); diff != "" {
			t.Error(diff)
		}
	})
}

// TestKeepsWhatTheImageHas: what is as pinned stays; another version is replaced.
func TestKeepsWhatTheImageHas(t *testing.T) {
	h, m, a := lockedHost(t)
	h.Cluster.Lock = h.Cluster.Lock[:3:3] // without images and single files
	for _, p := range locked()[4:] {
		h.Cluster.Lock = append(h.Cluster.Lock, p)
		m.lay(h.filesOf(p.Name)[0], p.Name+" "+p.Version)
	}
	m.lay(layout.Local.Bin()+"/crictl", "")
	if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
		t.Fatal(err)
	}
	if len(a.fetched) != 0 {
		t.Errorf("fetched %v, though the image has it", a.fetched)
	}
	m.versions["containerd"] = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1\n"
	m.lay(layout.Local.Bin()+"/kubectl", "another kubectl")
	m.lay("/usr/bin/containerd", "")
	if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"containerd", "kubectl"}, a.installed); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"of another version and is replaced by the pinned one", "1.6.20~ds1", "the distribution's containerd stays installed and is not used"} {
		if !strings.Contains(m.log.String(), want) {
			t.Errorf("the journal does not say %q:\n%s", want, m.log.String())
		}
	}
}

// TestInstallSaysWhy: nothing is laid when anything is wrong.
func TestInstallSaysWhy(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(h *Host, m *machine, a *mirror)
		want  string
	}{
		"mirrors":   {func(_ *Host, _ *machine, a *mirror) { a.fail = errors.New("runc cannot be had") }, "preparing this server, artefacts: runc cannot be had"},
		"space":     {func(h *Host, _ *machine, _ *mirror) { h.Cluster.Lock[1].AMD64.Size = 30 << 30 }, "/usr/local/bin has 102400 MiB free, expected at least 122880"},
		"a mistake": {func(_ *Host, _ *machine, a *mirror) { a.files["kubelet"] = []string{"kubelet.txt"} }, "holds no kubelet: the lock file pins something else under this name"},
		"a stranger": {func(h *Host, _ *machine, _ *mirror) {
			h.Cluster.Lock = append(h.Cluster.Lock, cluster.Pin{Name: "kubernetes-the-hard-way"})
		}, `pins "kubernetes-the-hard-way", which this agent cannot install`},
	} {
		t.Run(name, func(t *testing.T) {
			h, m, a := lockedHost(t)
			for _, p := range artefacts(layout.Local) {
				_ = os.Remove(m.path(p))
			}
			row.spoil(h, m, a)
			err := h.Prepare(t.Context(), func(member.Preparation) {})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, expected %q", err, row.want)
			}
			if name != "a mistake" && len(a.installed) > 0 {
				t.Errorf("installed %v", a.installed)
			}
		})
	}
}
