package kubeadm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dryRun runs kubeadm on one of the golden files in a network namespace where
// only the private address exists, and returns the directory with what it would
// have written. No container runtime and no cluster are needed.
//
// join asks the cluster of the discovery file even then: server answers for it,
// in the namespace of the test.
func dryRun(t *testing.T, verb, golden, address string, discovery []byte) string {
	t.Helper()
	kubeadm := real(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace: kubeadm's dry run was left out")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "patches", "out"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	// kubeadm asks the kubelet for its version only.
	must(os.WriteFile(filepath.Join(dir, "bin/kubelet"), []byte("#!/bin/sh\necho Kubernetes v1.36.3\n"), 0o755))
	for name, data := range Patches(node("x", address)) {
		must(os.WriteFile(filepath.Join(dir, "patches", name), data, 0o644))
	}
	must(os.WriteFile(filepath.Join(dir, "discovery.conf"), discovery, 0o600))
	config := goldens(t)[golden]
	config = bytes.ReplaceAll(config, []byte("/etc/kubernetes/patches"), []byte(filepath.Join(dir, "patches")))
	config = bytes.ReplaceAll(config, []byte("/run/muster/discovery.conf"), []byte(filepath.Join(dir, "discovery.conf")))
	must(os.WriteFile(filepath.Join(dir, "config.yaml"), config, 0o600))

	script := `exec "$@"`
	namespaces := []string{"--mount"}
	if discovery == nil {
		namespaces = append(namespaces, "--net")
		script = "ip link set lo up; ip address add " + address + " dev lo; " + script
	}
	args := append(namespaces, "--", "/bin/sh", "-ec", script, "sh", kubeadm, verb, "--dry-run", "--config", filepath.Join(dir, "config.yaml"), "--ignore-preflight-errors=all")
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"),
		"KUBEADM_INIT_DRYRUN_DIR="+out, "KUBEADM_JOIN_DRYRUN_DIR="+out)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubeadm %s: %v\n%s", verb, err, said)
	}
	return out
}

// holds looks for patterns in the files that kubeadm would have written.
func holds(t *testing.T, dir string, want map[string][]string) {
	t.Helper()
	for name, patterns := range want {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range patterns {
			if !regexp.MustCompile("(?m)" + p).Match(data) {
				t.Errorf("%s lacks %q:\n%s", name, p, data)
			}
		}
		if strings.HasSuffix(name, "kube-apiserver.yaml") && bytes.Contains(data, []byte("--bind-address")) {
			t.Errorf("%s: the API server would refuse the Elastic IP on lo", name)
		}
	}
}

func TestInitDryRun(t *testing.T) {
	holds(t, dryRun(t, "init", "init.yaml", "10.99.14.9", nil), map[string][]string{
		"config.yaml":             {`^address: 10\.99\.14\.9$`, `^cgroupDriver: systemd$`, `^- 192\.168\.0\.10$`},
		"kubeadm-flags.env":       {`--node-ip=10\.99\.14\.9`},
		"kube-apiserver.yaml":     {`--advertise-address=10\.99\.14\.9$`},
		"etcd.yaml":               {`--listen-peer-urls=https://10\.99\.14\.9:2380$`},
		"admin.conf":              {`server: https://147\.75\.194\.92:6443$`},
		"controller-manager.conf": {`server: https://10\.99\.14\.9:6443$`}, // localServer relies on it
	})
}

// The kubelet alone has the flag, beside its address, which nobody else would tell it.
func TestInitDryRunCloudProvider(t *testing.T) {
	dir := dryRun(t, "init", "init-cloud.yaml", "10.99.14.9", nil)
	holds(t, dir, map[string][]string{"kubeadm-flags.env": {`--cloud-provider=external`, `--node-ip=10\.99\.14\.9`}})
	for _, name := range []string{"kube-apiserver.yaml", "kube-controller-manager.yaml"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(data, []byte("cloud-provider")) {
			t.Errorf("%s: %v\n%s", name, err, data)
		}
	}
}

// A cluster of IPv6 alone: kubeadm has etcd listen at ::1 in place of 127.0.0.1.
func TestInitDryRunIPv6(t *testing.T) {
	holds(t, dryRun(t, "init", "init-ipv6.yaml", "fd66::1:1", nil), map[string][]string{
		"config.yaml":                  {`^address: fd66::1:1$`, `^- fd98::a$`},
		"kubeadm-flags.env":            {`--node-ip=fd66::1:1`},
		"kube-apiserver.yaml":          {`--advertise-address=fd66::1:1$`, `--service-cluster-ip-range=fd98::/108$`},
		"kube-controller-manager.yaml": {`--cluster-cidr=fd01::/64$`, `--node-cidr-mask-size-ipv6=80$`},
		"etcd.yaml":                    {`--listen-client-urls=https://\[::1\]:2379,https://\[fd66::1:1\]:2379$`, `--listen-peer-urls=https://\[fd66::1:1\]:2380$`},
		"admin.conf":                   {`server: https://\[2604:1380:1::92\]:6443$`},
		"controller-manager.conf":      {`server: https://\[fd66::1:1\]:6443$`}, // localServer relies on it
	})
}

func TestJoinDryRun(t *testing.T) {
	a := authorities(t)
	at := "https://" + startServer(t, a).at().String()
	discovery, err := Discovery(at, a.CA())
	if err != nil {
		t.Fatal(err)
	}
	holds(t, dryRun(t, "join", "join-worker.yaml", "10.99.14.5", discovery), map[string][]string{
		"config.yaml":            {`^address: 10\.99\.14\.5$`},
		"kubeadm-flags.env":      {`--node-ip=10\.99\.14\.5`},
		"bootstrap-kubelet.conf": {`server: ` + regexp.QuoteMeta(at) + `$`, `token: 9a08jv\.c0izixklcxtmnze7$`},
	})
}
