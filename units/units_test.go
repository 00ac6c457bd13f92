package units_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/units"
)

func all(t *testing.T) map[string]string {
	t.Helper()
	return below(layout.Local)
}

func below(p layout.Prefix) map[string]string {
	m := map[string]string{}
	for name, text := range units.For(p.Move) {
		m[name] = string(text)
	}
	return m
}

// Where /usr cannot be written nothing of ours lies there, nor is looked for.
func TestOtherPrefix(t *testing.T) {
	for name, text := range below(layout.Opt) {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") && strings.Contains(line, "/usr/local") {
				t.Errorf("%s for %s: %s", name, layout.Opt, line)
			}
		}
	}
	for unit, wants := range map[string][]string{
		layout.UnitAgent:      {"ExecStart=/opt/bin/bootstrap agent\n", "ReadWritePaths=/opt/bin -/opt/sbin -/opt/cni/bin "},
		layout.UnitFetch:      {"ExecStartPre=/bin/mkdir -p /opt/cni/bin /opt/bin /opt/sbin\n", "ExecStart=/opt/libexec/muster-fetch\n"},
		layout.UnitUpgrade:    {"ExecStart=/opt/bin/bootstrap.former upgrade\n", "ReadWritePaths=/opt/bin /etc/muster "},
		layout.UnitContainerd: {"ExecStart=/opt/bin/containerd\n", "PATH=/opt/sbin:/opt/bin:/usr/sbin:/usr/bin:"},
	} {
		for _, want := range wants {
			if !strings.Contains(below(layout.Opt)[unit], want) {
				t.Errorf("%s lacks %q", unit, want)
			}
		}
	}
}

func TestEveryUnitOfTheLayoutIsHere(t *testing.T) {
	have := all(t)
	want := []string{
		layout.UnitFetch, layout.UnitAgent, layout.UnitDirectory, layout.UnitAnnounce, layout.UnitRoutes, layout.UnitUpgrade, layout.UnitDrive,
		layout.UnitKubeadmInit, layout.UnitKubeadmJoin, layout.UnitKubeadmReset,
		layout.UnitKubelet, layout.UnitContainerd,
	}
	for _, n := range want {
		if have[n] == "" {
			t.Errorf("%s is named in package layout and missing here", n)
		}
	}
	if len(have) != len(want) {
		t.Errorf("%d unit files, %d names in package layout", len(have), len(want))
	}
}

// Orderings and conditions are where a boot hangs or ends in silence, so each
// stands under a comment with its reason.
func TestEveryOrderingHasAReason(t *testing.T) {
	directive := regexp.MustCompile(`^(After|Before|Wants|Requires|BindsTo|PartOf|RequiresMountsFor|Condition\w+|Assert\w+|ExecCondition|StartLimitIntervalSec)=`)
	for name, text := range all(t) {
		lines := strings.Split(text, "\n")
		for i, l := range lines {
			if !directive.MatchString(l) {
				continue
			}
			j := i - 1
			for j >= 0 && directive.MatchString(lines[j]) {
				j--
			}
			if !strings.HasPrefix(lines[j], "#") {
				t.Errorf("%s:%d: %s has no comment with its reason above it", name, i+1, l)
			}
		}
	}
}

func TestPathsAgreeWithLayout(t *testing.T) {
	for _, p := range layout.Prefixes {
		pathsAgree(t, p)
	}
}

func pathsAgree(t *testing.T, p layout.Prefix) {
	t.Helper()
	for _, row := range []struct{ unit, want string }{
		{layout.UnitFetch, "ExecStart=" + p.Fetch()},
		{layout.UnitAgent, "ExecStart=" + p.Agent() + " agent"},
		{layout.UnitAgent, "RequiresMountsFor=" + layout.State + " " + layout.EtcdData},
		{layout.UnitDirectory, "ExecStart=" + p.Agent() + " directory"},
		{layout.UnitAnnounce, "ExecStart=" + p.Agent() + " announce --config " + layout.AnnouncePlan},
		{layout.UnitRoutes, "ExecStart=" + p.Agent() + " net routes"},
		{layout.UnitUpgrade, "ExecStart=" + p.FormerAgent() + " upgrade"},
		{layout.UnitUpgrade, "ConditionPathExists=" + layout.Upgrade},
		{layout.UnitRoutes, "ConditionPathExists=" + layout.Device},
		{layout.UnitDrive, "ExecStart=" + p.Agent() + " drive"},
		{layout.UnitDrive, "RuntimeDirectory=" + strings.TrimPrefix(layout.Drive, "/run/")},
		{layout.UnitAnnounce, "ExecCondition=" + p.Agent() + " fence check-announce"},
		{layout.UnitKubeadmInit, "ExecStartPre=" + p.Agent() + " fence check-init"},
		{layout.UnitKubelet, "ExecStartPre=-/bin/sync --file-system " + layout.Kubernetes + " " + layout.KubeletData},
		{layout.UnitKubeadmInit, "--config " + layout.InitConfig + " --skip-token-print --skip-certificate-key-print"},
		{layout.UnitKubeadmJoin, "--config " + layout.JoinConfig},
		{layout.UnitKubeadmReset, "AssertPathExists=" + layout.ResetConfig},
		{layout.UnitKubeadmReset, "--config " + layout.ResetConfig},
		{layout.UnitKubelet, "ExecCondition=" + p.Agent() + " fence check-kubelet"},
		{layout.UnitKubelet, "ExecStart=" + p.Bin() + "/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS"},
		{layout.UnitContainerd, "ExecStart=" + p.Bin() + "/containerd"},
	} {
		if !strings.Contains(below(p)[row.unit], row.want) {
			t.Errorf("%s lacks %q", row.unit, row.want)
		}
	}
}

var cloudUnit = regexp.MustCompile(`cloud-[a-z-]+\.(service|target)`)

func TestOnlyWhatStartsAtBootIsEnabled(t *testing.T) {
	enabled := map[string]bool{layout.UnitFetch: true, layout.UnitAgent: true, layout.UnitKubelet: true, layout.UnitContainerd: true, layout.UnitRoutes: true, layout.UnitUpgrade: true}
	for name, text := range all(t) {
		if got := strings.Contains(text, "\n[Install]\n"); got != enabled[name] {
			t.Errorf("%s: [Install] present: %t, want %t", name, got, enabled[name])
		}
		for _, l := range strings.Split(text, "\n") {
			if !strings.HasPrefix(l, "#") && cloudUnit.MatchString(l) {
				t.Errorf("%s mentions a cloud-init unit: %s", name, l)
			}
		}
	}
}

// root makes a file system root with this machine's own units, ours, their
// binaries and the wants links that an enabled unit has.
func root(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed: the units are not verified")
	}
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc/systemd/system")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(etc, "multi-user.target.wants"), 0o755))
	must(os.MkdirAll(filepath.Join(dir, "usr/lib/systemd"), 0o755))
	must(os.Symlink("usr/lib", filepath.Join(dir, "lib")))
	must(os.Symlink("usr/bin", filepath.Join(dir, "bin")))
	must(os.CopyFS(filepath.Join(dir, "usr/lib/systemd/system"), os.DirFS("/usr/lib/systemd/system")))
	for _, p := range []string{layout.Local.Fetch(), layout.Local.Agent(), layout.Local.FormerAgent(), layout.Local.Bin() + "/kubeadm", layout.Local.Bin() + "/kubelet", layout.Local.Bin() + "/containerd", "/usr/bin/systemctl", "/usr/bin/rm", "/bin/mkdir", "/bin/sh"} {
		must(os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755))
		must(os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\n"), 0o755))
	}
	for name, text := range all(t) {
		must(os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644))
		if strings.Contains(text, "WantedBy=multi-user.target") {
			must(os.Symlink("../"+name, filepath.Join(etc, "multi-user.target.wants", name)))
		}
	}
	return dir
}

// The exit code of verify says nothing of cycles: it reports the job that it
// deleted and ends with 0.
func TestVerify(t *testing.T) {
	dir := root(t)
	ours := all(t)
	args := []string{"--root=" + dir, "--man=no", "verify", "multi-user.target"}
	for name := range ours {
		args = append(args, name)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // units of the machine itself may be at fault; ours are looked for below
	bad := regexp.MustCompile(`(?i)cycle|deleted`)
	for line := range strings.Lines(out.String()) {
		if bad.MatchString(line) {
			t.Error(line)
		}
		for name := range ours {
			if strings.Contains(line, name) {
				t.Error(line)
			}
		}
	}
}

// With a cycle made on purpose the test above must fail; this shows that its eyes
// are open.
func TestVerifySeesACycle(t *testing.T) {
	dir := root(t)
	if _, err := os.Stat(filepath.Join(dir, "usr/lib/systemd/system/cloud-final.service")); err != nil {
		t.Skip("cloud-init's units are not installed: nothing to make a cycle with")
	}
	p := filepath.Join(dir, "etc/systemd/system", layout.UnitAgent)
	text := strings.Replace(all(t)[layout.UnitAgent], "After=muster-fetch.service", "After=cloud-final.service", 1)
	wants := filepath.Join(dir, "etc/systemd/system/multi-user.target.wants/cloud-final.service")
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/lib/systemd/system/cloud-final.service", wants); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", "--root="+dir, "--man=no", "verify", "multi-user.target")
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "cycle") {
		t.Errorf("a cycle through cloud-final.service was not reported:\n%s", out)
	}
}

// 30 is an exposure of 3.0; a plain service of root has 9.6.
func TestSecurity(t *testing.T) {
	dir := root(t)
	for _, name := range []string{layout.UnitAgent, layout.UnitDirectory, layout.UnitAnnounce, layout.UnitRoutes, layout.UnitDrive} {
		cmd := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--root="+dir, "--threshold=30", "--no-pager", name)
		if out, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Errorf("%s: %v: %s", name, err, lines[len(lines)-1])
		}
	}
}

// What systemd makes of the units: at a reboot the routes come before the kubelet
// and wait for no metadata, and what stops the agent does not stop the speaker.
func TestOrderOfTheNetwork(t *testing.T) {
	ours := all(t)
	list := func(unit, key string) []string {
		var out []string
		for line := range strings.Lines(ours[unit]) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
				out = append(out, strings.Fields(value)...)
			}
		}
		return out
	}
	if before := list(layout.UnitRoutes, "Before"); !slices.Contains(before, layout.UnitKubelet) {
		t.Errorf("%s is before %v, want before the kubelet", layout.UnitRoutes, before)
	}
	for _, unit := range []string{layout.UnitRoutes, layout.UnitAnnounce} {
		for _, key := range []string{"After", "Requires", "Wants", "BindsTo", "PartOf", "Requisite"} {
			for _, other := range list(unit, key) {
				if other == layout.UnitAgent || other == layout.UnitFetch {
					t.Errorf("%s: %s=%s: it must not hang on the agent", unit, key, other)
				}
			}
		}
	}
	for _, key := range []string{"Conflicts", "Upholds", "PropagatesStopTo"} {
		if hit := list(layout.UnitAgent, key); slices.Contains(hit, layout.UnitAnnounce) {
			t.Errorf("%s: %s=%v touches the speaker", layout.UnitAgent, key, hit)
		}
	}
}

// kubeadm reset refuses every flag but --config beside it, --force too, which the
// configuration says (seen with kubeadm 1.36.3).
func TestResetGivesOnlyItsConfiguration(t *testing.T) {
	text := all(t)["kubeadm-reset.service"]
	const want = "\nExecStart=/usr/local/bin/kubeadm reset --config /run/muster/kubeadm-reset.yaml\n"
	if !strings.Contains(text, want) {
		t.Errorf("kubeadm-reset.service lacks %q:\n%s", want, text)
	}
}

// TestKubeletStartsWithoutItsOwnCertificate runs what kubelet.service runs first: a
// power loss leaves a pair of which one or both are empty.
func TestKubeletStartsWithoutItsOwnCertificate(t *testing.T) {
	_, script, found := strings.Cut(all(t)[layout.UnitKubelet], "ExecStartPre=/bin/sh -c '")
	script, _, closed := strings.Cut(script, "'\n")
	if !found || !closed || !strings.Contains(script, layout.KubeletPKI) {
		t.Fatalf("the script is %q, expected one in %s", script, layout.KubeletPKI)
	}
	for name, c := range map[string]struct {
		before map[string]string // nil: no directory
		want   []string
	}{
		"whole":       {map[string]string{"kubelet.crt": "c", "kubelet.key": "k", "kubelet-client-current.pem": "p"}, []string{"kubelet-client-current.pem", "kubelet.crt", "kubelet.key"}},
		"both empty":  {map[string]string{"kubelet.crt": "", "kubelet.key": "", "kubelet-client-current.pem": "p"}, []string{"kubelet-client-current.pem"}},
		"empty key":   {map[string]string{"kubelet.crt": "c", "kubelet.key": ""}, nil},
		"no key":      {map[string]string{"kubelet.crt": "c"}, nil},
		"none yet":    {map[string]string{}, nil},
		"no such dir": {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			if c.before != nil {
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range c.before {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("/bin/sh", "-c", strings.ReplaceAll(script, layout.KubeletPKI, dir)).CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			var got []string
			left, _ := os.ReadDir(dir)
			for _, e := range left {
				got = append(got, e.Name())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("left are %v, want %v", got, c.want)
			}
		})
	}
}
