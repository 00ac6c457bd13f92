package host

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/units"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before you commit it")

// machine is a server with state: a root directory, units that do what systemd's
// would, and programs that answer.
type machine struct {
	t         *testing.T
	root      string
	log       bytes.Buffer
	installed map[string][]byte
	enabled   []string
	calls     []string // starts and restarts
	writes    int
	socket    net.Listener
	kubeadm   string // its version
	images    string // in containerd
	plugins   string
	free      uint64
	imported  []string
	ran       []string
	versions  map[string]string // that programs say of themselves
	deaf      bool              // systemd-sysctl and systemd-modules-load change nothing
}

func (m *machine) Install(_ context.Context, files map[string][]byte) (changed []string, err error) {
	for n, data := range files {
		if !bytes.Equal(m.installed[n], data) {
			changed = append(changed, n)
			m.installed[n] = data
		}
	}
	return changed, nil
}

func (m *machine) Enable(_ context.Context, units ...string) error {
	m.enabled = units
	return nil
}

func (m *machine) Restart(ctx context.Context, unit string) error {
	m.calls = append(m.calls, "restart "+unit)
	switch {
	case m.deaf && unit != layout.UnitContainerd:
		return errors.New("job failed")
	case unit == unitSysctl:
		conf, err := os.ReadFile(m.path(sysctlFile))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(conf)) {
			if key, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "-"), " = "); ok && !strings.HasPrefix(line, "#") {
				m.lay("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), value+"\n")
			}
		}
	case unit == unitModules:
		m.lay("/proc/filesystems", "nodev\toverlay\n")
	case unit == layout.UnitContainerd:
		return m.listen()
	}
	return nil
}

func (m *machine) Start(_ context.Context, unit string) error {
	m.calls = append(m.calls, "start "+unit)
	return m.listen()
}

func (m *machine) listen() error {
	if m.socket != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(m.path(layout.Containerd)), 0o755); err != nil {
		return err
	}
	l, err := net.Listen("unix", m.path(layout.Containerd))
	m.socket = l
	return err
}

func (m *machine) run(_ context.Context, name string, args ...string) ([]byte, error) {
	m.ran = append(m.ran, name)
	switch line := filepath.Base(name) + " " + strings.Join(args, " "); {
	case strings.HasPrefix(line, "kubeadm version"):
		return []byte(m.kubeadm + "\n"), nil
	case strings.HasPrefix(line, "kubelet --version"):
		return []byte("Kubernetes v1.36.3\n"), nil
	case strings.HasPrefix(line, "kubeadm config images list --kubernetes-version v1.36.3"):
		return []byte("registry.k8s.io/kube-apiserver:v1.36.3\nregistry.k8s.io/pause:3.10.2\n"), nil
	case strings.HasSuffix(line, " --version"):
		return []byte(m.versions[filepath.Base(name)]), nil
	case strings.Contains(line, "images import"):
		m.imported = append(m.imported, args[len(args)-1])
		m.images = "registry.k8s.io/kube-apiserver:v1.36.3\nregistry.k8s.io/pause:3.10.2\n"
		return nil, nil
	case strings.Contains(line, "plugins list"):
		return []byte(m.plugins), nil
	case strings.Contains(line, "images list"):
		return []byte(m.images), nil
	default:
		return nil, fmt.Errorf("no such program: %s", line)
	}
}

func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

func (m *machine) lay(path, text string) {
	m.t.Helper()
	p := m.path(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o755)); err != nil {
		m.t.Fatal(err)
	}
}

// The table as ctr of containerd 2 prints it.
const goodPlugins = `TYPE                                   ID                       PLATFORMS         STATUS
io.containerd.cri.v1                   images                   -                 ok
io.containerd.cri.v1                   runtime                  linux/amd64       ok
io.containerd.grpc.v1                  cri                      -                 ok
`

func setUp(t *testing.T) (*Host, *machine) {
	t.Helper()
	// A path of a socket has at most 107 characters, and t.TempDir is long.
	root, err := os.MkdirTemp("", "host") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: root, installed: map[string][]byte{}, kubeadm: "v1.36.3", plugins: goodPlugins, free: 100 << 30}
	t.Cleanup(func() {
		if m.socket != nil {
			_ = m.socket.Close()
		}
		_ = os.RemoveAll(root)
	})
	for _, p := range artefacts(layout.Local) {
		m.lay(p, "#!/bin/sh\n")
	}
	m.lay("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
	m.lay("/proc/filesystems", "nodev\tproc\n\text4\n")
	m.lay("/proc/sys/net/ipv4/ip_forward", "0\n")
	h := &Host{
		Cluster: cluster.Cluster{Spec: cluster.Spec{Kubernetes: cluster.Kubernetes{Version: "v1.36.3"}}},
		Prefix:  layout.Local, Units: m, Root: root, Run: m.run, Free: func(string) (uint64, error) { return m.free, nil },
		Write: func(path string, data []byte, perm fs.FileMode) error {
			m.writes++
			return os.WriteFile(path, data, perm)
		},
		Log: slog.New(slog.NewTextHandler(&m.log, nil)),
	}
	return h, m
}

func TestPrepare(t *testing.T) {
	h, m := setUp(t)
	var steps []string
	if err := h.Prepare(t.Context(), func(p member.Preparation) { steps = append(steps, p.Step) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"space", "artefacts", "versions", "swap", "kernel modules", "kernel settings", "names", "units", "containerd", "images", ""}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"restart " + unitModules, "restart " + unitSysctl, "restart containerd.service"}, m.calls); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"containerd.service", "kubelet.service", "muster-routes.service", "muster-upgrade.service"}, m.enabled); diff != "" {
		t.Error(diff)
	}
	for _, unit := range []string{layout.UnitAgent, layout.UnitFetch} {
		if m.installed[unit] != nil {
			t.Errorf("%s was installed: it runs already, from the user-data or the image", unit)
		}
	}
	if len(m.installed) != 10 {
		t.Errorf("%d units installed", len(m.installed))
	}
	for path, want := range map[string]string{
		"/etc/iproute2/rt_protos.d/muster.conf": "201\tmuster\n",
		layout.PodScopes:                        string(units.Pods),
		modulesFile:                             "# Written by muster.\noverlay\nbr_netfilter\n",
	} {
		if got, err := os.ReadFile(m.path(path)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", path, got, err)
		}
	}
	if !strings.Contains(m.log.String(), "kube-apiserver:v1.36.3") {
		t.Errorf("the missing images are not named:\n%s", m.log.String())
	}

	t.Run("a second run changes nothing", func(t *testing.T) {
		m.writes, m.calls = 0, nil
		m.lay("/sys/module/br_netfilter/x", "")
		if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
			t.Fatal(err)
		}
		if m.writes != 0 {
			t.Errorf("%d files were written again", m.writes)
		}
		if diff := cmp.Diff([]string{"start containerd.service"}, m.calls); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a changed configuration restarts containerd", func(t *testing.T) {
		m.calls = nil
		h.Cluster.Spec.Containerd.Extra = map[string]map[string]any{"io.containerd.cri.v1.runtime": {"restrict_oom_score_adj": true}}
		if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"restart containerd.service"}, m.calls); diff != "" {
			t.Error(diff)
		}
	})
}

// Every sentence tells what is wrong where, and what to do.
func TestPrepareSaysWhy(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(h *Host, m *machine)
		want  []string
	}{
		"artefacts are missing": {
			func(h *Host, m *machine) {
				_ = os.Remove(m.path("/usr/local/bin/kubelet"))
				_ = os.Remove(m.path("/opt/cni/bin/loopback"))
			},
			[]string{"the image lacks /usr/local/bin/kubelet, /opt/cni/bin/loopback", "userdata lock", "bootstrap bake"},
		},
		"not executable":  {func(h *Host, m *machine) { _ = os.Chmod(m.path(layout.Local.Runc()), 0o644) }, []string{"/usr/local/sbin/runc is no executable file"}},
		"another version": {func(h *Host, m *machine) { m.kubeadm = "v1.35.8" }, []string{"kubeadm is v1.35.8, the cluster file says v1.36.3 (spec.kubernetes.version)"}},
		"no space":        {func(h *Host, m *machine) { m.free = 100 << 20 }, []string{"/var/lib/etcd has 100 MiB free, expected at least 512"}},
		"swap":            {func(h *Host, m *machine) { m.lay("/proc/swaps", "Filename Type\n/dev/sda2 partition\n") }, []string{"swap is on (/dev/sda2)", "swapoff -a", "failSwapOn: false"}},
		"no overlay":      {func(h *Host, m *machine) { m.deaf = true }, []string{"no overlay file system", "CONFIG_OVERLAY_FS"}},
		"no forwarding": {
			func(h *Host, m *machine) {
				m.deaf = true
				m.lay("/proc/filesystems", "overlay\n")
				// A directory cannot be written, not even by root.
				_ = os.Remove(m.path("/proc/sys/net/ipv4/ip_forward"))
				_ = os.Mkdir(m.path("/proc/sys/net/ipv4/ip_forward"), 0o755)
			},
			[]string{`net.ipv4.ip_forward is "", expected "1"`, "sysctl -w net.ipv4.ip_forward=1"},
		},
		"no CRI": {func(h *Host, m *machine) { m.plugins = "TYPE ID PLATFORMS STATUS\n" }, []string{"no CRI plugin", "journalctl -u containerd"}},
		"CRI in error": {func(h *Host, m *machine) {
			m.plugins = strings.Replace(goodPlugins, "cri                      -                 ok", "cri - error", 1)
		}, []string{`the status "error"`}},
		"bad extra": {
			func(h *Host, m *machine) {
				h.Cluster.Spec.Containerd.Extra = map[string]map[string]any{"x": {"y": nil}}
			},
			[]string{"spec.containerd.extra: plugins.x.y: a value of type <nil>"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, m := setUp(t)
			row.spoil(h, m)
			err := h.Prepare(t.Context(), func(member.Preparation) {})
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range row.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\nlacks %q", err, w)
				}
			}
		})
	}
}

func TestSwapMayBeAllowed(t *testing.T) {
	h, m := setUp(t)
	m.lay("/proc/swaps", "Filename Type\n/dev/sda2 partition\n")
	h.Cluster.Spec.Kubernetes.Kubelet = map[string]any{"failSwapOn": false}
	if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
		t.Error(err)
	}
}

// Where systemd cannot set a value and the file can be written, it is written; a
// value that is not needed is only noted.
func TestSettingsInAContainer(t *testing.T) {
	h, m := setUp(t)
	m.deaf = true
	m.lay("/proc/filesystems", "overlay\n")
	if err := h.Prepare(t.Context(), func(member.Preparation) {}); err != nil {
		t.Fatal(err)
	}
	if got := h.sysctl("net.ipv4.ip_forward"); got != "1" {
		t.Errorf("ip_forward is %q", got)
	}
	if !strings.Contains(m.log.String(), "key=fs.inotify.max_user_instances") {
		t.Errorf("no note of what could not be set:\n%s", m.log.String())
	}
}

func TestIPv6Settings(t *testing.T) {
	for _, row := range []struct {
		pods string
		want bool
	}{{"10.0.0.0/16", false}, {"fd01::/48", true}} {
		conf := string(sysctlConf(sysctls(isIPv6(netip.MustParsePrefix(row.pods)))))
		if got := strings.Contains(conf, "-net.ipv6.conf.all.forwarding = 1"); got != row.want {
			t.Errorf("%s: forwarding %t", row.pods, got)
		}
	}
}

func TestNoSocketWithinTheDeadline(t *testing.T) {
	h, _ := setUp(t)
	synctest.Test(t, func(t *testing.T) {
		err := h.waitSocket(t.Context())
		if err == nil || !strings.Contains(err.Error(), "nothing answers at /run/containerd/containerd.sock: not within 30s") {
			t.Errorf("got %v", err)
		}
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func configs(t *testing.T) map[string][]byte {
	t.Helper()
	plain, err := ContainerdConfig("/usr/local/sbin/runc", "registry.k8s.io/pause:3.10.2", nil)
	if err != nil {
		t.Fatal(err)
	}
	extra, err := ContainerdConfig("/usr/local/sbin/runc", "registry.k8s.io/pause:3.10.2", map[string]map[string]any{
		"io.containerd.cri.v1.runtime":  {"restrict_oom_score_adj": true, "cni": map[string]any{"bin_dirs": []any{"/usr/lib/cni"}}},
		"io.containerd.gc.v1.scheduler": {"pause_threshold": 0.05, "startup_delay": "100ms"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"config.toml": plain, "config-extra.toml": extra}
}

func TestContainerdConfig(t *testing.T) {
	for name, data := range configs(t) {
		golden(t, name, data)
	}
	golden(t, "sysctl.conf", sysctlConf(sysctls(true)))
}

// containerd itself must read the file and keep what it says.
func TestRealContainerdReadsTheConfig(t *testing.T) {
	containerd := os.Getenv("MUSTER_CONTAINERD")
	if containerd == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skip("no cache directory: the file was not shown to containerd")
		}
		found, _ := filepath.Glob(filepath.Join(cache, "muster/components-*/bin/containerd"))
		if len(found) == 0 {
			t.Skip("no containerd (MUSTER_CONTAINERD, or make e2e builds one): the file was not shown to it")
		}
		slices.Sort(found)
		containerd = found[len(found)-1]
	}
	for name, data := range configs(t) {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), containerd, "--config", path, "config", "dump").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		want := []string{"sandbox = 'registry.k8s.io/pause:3.10.2'", "SystemdCgroup = true", "config_path = '/etc/containerd/certs.d'"}
		if name == "config-extra.toml" {
			want = append(want, "restrict_oom_score_adj = true", "bin_dirs = ['/usr/lib/cni']", "pause_threshold = 0.05")
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s: containerd does not keep %q:\n%s", name, w, out)
			}
		}
	}
}

func TestPauseImage(t *testing.T) {
	for _, row := range []struct {
		images []string
		want   string
	}{
		{[]string{"registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/pause:3.10.2"}, "registry.k8s.io/pause:3.10.2"},
		{[]string{"mirror.example:5000/k8s/pause:3.10"}, "mirror.example:5000/k8s/pause:3.10"},
		{[]string{"registry.k8s.io/pauser:1"}, ""},
	} {
		if got, err := pauseImage(row.images); got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%v: %q, %v", row.images, got, err)
		}
	}
}

func TestRunQuotesWhatWasSaid(t *testing.T) {
	if _, err := Run(t.Context(), "/bin/sh", "-c", "echo it is broken >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: it is broken") {
		t.Errorf("got %v", err)
	}
	t.Setenv("SECRET", "x")
	if out, err := Run(t.Context(), "/bin/sh", "-c", "echo $SECRET$HOME"); err != nil || string(out) != "/root\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
