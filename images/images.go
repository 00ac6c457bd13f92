// Package images builds the disk of a test server the way users bake theirs:
// a Debian root, the Kubernetes artefacts, the agent laid in by `bootstrap bake`,
// and a containerd store that holds the control plane's images already, so that
// no registry is needed. Everything is built once, from pinned sources, and kept
// in a cache directory under a key of what it was made from.
//
// It may import anything below floor 3.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Options says where to build and what to bake.
type Options struct {
	Cache  string    // directory of everything built; must be on a real file system, not overlay
	Agent  string    // the bootstrap binary to bake; empty gives a root without agent and units
	Source string    // root of the muster repository; empty: found from the working directory
	Log    io.Writer // progress, one line for each step begun, still running, done
	// Artifacts is a directory of programs to bake instead of Kubernetes, as
	// `bootstrap bake --artifacts` takes it; then nothing is compiled, and the image
	// has no containerd store. Empty: Kubernetes.
	Artifacts string
}

// Image is what a test server boots from. Nothing may write to these
// directories: many servers share them.
type Image struct {
	Lower      []string `json:"lower"`      // lower directories of an overlay, top first
	Containerd string   `json:"containerd"` // a filled /var/lib/containerd: hard-link it, but copy *.db
}

// DefaultCache is the cache directory when MUSTER_CACHE (whose value is passed
// in) is not set: muster in the user's cache directory.
func DefaultCache(fromEnv string) (string, error) {
	if fromEnv != "" {
		return filepath.Abs(fromEnv)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w; set MUSTER_CACHE to a directory with 5 GB free", err)
	}
	return filepath.Join(dir, "muster"), nil
}

// Ensure builds whatever of the image is not in the cache yet: cold about ten
// minutes on two cores, warm below a second. It needs root.
func Ensure(ctx context.Context, o Options) (Image, error) {
	b, err := newBuilder(o)
	if err != nil {
		return Image{}, err
	}
	debian, err := b.debian(ctx)
	if err != nil {
		return Image{}, err
	}
	if o.Artifacts != "" {
		return b.bakeOver(ctx, o, Image{Lower: []string{filepath.Join(debian, "root")}})
	}
	components, err := b.components(ctx)
	if err != nil {
		return Image{}, err
	}
	archives, err := b.archives(ctx, components, debian)
	if err != nil {
		return Image{}, err
	}
	server, err := b.server(ctx, components, debian, archives)
	if err != nil {
		return Image{}, err
	}
	image := Image{
		Lower:      []string{filepath.Join(server, "root"), filepath.Join(debian, "root")},
		Containerd: filepath.Join(server, "containerd"),
	}
	return b.bakeOver(ctx, o, image)
}

// bakeOver bakes what the options name over an image.
func (b *builder) bakeOver(ctx context.Context, o Options, image Image) (Image, error) {
	if o.Agent == "" {
		return image, nil
	}
	baked, err := b.bake(ctx, o.Agent, o.Artifacts, image.Lower)
	if err != nil {
		return Image{}, err
	}
	image.Lower = append([]string{filepath.Join(baked, "root")}, image.Lower...)
	return image, nil
}

// builder holds what every step needs.
type builder struct {
	cache  cache
	source string
	arch   string // as Go and Debian call it
}

func newBuilder(o Options) (*builder, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("building the servers' root needs root: packages are unpacked with their owners, and containerd mounts; run it with sudo")
	}
	for _, need := range []struct{ program, pkg string }{{"mmdebstrap", "mmdebstrap"}, {"unshare", "util-linux"}, {"mount", "mount"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return nil, fmt.Errorf("%s is missing; apt-get install %s (make e2e and make demo install it)", need.program, need.pkg)
		}
	}
	if o.Cache == "" {
		return nil, errors.New("no cache directory was given")
	}
	dir, err := filepath.Abs(o.Cache)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ":,\\") {
		return nil, fmt.Errorf("the cache directory %q holds a character that separates mount options (: , or \\); set MUSTER_CACHE to another one", dir)
	}
	source := o.Source
	if source == "" {
		if source, err = findSource(); err != nil {
			return nil, err
		}
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return &builder{cache: cache{dir: dir, log: o.Log}, source: source, arch: runtime.GOARCH}, nil
}

// findSource walks up from the working directory to this module's go.mod.
func findSource() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/mustermetal/muster\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the muster repository, which holds the pinned sources of the image; run it there", start)
		}
	}
}
