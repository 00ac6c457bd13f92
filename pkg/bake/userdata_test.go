package bake

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/layout"
)

// newTree is what userdata render --format dir makes, in short.
func newTree(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"etc/muster/cluster.yaml":                                   "secret: x\n",
		"usr/local/libexec/muster-fetch":                            "#!/bin/sh\n",
		"etc/systemd/system/muster.service":                         "[Service]\nExecStart=/bin/false\n",
		"etc/systemd/system/extra.service":                          "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
		"etc/systemd/system/multi-user.target.wants/muster.service": "-> /etc/systemd/system/muster.service",
		"etc/systemd/system-preset/10-muster-user-data.preset":      "enable muster.service\nenable extra.service\n",
	})
	return dir
}

func TestBakeUserData(t *testing.T) {
	o := Options{Root: newRoot(t), Units: someUnits, UserData: newTree(t)}
	first, err := Bake(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/etc/systemd/system/kubelet.service",
		"/etc/systemd/system/muster.service",
		"/etc/systemd/system-preset/20-muster.preset",
		"/etc/muster/cluster.yaml",
		"/etc/systemd/system/extra.service",
		"/etc/systemd/system/multi-user.target.wants/muster.service",
		"/etc/systemd/system-preset/10-muster-user-data.preset",
		"/usr/local/libexec/muster-fetch",
	}
	if diff := cmp.Diff(want, first.Changed); diff != "" {
		t.Errorf("laid (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(o.Root, "etc/muster/cluster.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cluster file has mode %v, %v; its copy in the tree was readable by all", info.Mode(), err)
	}
	unit, err := os.ReadFile(filepath.Join(o.Root, "etc/systemd/system/muster.service"))
	if err != nil || strings.Contains(string(unit), "/bin/false") {
		t.Errorf("the agent's own unit is gone: %s, %v", unit, err)
	}
	second, err := Bake(t.Context(), o)
	if err != nil || len(second.Changed) != 0 {
		t.Errorf("second bake changed %q, %v; want nothing", second.Changed, err)
	}

	// A first boot applies presets: to each unit the first that names it.
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		t.Skip("systemctl is not installed; it applies the presets of a first boot")
	}
	if out, err := exec.CommandContext(t.Context(), systemctl, "--root="+o.Root, "preset-all").CombinedOutput(); err != nil {
		t.Fatalf("systemctl preset-all: %v\n%s", err, out)
	}
	entries, err := os.ReadDir(filepath.Join(o.Root, "etc/systemd/system/multi-user.target.wants"))
	var enabled []string
	for _, e := range entries {
		enabled = append(enabled, e.Name())
	}
	if diff := cmp.Diff([]string{"extra.service", "muster.service"}, enabled); diff != "" || err != nil {
		t.Errorf("enabled after a first boot (-want +got): %v\n%s", err, diff)
	}
}

func TestBakeUserDataRefuses(t *testing.T) {
	empty := Options{Root: newRoot(t), UserData: t.TempDir()}
	if _, err := Bake(t.Context(), empty); err == nil || !strings.Contains(err.Error(), "make the directory with userdata render --format dir") {
		t.Errorf("an empty directory: %v", err)
	}
	other := Options{Root: newRoot(t), UserData: newTree(t)}
	write(t, other.Root, map[string]string{"etc/systemd/system/multi-user.target.wants/muster.service": "-> /dev/null"})
	if _, err := Bake(t.Context(), other); err == nil || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("another link: %v", err)
	}
	moved := Options{Root: newRoot(t), UserData: newTree(t), Prefix: layout.Opt}
	if _, err := Bake(t.Context(), moved); err == nil || !strings.Contains(err.Error(), "is not for programs below /opt: ") || !strings.Contains(err.Error(), "the same --prefix") {
		t.Errorf("user-data for another prefix: %v", err)
	}
	out := Options{Root: newRoot(t), UserData: newTree(t)}
	write(t, out.Root, map[string]string{"etc/muster": "-> /tmp"})
	if _, err := Bake(t.Context(), out); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a link that leads out of the root: %v", err)
	}
}
