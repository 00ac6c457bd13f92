// Package host prepares a server for Kubernetes: kernel settings, units,
// containerd, and the check that all programs of the right version are there.
//
// Preparing is idempotent: every step looks first and changes what differs. What
// needs the kernel's or systemd's rights is asked of systemd, since the agent is
// sandboxed. Floor 2.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/units"
)

// Units installs and starts systemd units.
type Units interface {
	Install(ctx context.Context, files map[string][]byte) (changed []string, err error)
	Enable(ctx context.Context, units ...string) error
	Start(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
}

// Artifacts gets what the lock file pins, and lays it.
type Artifacts interface {
	// Fetch returns when all pins are in this server's cache, verified.
	Fetch(ctx context.Context, pins []cluster.Pin, report func(member.Fetching)) error
	// Install lays the files of a cached artefact where place says, by their path in
	// the archive; all or none.
	Install(ctx context.Context, p cluster.Pin, place func(name string) (dest string, ok bool)) error
	// Path is where a cached artefact lies, verified again.
	Path(ctx context.Context, p cluster.Pin) (string, error)
}

// Host is this server.
type Host struct {
	Cluster   cluster.Cluster
	Arch      string // as Go calls it
	Prefix    layout.Prefix
	Units     Units
	Artifacts Artifacts
	Write     func(path string, data []byte, perm fs.FileMode) error                 // atomic
	Run       func(ctx context.Context, name string, args ...string) ([]byte, error) // see Run
	Free      func(path string) (bytes uint64, err error)                            // see Free
	Log       *slog.Logger
	Root      string // "/"; another directory in tests
}

// Prepare makes this server fit for kubeadm, or says what hinders it. report
// hears of each step as it begins, and how artefacts come. It may be called again at
// any time.
func (h *Host) Prepare(ctx context.Context, report func(member.Preparation)) error {
	var images []string
	var now member.Preparation
	for _, s := range []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"space", func(context.Context) error { return h.checkSpace() }},
		{"artefacts", func(ctx context.Context) error {
			return h.installArtefacts(ctx, func(f member.Fetching) {
				now.Artefacts = f
				report(now)
			})
		}},
		{"versions", h.checkArtefacts},
		{"swap", func(context.Context) error { return h.checkSwap() }},
		{"kernel modules", h.loadModules},
		{"kernel settings", h.tuneKernel},
		{"names", func(context.Context) error { return h.writeNames() }},
		{"units", h.installUnits},
		{"containerd", func(ctx context.Context) (err error) {
			if images, err = h.images(ctx); err != nil {
				return err
			}
			sandbox, err := pauseImage(images)
			if err != nil {
				return err
			}
			return h.startContainerd(ctx, sandbox)
		}},
		{"images", func(ctx context.Context) error { return h.bringImages(ctx, images) }},
	} {
		now.Step = s.name
		report(now)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("preparing this server, %s: %w", s.name, err)
		}
	}
	now.Step = ""
	report(now)
	return nil
}

// installUnits lays all units but the two that came with the user-data and run
// already, and has those start at boot that do.
func (h *Host) installUnits(ctx context.Context) error {
	files := units.For(h.Prefix.Move)
	delete(files, layout.UnitFetch)
	delete(files, layout.UnitAgent)
	// Before the units, because systemd looks for it when it reads them.
	if _, err := h.put(layout.PodScopes, units.Pods); err != nil {
		return err
	}
	if _, err := h.Units.Install(ctx, files); err != nil {
		return err
	}
	return h.Units.Enable(ctx, layout.UnitContainerd, layout.UnitKubelet, layout.UnitRoutes, layout.UnitUpgrade)
}

// routeProtocol is the number that muster marks its routes with; the file gives
// it a name in the output of ip route (package network uses the number).
const routeProtocol = 201

// writeNames writes what only people need: the name of our routes, and crictl's
// configuration, which it also looks for beside its own binary, where the agent
// may write.
func (h *Host) writeNames() error {
	if _, err := h.put("/etc/iproute2/rt_protos.d/muster.conf", fmt.Appendf(nil, "%d\tmuster\n", routeProtocol)); err != nil {
		return err
	}
	if h.exists("/etc/crictl.yaml") {
		return nil
	}
	_, err := h.put(h.Prefix.Bin()+"/crictl.yaml", fmt.Appendf(nil, "runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\n", layout.Containerd, layout.Containerd))
	return err
}

// Run runs a program of the image and returns what it printed on standard
// output. Its error holds the end of what it printed on standard error.
func Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	// Nothing of the agent's environment is theirs to see.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said := bytes.TrimSpace(exit.Stderr)
		const enough = 500
		if len(said) > enough {
			said = said[len(said)-enough:]
		}
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

func (h *Host) path(p string) string { return filepath.Join(h.Root, p) }
