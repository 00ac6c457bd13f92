package bake

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/layout"
)

// write lays files below dir; a content that begins with "-> " is a link.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// newRoot is a root as a careful builder leaves it.
func newRoot(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"usr/lib/os-release":       "ID=debian\n",
		"etc/machine-id":           "",
		"etc/hostname":             "localhost\n",
		"usr/sbin/runc":            "runc",
		"var/lib/dbus/machine-id":  "-> /etc/machine-id",
		"etc/ssh/sshd_config":      "",
		"var/lib/cloud/seed/.keep": "",
	})
	return dir
}

func newArtifacts(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"kubeadm": "kubeadm", "kubelet": "kubelet", "kubectl": "kubectl", "containerd": "containerd",
		"containerd-shim-runc-v2": "shim", "ctr": "ctr", "cni/bridge": "bridge", "cni/loopback": "loopback",
		"kube-apiserver": "for an image",
	})
	return dir
}

var someUnits = map[string][]byte{
	"muster.service":  []byte("[Service]\nExecStart=/usr/local/bin/bootstrap agent\n[Install]\nWantedBy=multi-user.target\n"),
	"kubelet.service": []byte("[Service]\nExecStart=/usr/local/bin/kubelet\n[Install]\nWantedBy=multi-user.target\n"),
}

// program is a real ELF file: the test itself.
func program(t *testing.T) string {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func TestBakeLaysEverythingOnce(t *testing.T) {
	o := Options{Root: newRoot(t), Agent: program(t), Units: someUnits, Artifacts: newArtifacts(t)}
	first, err := Bake(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := Report{
		Changed: []string{
			"/usr/local/bin/bootstrap",
			"/etc/systemd/system/kubelet.service",
			"/etc/systemd/system/muster.service",
			"/etc/systemd/system-preset/20-muster.preset",
			"/usr/local/bin/kubeadm",
			"/usr/local/bin/kubelet",
			"/usr/local/bin/kubectl",
			"/usr/local/bin/containerd",
			"/usr/local/bin/containerd-shim-runc-v2",
			"/usr/local/bin/ctr",
			"/opt/cni/bin/bridge",
			"/opt/cni/bin/loopback",
			"/usr/local/sbin/runc",
		},
		Notes: []string{"not laid, because no unit runs them: kube-apiserver"},
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("first bake (-want +got):\n%s", diff)
	}
	if target, err := os.Readlink(filepath.Join(o.Root, "usr/local/sbin/runc")); target != "/usr/sbin/runc" {
		t.Errorf("runc links to %q, %v", target, err)
	}
	for _, p := range first.Changed {
		info, err := os.Stat(filepath.Join(o.Root, p))
		if p == "/usr/local/sbin/runc" {
			continue // absolute, so it points into the server, not here
		}
		if err != nil {
			t.Error(err)
			continue
		}
		want := fs.FileMode(0o644)
		if strings.Contains(p, "/bin/") {
			want = 0o755
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", p, info.Mode().Perm(), want)
		}
	}
	second, err := Bake(t.Context(), o)
	if err != nil || len(second.Changed) != 0 {
		t.Errorf("second bake changed %q, %v; want nothing", second.Changed, err)
	}
	left, err := filepath.Glob(filepath.Join(o.Root, "usr/local/bin/.*.bake"))
	if len(left) != 0 || err != nil {
		t.Errorf("temporary files are left: %q, %v", left, err)
	}

	// Same size, other content: one file is replaced and no other.
	write(t, o.Root, map[string]string{"usr/local/bin/ctr": "CTR"})
	third, err := Bake(t.Context(), o)
	if diff := cmp.Diff([]string{"/usr/local/bin/ctr"}, third.Changed); diff != "" || err != nil {
		t.Errorf("bake over a changed file: %v\n%s", err, diff)
	}
}

// Where /usr shall be read-only nothing is laid there.
func TestBakeElsewhere(t *testing.T) {
	o := Options{Root: newRoot(t), Prefix: layout.Opt, Agent: program(t), Artifacts: newArtifacts(t), Pinned: func(_ context.Context, dir, _ string) ([]string, error) {
		return []string{"sum"}, os.WriteFile(filepath.Join(dir, "sum"), nil, 0o644)
	}}
	report, err := Bake(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Changed {
		if strings.HasPrefix(p, "/usr/") {
			t.Errorf("laid %s", p)
		}
	}
	for _, p := range []string{"/opt/bin/bootstrap", "/opt/bin/kubelet", "/opt/sbin/runc", "/opt/cni/bin/loopback", "/opt/share/muster/artifacts/sum"} {
		if !slices.Contains(report.Changed, p) {
			t.Errorf("%s was not laid; these were: %q", p, report.Changed)
		}
	}
}

func TestBakeEnablesNothing(t *testing.T) {
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		t.Skip("systemctl is not installed; it applies the presets of a first boot")
	}
	root := newRoot(t)
	if _, err := Bake(t.Context(), Options{Root: root, Units: someUnits}); err != nil {
		t.Fatal(err)
	}
	// A unit that is not ours shows that the presets were applied at all.
	write(t, root, map[string]string{"etc/systemd/system/other.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"})
	if out, err := exec.CommandContext(t.Context(), systemctl, "--root="+root, "preset-all").CombinedOutput(); err != nil {
		t.Fatalf("systemctl preset-all: %v\n%s", err, out)
	}
	var enabled []string
	entries, err := os.ReadDir(filepath.Join(root, "etc/systemd/system/multi-user.target.wants"))
	for _, e := range entries {
		enabled = append(enabled, e.Name())
	}
	if diff := cmp.Diff([]string{"other.service"}, enabled); diff != "" || err != nil {
		t.Errorf("a first boot would enable (-want +got): %v\n%s", err, diff)
	}
}

func TestBakeRefusesIdentity(t *testing.T) {
	tests := []struct {
		name, file, content string
		says, remedy        string
		removable           bool
	}{
		{"machine id", "etc/machine-id", "5b0c5b0c5b0c5b0c5b0c5b0c5b0c5b0c\n", "a machine id", "--clean", true},
		{"D-Bus machine id", "var/lib/dbus/machine-id", "5b0c\n", "D-Bus", "--clean", true},
		{"ssh key", "etc/ssh/ssh_host_ed25519_key", "key", "SSH host key", "--clean", true},
		{"host name", "etc/hostname", "cp1\n", "host name", "--clean", true},
		{"random seed", "var/lib/systemd/random-seed", "xxxx", "random", "--clean", true},
		{"dhcp lease", "var/lib/dhcp/dhclient.eth0.leases", "lease {}", "DHCP", "--clean", true},
		{"cloud-init instance", "var/lib/cloud/instances/i-1/boot-finished", "", "cloud-init", "--clean", true},
		{"cloud-init link", "var/lib/cloud/instance", "-> /var/lib/cloud/instances/i-1", "cloud-init", "--clean", true},
		{"udev names", "etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM", "MAC", "--clean", true},
		{"containerd id", "var/lib/containerd/io.containerd.grpc.v1.introspection/uuid", "5b0c", "containerd's own id", "--clean", true},
		{"iscsi", "etc/iscsi/initiatorname.iscsi", "# x\nInitiatorName=iqn.1993-08.org.debian:01:1\n", "iSCSI", "distribution", false},
		{"nvme", "etc/nvme/hostid", "5b0c", "NVMe", "distribution", false},
		{"vote", "var/lib/muster/elect/state.a", "x", "vote", "never joined", false},
		{"pki of muster", "var/lib/muster/pki/agent.key", "x", "muster's state", "never joined", false},
		{"kubeconfig", "etc/kubernetes/admin.conf", "x", "credentials", "never joined", false},
		{"cluster CA", "etc/kubernetes/pki/ca.key", "x", "credentials", "never joined", false},
		{"kubelet certificate", "var/lib/kubelet/pki/kubelet.crt", "x", "kubelet's", "never joined", false},
		{"etcd", "var/lib/etcd/member/wal/0.wal", "x", "etcd", "never joined", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := newRoot(t)
			os.Remove(filepath.Join(root, tt.file)) // most are not there
			write(t, root, map[string]string{tt.file: tt.content})

			r, err := Bake(t.Context(), Options{Root: root, Units: someUnits})
			var left *IdentityError
			if !errors.As(err, &left) || len(left.Findings) != 1 {
				t.Fatalf("Bake: %v; want one finding", err)
			}
			f := left.Findings[0]
			if !strings.HasPrefix("/"+tt.file, f.Path) || !strings.Contains(f.Says, tt.says) || !strings.Contains(f.Remedy, tt.remedy) || f.Removable != tt.removable {
				t.Errorf("finding %+v; want %q, %q, removable %v", f, tt.says, tt.remedy, tt.removable)
			}
			if !strings.Contains(err.Error(), f.String()) {
				t.Errorf("the error does not hold the finding: %v", err)
			}
			if len(r.Changed) != 0 {
				t.Errorf("laid %q although identity is left", r.Changed)
			}

			r, err = Bake(t.Context(), Options{Root: root, Units: someUnits, Clean: true})
			if got := err == nil; got != tt.removable {
				t.Errorf("with Clean: %v; removable is %v", err, tt.removable)
			}
			if _, err := os.Lstat(filepath.Join(root, tt.file)); tt.removable {
				if len(r.Removed) != 1 || (err == nil) != (tt.file == "etc/machine-id") {
					t.Errorf("Clean removed %q; %s: %v", r.Removed, tt.file, err)
				}
				return
			} else if err != nil {
				t.Errorf("Clean removed what may be the last copy: %v", err)
			}
			r, err = Bake(t.Context(), Options{Root: root, Units: someUnits, Force: true})
			if err != nil || len(r.Changed) == 0 || len(r.Findings) != 1 {
				t.Errorf("with Force: %+v, %v; want it baked, and the finding reported", r, err)
			}
		})
	}
}

func TestNoIdentity(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"uninitialized": {"etc/machine-id": "uninitialized\n"},
		"distribution":  {"etc/hostname": "ubuntu", "etc/iscsi/initiatorname.iscsi": "GenerateName=yes\n"},
		"empty places":  {"var/lib/dhcp/dhclient.leases": "", "etc/kubernetes/manifests": "-> nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			if name == "empty places" {
				write(t, root, map[string]string{"var/lib/dhcp/dhclient.leases": ""})
				if err := os.MkdirAll(filepath.Join(root, "etc/kubernetes/manifests"), 0o755); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, root, files)
			}
			if got, err := Inspect(root); err != nil || len(got) != 0 {
				t.Errorf("Inspect = %v, %v; want nothing", got, err)
			}
		})
	}
}

func TestBakeErrors(t *testing.T) {
	lacking := newArtifacts(t)
	for _, name := range []string{"kubelet", "cni/bridge", "cni/loopback"} {
		if err := os.Remove(filepath.Join(lacking, name)); err != nil {
			t.Fatal(err)
		}
	}
	noRunc := newRoot(t)
	if err := os.Remove(filepath.Join(noRunc, "usr/sbin/runc")); err != nil {
		t.Fatal(err)
	}
	outside := newRoot(t)
	elsewhere := t.TempDir()
	write(t, outside, map[string]string{"usr/local": "-> " + elsewhere})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()

	tests := []struct {
		name string
		ctx  context.Context
		o    Options
		want string
	}{
		{"no root", t.Context(), Options{Root: filepath.Join(elsewhere, "none")}, "no such file"},
		{"not a root", t.Context(), Options{Root: t.TempDir()}, "is the image mounted there?"},
		{"agent is a script", t.Context(), Options{Root: newRoot(t), Agent: filepath.Join(noRunc, "etc/hostname")}, "no Linux program"},
		{"artefacts lack", t.Context(), Options{Root: newRoot(t), Artifacts: lacking}, "lacks kubelet, cni/ with at least one plugin"},
		{"no runc", t.Context(), Options{Root: noRunc, Artifacts: newArtifacts(t)}, "there is no runc"},
		{"a link leads out", t.Context(), Options{Root: outside, Agent: program(t)}, "escapes"},
		{"canceled", canceled, Options{Root: newRoot(t), Agent: program(t)}, "canceled"},
		{"clean the running system", t.Context(), Options{Root: "/", Clean: true}, "running system"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Bake(tt.ctx, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Bake: %v; want an error with %q", err, tt.want)
			}
		})
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("bake wrote outside of its root: %v, %v", entries, err)
	}
}

func TestBakeRefusesOtherArchitecture(t *testing.T) {
	root := newRoot(t)
	foreign, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	foreign[18], foreign[19] = 0xf3, 0 // e_machine: RISC-V
	write(t, root, map[string]string{"usr/bin/dash": string(foreign)})
	_, err = Bake(t.Context(), Options{Root: root, Agent: program(t)})
	if err == nil || !strings.Contains(err.Error(), "EM_RISCV") {
		t.Errorf("Bake: %v; want both architectures named", err)
	}
}
