package kubeadm

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/plan"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before you commit it")

func seeds() cluster.Cluster {
	return cluster.Cluster{
		Metadata: cluster.Metadata{Name: "k8s-bgp"},
		Spec: cluster.Spec{
			Kubernetes: cluster.Kubernetes{
				Version:        "v1.36.3",
				Endpoint:       cluster.Endpoint{Address: "147.75.194.92:6443"},
				PodSubnets:     []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")},
				ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
				DNSDomain:      "cluster.local",
			},
			Network: cluster.Network{ElasticIPs: []cluster.ElasticIP{{Address: netip.MustParsePrefix("147.75.194.92/32"), On: "control-planes"}}},
		},
	}
}

func node(name, private string) plan.Node {
	return plan.Node{Name: name, Private: netip.MustParseAddr(private), Endpoint: "147.75.194.92:6443"}
}

// goldens are the configurations as muster writes them, by file name.
func goldens(t *testing.T) map[string][]byte {
	t.Helper()
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const token = "9a08jv.c0izixklcxtmnze7"
	rig := seeds()
	rig.Spec.Kubernetes.Kubelet = map[string]any{"failCgroupV1": false, "systemReserved": map[string]any{"memory": "256Mi", "cpu": "100m"}}
	rig.Spec.Kubernetes.KubeProxy = map[string]any{"conntrack": map[string]any{"maxPerCore": 0, "min": 0}, "mode": "iptables"}
	rig.Spec.Kubernetes.IgnorePreflightErrors = []string{"SystemVerification"}
	rig.Spec.Kubernetes.SkipPhases = []string{"addon/coredns"}
	dual := seeds()
	dual.Spec.Kubernetes.PodSubnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/64")}
	dual.Spec.Kubernetes.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("10.152.183.0/24"), netip.MustParsePrefix("fd98::/108")}
	dualNode := node("cp1", "10.99.14.9")
	dualNode.Second = netip.MustParseAddr("fd66::1:1")
	six := seeds()
	six.Spec.Kubernetes.Endpoint = cluster.Endpoint{Address: "[2604:1380:1::92]:6443"}
	six.Spec.Kubernetes.PodSubnets, six.Spec.Kubernetes.ServiceSubnets = dual.Spec.Kubernetes.PodSubnets[1:], dual.Spec.Kubernetes.ServiceSubnets[1:]
	six.Spec.Network.ElasticIPs = []cluster.ElasticIP{{Address: netip.MustParsePrefix("2604:1380:1::92/128"), On: "control-planes"}}
	sixNode := plan.Node{Name: "cp1", Private: dualNode.Second, Endpoint: six.Spec.Kubernetes.Endpoint.Address}
	cloud := seeds()
	cloud.Spec.Kubernetes.CloudProvider = cluster.CloudExternal
	alone := seeds()
	alone.Spec.Kubernetes.Endpoint = cluster.Endpoint{}
	alone.Spec.Network = cluster.Network{}
	aloneNode := node("solo", "10.99.14.9")
	aloneNode.Endpoint = "10.99.14.9:6443"

	return map[string][]byte{
		"init.yaml":            must(InitConfig(InitInput{Cluster: seeds(), Node: node("cp1", "10.99.14.9"), Token: token})),
		"init-dual.yaml":       must(InitConfig(InitInput{Cluster: dual, Node: dualNode, Token: token})),
		"init-ipv6.yaml":       must(InitConfig(InitInput{Cluster: six, Node: sixNode, Token: token})),
		"init-cloud.yaml":      must(InitConfig(InitInput{Cluster: cloud, Node: node("cp1", "10.99.14.9"), Token: token})),
		"init-alone.yaml":      must(InitConfig(InitInput{Cluster: alone, Node: aloneNode, Token: token})),
		"init-rig-finish.yaml": must(InitConfig(InitInput{Cluster: rig, Node: node("cp1", "10.99.14.9"), Token: token, Finish: true})),
		"join-control-plane.yaml": must(JoinConfig(JoinInput{
			Cluster: seeds(), Node: node("cp2", "10.99.14.11"), DiscoveryFile: "/run/muster/discovery.conf",
			Join: plan.Join{ControlPlane: true, Token: token},
		})),
		"join-control-plane-finish.yaml": must(JoinConfig(JoinInput{
			Cluster: rig, Node: node("cp2", "10.99.14.11"), DiscoveryFile: "/run/muster/discovery.conf", Finish: true, Bootstrapped: true,
			Join: plan.Join{ControlPlane: true, Token: token},
		})),
		"join-worker-cloud.yaml": must(JoinConfig(JoinInput{
			Cluster: cloud, Node: node("w1", "10.99.14.5"), DiscoveryFile: "/run/muster/discovery.conf",
			Join: plan.Join{Token: token},
		})),
		"join-worker.yaml": must(JoinConfig(JoinInput{
			Cluster: seeds(), Node: node("w1", "10.99.14.5"), DiscoveryFile: "/run/muster/discovery.conf",
			Join: plan.Join{Token: token},
		})),
		"reset.yaml": must(ResetConfig()),
		"patches/kubeletconfiguration+merge.yaml": Patches(node("cp1", "10.99.14.9"))["kubeletconfiguration+merge.yaml"],
	}
}

func TestGoldenConfigurations(t *testing.T) {
	again := goldens(t)
	for name, got := range goldens(t) {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
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
		if !bytes.Equal(got, again[name]) {
			t.Errorf("%s differs when it is made twice", name)
		}
	}
}

func TestWhatMustNotBeThere(t *testing.T) {
	for name, data := range goldens(t) {
		// An API server bound to the private address refuses the Elastic IP on lo.
		if bytes.Contains(data, []byte("bind-address")) {
			t.Errorf("%s sets bind-address", name)
		}
		_, shared, _ := bytes.Cut(data, []byte("kind: ClusterConfiguration"))
		if name == "init.yaml" && bytes.Contains(shared, []byte("10.99.14.9")) {
			t.Errorf("%s carries this node's address to every other control plane", name)
		}
	}
}

// Before 1.36 kubeadm has a directory made below /usr if it is not told another one.
func TestFlexVolumesStayOutOfUsr(t *testing.T) {
	for version, want := range map[string]bool{"v1.34.10": true, "v1.35.8": true, "v1.36.3": false, "v1.37.0": false} {
		c := seeds()
		c.Spec.Kubernetes.Version = version
		data, err := InitConfig(InitInput{Cluster: c, Node: node("cp1", "10.99.14.9")})
		if err != nil {
			t.Fatal(err)
		}
		const arg = "- name: flex-volume-plugin-dir\n      value: /var/lib/kubelet/volumeplugins\n"
		if got := bytes.Contains(data, []byte(arg)); got != want {
			t.Errorf("%s: flex-volume-plugin-dir is set: %t, want %t\n%s", version, got, want, data)
		}
	}
}

func TestBadNodes(t *testing.T) {
	for _, n := range []plan.Node{
		{Private: netip.MustParseAddr("10.0.0.1"), Endpoint: "x:6443"},
		{Name: "cp1", Endpoint: "x:6443"},
		{Name: "cp1", Private: netip.MustParseAddr("127.0.0.1"), Endpoint: "x:6443"},
		{Name: "cp1", Private: netip.MustParseAddr("10.0.0.1")},
	} {
		if _, err := InitConfig(InitInput{Cluster: seeds(), Node: n}); err == nil {
			t.Errorf("init: %+v was accepted", n)
		}
		if _, err := JoinConfig(JoinInput{Cluster: seeds(), Node: n}); err == nil {
			t.Errorf("join: %+v was accepted", n)
		}
	}
}

func TestMergeChangesNeither(t *testing.T) {
	base := map[string]any{"a": map[string]any{"x": 1, "y": 2}, "b": []any{1}}
	over := map[string]any{"a": map[string]any{"y": 3}, "b": []any{2}, "c": true}
	want := map[string]any{"a": map[string]any{"x": 1, "y": 3}, "b": []any{2}, "c": true}
	if diff := cmp.Diff(want, merge(base, over)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"a": map[string]any{"x": 1, "y": 2}, "b": []any{1}}, base); diff != "" {
		t.Errorf("the base was changed: %s", diff)
	}
}

func TestNewToken(t *testing.T) {
	token, err := NewToken(strings.NewReader("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`).MatchString(token.Reveal()) {
		t.Errorf("%q is no bootstrap token", token.Reveal())
	}
	if _, err := NewToken(strings.NewReader("short")); err == nil {
		t.Error("a token without enough randomness")
	}
}

// real finds kubeadm itself: MUSTER_KUBEADM, or what the image recipe built.
func real(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("MUSTER_KUBEADM"); p != "" {
		return p
	}
	cache := os.Getenv("MUSTER_CACHE")
	if dir, err := os.UserCacheDir(); cache == "" && err == nil {
		cache = filepath.Join(dir, "muster")
	}
	found, err := filepath.Glob(filepath.Join(cache, "components-*/bin/kubeadm"))
	if err != nil || len(found) == 0 {
		t.Skip("no kubeadm (MUSTER_KUBEADM, or make e2e builds one): the files were not shown to it")
	}
	slices.Sort(found)
	return found[len(found)-1]
}

func TestRealKubeadmValidates(t *testing.T) {
	kubeadm := real(t)
	dir := t.TempDir()
	discovery := filepath.Join(dir, "discovery.conf")
	ca, err := EnsureAuthorities(filepath.Join(dir, "pki"), write, testNow)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := Discovery("https://10.99.14.9:6443", ca.CA())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(discovery, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, data := range goldens(t) {
		if strings.HasPrefix(name, "patches/") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			// The file must be there when kubeadm validates.
			data := bytes.ReplaceAll(data, []byte("/run/muster/discovery.conf"), []byte(discovery))
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), kubeadm, "config", "validate", "--config", path).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "ok") {
				t.Errorf("%v: %s", err, out)
			}
			if strings.Contains(string(out), "Warning") || strings.Contains(string(out), "W1") {
				t.Errorf("kubeadm warns: %s", out)
			}
		})
	}
}
