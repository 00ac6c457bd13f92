package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/layout"
)

// artefacts are the programs that a node is made of.
func artefacts(p layout.Prefix) []string {
	return []string{
		p.Bin() + "/kubeadm",
		p.Bin() + "/kubelet",
		p.Bin() + "/kubectl",
		p.Bin() + "/containerd",
		p.Bin() + "/containerd-shim-runc-v2",
		p.Bin() + "/ctr",
		p.Runc(),
		// containerd sets up lo of every pod with it; the rest of CNI belongs to the
		// network add-on.
		layout.CNIBinDir + "/loopback",
	}
}

// checkArtefacts says all that is missing at once.
func (h *Host) checkArtefacts(ctx context.Context) error {
	var missing []string
	for _, p := range artefacts(h.Prefix) {
		info, err := os.Stat(h.path(p))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, p)
		case err != nil:
			return fmt.Errorf("looking for %s: %w", p, err)
		case info.IsDir() || info.Mode()&0o111 == 0:
			return fmt.Errorf("%s is no executable file (mode %s)", p, info.Mode())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the image lacks %s; pin them with userdata lock, so that servers fetch them, or lay them in with bootstrap bake --artifacts", strings.Join(missing, ", "))
	}
	want := h.Cluster.Spec.Kubernetes.Version
	for _, v := range []struct {
		argv   []string
		before string // what the answer has before the version
	}{
		{[]string{h.Prefix.Bin() + "/kubeadm", "version", "--output", "short"}, ""},
		{[]string{h.Prefix.Bin() + "/kubelet", "--version"}, "Kubernetes "},
	} {
		out, err := h.Run(ctx, v.argv[0], v.argv[1:]...)
		if err != nil {
			return fmt.Errorf("asking for its version: %w", err)
		}
		if have := strings.TrimPrefix(strings.TrimSpace(string(out)), v.before); have != want {
			return fmt.Errorf("%s is %s, the cluster file says %s (spec.kubernetes.version): pin that version with userdata lock, bake an image with it, or change the cluster file", v.argv[0], have, want)
		}
	}
	return nil
}

// images are those that a node of this version runs, as kubeadm lists them; with
// a version given it does not ask the network.
func (h *Host) images(ctx context.Context) ([]string, error) {
	out, err := h.Run(ctx, h.Prefix.Bin()+"/kubeadm", "config", "images", "list", "--kubernetes-version", h.Cluster.Spec.Kubernetes.Version)
	if err != nil {
		return nil, fmt.Errorf("asking kubeadm for the images: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// room is what each directory needs for a first start; less, and kubeadm or the
// kubelet's eviction (nodefs below 10 %) fails soon. etcd may grow to its quota of
// 2 GiB, images to tens of GiB: that is the advice.
var room = []struct {
	path            string
	needed, advised uint64 // bytes
}{
	{layout.State, 64 << 20, 256 << 20},
	{layout.EtcdData, 512 << 20, 4 << 30},
	{"/var/lib/kubelet", 256 << 20, 4 << 30},
	{"/var/lib/containerd", 1 << 30, 20 << 30},
}

// checkSpace looks at the file systems that fill up.
func (h *Host) checkSpace() error {
	for _, r := range room {
		free, err := h.Free(h.nearest(r.path))
		if err != nil {
			return fmt.Errorf("asking for the space at %s: %w", r.path, err)
		}
		if free < r.needed {
			return fmt.Errorf("%s has %d MiB free, expected at least %d; make room or use a larger disk", r.path, free>>20, r.needed>>20)
		}
		if free < r.advised {
			h.Log.Warn("little space", "path", r.path, "freeMiB", free>>20, "advisedMiB", r.advised>>20)
		}
	}
	return nil
}

// nearest is a path or the directory above it that exists.
func (h *Host) nearest(path string) string {
	for p := h.path(path); ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil || p == filepath.Dir(p) {
			return p
		}
	}
}

// Free is the space in bytes that root may still use on the file system of path.
func Free(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
