package images

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Versions of what the image holds. They are those that `kubeadm config images
// list` of this Kubernetes names, so that nothing is pulled; go.mod of each
// component pins the source (a test compares).
const (
	KubernetesVersion = "v1.36.3"
	containerdVersion = "v2.4.2"
	etcdVersion       = "v3.6.8"
	corednsVersion    = "v1.14.2"
	cniVersion        = "v1.9.1"
	crictlVersion     = "v1.36.0"
	etcdTag           = "3.6.8-0"
	pauseTag          = "3.10.2"
)

// component is one Go module below images/components with programs to build.
type component struct {
	name, module, version string
	tags                  string
	stamps                []string          // -X values: without them Kubernetes says v0.0.0
	programs              map[string]string // file name, below bin/ -> package
	minutes               string            // what to expect cold, on two cores
}

var componentList = []component{
	{
		name: "kubernetes", module: "k8s.io/kubernetes", version: KubernetesVersion, minutes: "7 minutes",
		stamps: append(kubernetesStamps("k8s.io/component-base/version"), kubernetesStamps("k8s.io/client-go/pkg/version")...),
		programs: map[string]string{
			"kubeadm": "k8s.io/kubernetes/cmd/kubeadm", "kubelet": "k8s.io/kubernetes/cmd/kubelet",
			"kubectl": "k8s.io/kubernetes/cmd/kubectl", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
			"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler", "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
		},
	},
	{
		name: "containerd", module: "github.com/containerd/containerd/v2", version: containerdVersion, minutes: "2 minutes",
		tags:   "no_btrfs,no_devmapper,no_zfs", // snapshotters that need C libraries or unusual disks
		stamps: []string{"github.com/containerd/containerd/v2/version.Version=" + containerdVersion},
		programs: map[string]string{
			"containerd": "github.com/containerd/containerd/v2/cmd/containerd", "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
			"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		},
	},
	{
		name: "etcd", module: "go.etcd.io/etcd/server/v3", version: etcdVersion, minutes: "1 minute",
		programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3"},
	},
	{
		name: "cni", module: "github.com/containernetworking/plugins", version: cniVersion, minutes: "1 minute",
		programs: map[string]string{
			"cni/bridge":     "github.com/containernetworking/plugins/plugins/main/bridge",
			"cni/loopback":   "github.com/containernetworking/plugins/plugins/main/loopback",
			"cni/ptp":        "github.com/containernetworking/plugins/plugins/main/ptp",
			"cni/host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
			"cni/portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap",
		},
	},
	{
		name: "crictl", module: "sigs.k8s.io/cri-tools", version: crictlVersion, minutes: "2 minutes",
		stamps:   []string{"sigs.k8s.io/cri-tools/pkg/version.Version=" + crictlVersion},
		programs: map[string]string{"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"},
	},
	{
		name: "coredns", module: "github.com/coredns/coredns", version: corednsVersion, minutes: "5 minutes",
		programs: map[string]string{"coredns": "github.com/coredns/coredns"},
	},
}

func kubernetesStamps(pkg string) []string {
	minor := strings.Split(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	return []string{
		pkg + ".gitVersion=" + KubernetesVersion, pkg + ".gitMajor=" + minor[0], pkg + ".gitMinor=" + minor[1],
		// A constant date: the same source gives the same bytes.
		pkg + ".gitTreeState=clean", pkg + ".buildDate=2026-01-01T00:00:00Z",
	}
}

// pausePackage is this module's own pause program, the parent of every pod.
const pausePackage = "images/components/pause"

func (c component) files() []string {
	dir := filepath.Join("images/components", c.name)
	return []string{filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"), filepath.Join(dir, "tools.go")}
}

func (c component) ldflags() string {
	flags := "-s -w"
	for _, stamp := range c.stamps {
		flags += " -X " + stamp
	}
	return flags
}

// components builds every program from its Go module into components-KEY/bin.
func (b *builder) components(ctx context.Context) (string, error) {
	parts := []string{"1", runtime.Version(), b.arch}
	files := []string{pausePackage + "/main.go"}
	for _, c := range componentList {
		files = append(files, c.files()...)
		parts = append(parts, fmt.Sprint(c))
	}
	sources, err := treeKey(b.source, files...)
	if err != nil {
		return "", err
	}
	return b.cache.product(ctx, "components", key(append(parts, sources)...), func(ctx context.Context, dir string) error {
		for _, c := range componentList {
			name := fmt.Sprintf("compile %s %s (cold: about %s)", c.name, c.version, c.minutes)
			if err := step(ctx, b.cache.log, name, func(ctx context.Context) error {
				return b.compile(ctx, c, filepath.Join(dir, "bin"))
			}); err != nil {
				return err
			}
		}
		cmd := b.goBuild(ctx, b.source, "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin", "pause"), "./"+pausePackage)
		return b.cache.runCommand("compile-pause", cmd)
	})
}

// compile builds all programs of one component, so that they share its packages
// in one run, and gives them their names.
func (b *builder) compile(ctx context.Context, c component, bin string) error {
	out := filepath.Join(filepath.Dir(bin), "out")
	args := []string{"-ldflags", c.ldflags(), "-o", out + "/"}
	if c.tags != "" {
		args = append(args, "-tags", c.tags)
	}
	args = append(args, slices.Sorted(maps.Values(c.programs))...)
	cmd := b.goBuild(ctx, filepath.Join(b.source, "images/components", c.name), args...)
	if err := b.cache.runCommand("compile-"+c.name, cmd); err != nil {
		return err
	}
	for name, pkg := range c.programs {
		dest := filepath.Join(bin, name)
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(out, builtName(pkg)), dest); err != nil {
			return err
		}
	}
	return os.Remove(out)
}

// builtName is what `go build` calls a package's program: the last element of
// its path that is not a major version.
func builtName(pkg string) string {
	elements := strings.Split(pkg, "/")
	last := elements[len(elements)-1]
	if len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		return elements[len(elements)-2]
	}
	return last
}

func (b *builder) goBuild(ctx context.Context, dir string, args ...string) *exec.Cmd {
	// -p 2 bounds memory: the Kubernetes packages are large.
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-p", "2", "-mod=readonly", "-buildvcs=false", "-trimpath"}, args...)...)
	cmd.Dir = dir
	// The caller may have set flags for the agent's sysroot; none fits here.
	cmd.Env = withEnv("CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH="+b.arch, "GOWORK=off")
	return cmd
}
