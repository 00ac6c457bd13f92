// Package bake lays the agent, its units and the Kubernetes artefacts into the
// root file system of a server image, and checks that no identity is left in
// it: two servers that boot from one image must be two servers.
//
// It writes nothing secret and enables nothing: what a server shall do comes
// with its user-data. Only when the user-data of a cluster is baked in too does the
// image belong to that cluster, with its secret. Floor 2.
package bake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
)

// Options says what to lay into which root.
type Options struct {
	Root      string            // directory that holds the root file system
	Agent     string            // the bootstrap binary; empty lays none
	Prefix    layout.Prefix     // of the servers and of the user-data; default: layout.Local
	Units     map[string][]byte // unit files by name, for that prefix; nil lays none
	Artifacts string            // directory with kubeadm, kubelet, ..., cni/; empty lays none
	Pinned    Pinned            // brings what the lock file pins; nil lays none
	UserData  string            // directory that userdata render --format dir made; empty lays none
	Clean     bool              // remove the identity that a server makes anew by itself
	Force     bool              // bake although identity is left
}

// Report tells what a bake did. All paths are as the server will see them.
type Report struct {
	Changed  []string  // files written, in order; empty when all was there
	Removed  []string  // identity that Clean removed
	Findings []Finding // identity that is left
	Notes    []string  // artefacts that were not laid, and why
}

// IdentityError says that the root still is some server, and that nothing was
// written.
type IdentityError struct {
	Findings []Finding
}

// Error lists every finding with its remedy, one a line.
func (e *IdentityError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the root still holds the identity of a server, and every server booted from it would be that one; nothing was written")
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n  %s", f)
	}
	return b.String()
}

// Bake checks the root and lays into it what o names. It is idempotent: a
// second run changes nothing. It returns an *IdentityError when identity is
// left and o.Force is not set.
func Bake(ctx context.Context, o Options) (Report, error) {
	var r Report
	root, err := open(o.Root)
	if err != nil {
		return r, err
	}
	defer root.Close()
	if o.Clean {
		// The running system's own machine id is in use by every process on it.
		if same, err := isRunningRoot(o.Root); err != nil || same {
			return r, errors.Join(err, errors.New("--clean on the running system would take its identity from under it; bake a mounted copy of the root, or clean by hand as the findings say"))
		}
		if r.Removed, err = clean(root); err != nil {
			return r, err
		}
	}
	if r.Findings, err = inspect(root); err != nil {
		return r, err
	}
	if len(r.Findings) > 0 && !o.Force {
		return r, &IdentityError{r.Findings}
	}
	l := layer{ctx: ctx, root: root, prefix: cmp.Or(o.Prefix, layout.Local), report: &r}
	if err := l.agent(o.Agent); err != nil {
		return r, err
	}
	if err := l.units(o.Units); err != nil {
		return r, err
	}
	if err := l.userData(o.UserData); err != nil {
		return r, err
	}
	if err := l.artifacts(o.Artifacts); err != nil {
		return r, err
	}
	return r, l.pinned(o.Root, o.Pinned)
}

// open opens the root of a server. Every later path is resolved inside it: a
// symbolic link that leads out of it is an error, never a write to this machine.
func open(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the root file system: %w", err)
	}
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if _, err := root.Lstat(name); err == nil {
			return root, nil
		}
	}
	root.Close()
	return nil, fmt.Errorf("%s holds neither etc/os-release nor usr/lib/os-release, so it is not the root of an operating system; is the image mounted there?", dir)
}

func isRunningRoot(dir string) (bool, error) {
	a, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	b, err := os.Stat("/")
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}

// presetFile keeps the first boot from enabling what was baked: with a machine
// id "uninitialized" or missing systemd applies its presets, and Debian's and
// Ubuntu's default is to enable everything (systemd.preset(5)).
const presetFile = "/etc/systemd/system-preset/20-muster.preset"

// units lays every unit file, enabled by nobody.
func (l layer) units(units map[string][]byte) error {
	if units == nil {
		return nil
	}
	var preset strings.Builder
	preset.WriteString("# Written by bootstrap bake. User-data enables what this server needs;\n# the presets of a first boot must not.\n")
	for _, name := range slices.Sorted(maps.Keys(units)) {
		if err := l.content(path.Join(layout.UnitDir, name), units[name], 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&preset, "disable %s\n", name)
	}
	return l.content(presetFile, []byte(preset.String()), 0o644)
}

// programs are the artefacts a server runs, and where it looks for them.
var programs = []struct {
	name     string
	dest     func(layout.Prefix) string
	required bool
}{
	{"kubeadm", inBin("kubeadm"), true},
	{"kubelet", inBin("kubelet"), true},
	{"kubectl", inBin("kubectl"), true},
	{"containerd", inBin("containerd"), true},
	{"containerd-shim-runc-v2", inBin("containerd-shim-runc-v2"), true},
	{"ctr", inBin("ctr"), true},
	{"crictl", inBin("crictl"), false},
	{"runc", layout.Prefix.Runc, false}, // or the distribution's, see runc
}

func inBin(name string) func(layout.Prefix) string {
	return func(p layout.Prefix) string { return p.Bin() + "/" + name }
}

// artifacts lays the programs and CNI plugins of dir.
func (l layer) artifacts(dir string) error {
	if dir == "" {
		return nil
	}
	var missing []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, p.name)); errors.Is(err, fs.ErrNotExist) && p.required {
			missing = append(missing, p.name)
		}
	}
	plugins, err := os.ReadDir(filepath.Join(dir, "cni"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(plugins) == 0 {
		missing = append(missing, "cni/ with at least one plugin")
	} else if err != nil {
		return fmt.Errorf("reading the CNI plugins: %w", err)
	}
	if missing != nil {
		return fmt.Errorf("the artefact directory %s lacks %s; put the release binaries there under these names", dir, strings.Join(missing, ", "))
	}
	for _, p := range programs {
		src := filepath.Join(dir, p.name)
		if _, err := os.Stat(src); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := l.file(src, p.dest(l.prefix), 0o755); err != nil {
			return err
		}
	}
	for _, plugin := range plugins {
		if plugin.IsDir() {
			continue
		}
		if err := l.file(filepath.Join(dir, "cni", plugin.Name()), path.Join(layout.CNIBinDir, plugin.Name()), 0o755); err != nil {
			return err
		}
	}
	if err := l.runc(); err != nil {
		return err
	}
	return l.note(dir)
}

// runc makes sure that containerd finds one: the artefact's, or else a link to
// the distribution's.
func (l layer) runc() error {
	if _, err := l.root.Lstat(rel(l.prefix.Runc())); err == nil {
		return nil
	}
	for _, own := range []string{"/usr/sbin/runc", "/usr/bin/runc"} {
		if _, err := l.root.Stat(rel(own)); err == nil {
			return l.link(own, l.prefix.Runc())
		}
	}
	return fmt.Errorf("there is no runc: neither among the artefacts nor as /usr/sbin/runc in the root; add the file runc to the artefacts, or install the distribution's package runc into the root")
}

// note names the files of an artefact directory that no server runs itself,
// such as kube-apiserver, so that a misspelt name does not go unseen.
func (l layer) note(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the artefact directory: %w", err)
	}
	var rest []string
	for _, e := range entries {
		known := e.Name() == "cni"
		for _, p := range programs {
			known = known || p.name == e.Name()
		}
		if !known {
			rest = append(rest, e.Name())
		}
	}
	if rest != nil {
		l.report.Notes = append(l.report.Notes, "not laid, because no unit runs them: "+strings.Join(rest, ", "))
	}
	return nil
}
