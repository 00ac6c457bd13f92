package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
)

const containerdConfig = "/etc/containerd/config.toml"

// ContainerdConfig is containerd's whole configuration (version 3, containerd 2.2
// and later). It is never built on "containerd config default", which some
// releases and packages deliver with the CRI switched off. runc is its program, sandbox
// the pause image; extra maps a plugin id to settings that are laid over ours.
func ContainerdConfig(runc, sandbox string, extra map[string]map[string]any) ([]byte, error) {
	plugins := map[string]any{
		"io.containerd.cri.v1.images": map[string]any{
			// Another one than kubeadm's is pulled twice, and the wrong one of the two
			// is garbage collected.
			"pinned_images": map[string]any{"sandbox": sandbox},
			// Mirrors and their CAs go here, one directory a registry.
			"registry": map[string]any{"config_path": "/etc/containerd/certs.d"},
		},
		"io.containerd.cri.v1.runtime": map[string]any{
			"cni": map[string]any{"bin_dirs": []string{layout.CNIBinDir}, "conf_dir": layout.CNIConfDir},
			"containerd": map[string]any{
				"default_runtime_name": "runc",
				"runtimes": map[string]any{
					"runc": map[string]any{
						"runtime_type": "io.containerd.runc.v2",
						// The kubelet uses systemd's cgroups too; two drivers make static pods
						// restart.
						"options": map[string]any{"BinaryName": runc, "SystemdCgroup": true},
					},
				},
			},
		},
	}
	for _, id := range slices.Sorted(maps.Keys(extra)) {
		ours, _ := plugins[id].(map[string]any)
		plugins[id] = merge(ours, extra[id])
	}
	body, err := encodeTOML(map[string]any{"version": 3, "plugins": plugins})
	if err != nil {
		return nil, fmt.Errorf("encoding containerd's configuration: spec.containerd.extra: %w", err)
	}
	return append([]byte("# Written by muster. Changes belong into spec.containerd.extra of the cluster file.\n"), body...), nil
}

// merge lays over on base, map by map; lists and scalars of over win.
func merge(base, over map[string]any) map[string]any {
	out := map[string]any{}
	maps.Copy(out, base)
	for key, v := range over {
		a, isMap := out[key].(map[string]any)
		b, both := v.(map[string]any)
		if isMap && both {
			out[key] = merge(a, b)
			continue
		}
		out[key] = v
	}
	return out
}

// startContainerd lays the configuration and brings containerd up with it.
func (h *Host) startContainerd(ctx context.Context, sandbox string) error {
	config, err := ContainerdConfig(h.Prefix.Runc(), sandbox, h.Cluster.Spec.Containerd.Extra)
	if err != nil {
		return err
	}
	changed, err := h.put(containerdConfig, config)
	if err != nil {
		return err
	}
	if changed {
		// Containers outlive a restart: the unit ends the daemon only.
		if err := h.Units.Restart(ctx, layout.UnitContainerd); err != nil {
			return err
		}
	} else if err := h.Units.Start(ctx, layout.UnitContainerd); err != nil {
		return err
	}
	if err := h.waitSocket(ctx); err != nil {
		return err
	}
	return h.checkCRI(ctx)
}

// socketDeadline bounds the wait for containerd's socket. Its unit is up when
// containerd says so; the socket was seen to follow within milliseconds.
const socketDeadline = 30 * time.Second

func (h *Host) waitSocket(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, socketDeadline, fmt.Errorf("not within %s", socketDeadline))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", h.path(layout.Containerd))
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd runs, but nothing answers at %s: %w: %w; see journalctl -u containerd", layout.Containerd, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// checkCRI makes sure that the plugin that the kubelet speaks to is on: a socket
// that answers says nothing of it.
func (h *Host) checkCRI(ctx context.Context) error {
	out, err := h.Run(ctx, h.Prefix.Bin()+"/ctr", "--address", h.path(layout.Containerd), "plugins", "list")
	if err != nil {
		return fmt.Errorf("asking containerd for its plugins: %w", err)
	}
	if err := judgeCRI(out); err != nil {
		return fmt.Errorf("containerd: %w; see journalctl -u containerd, and spec.containerd.extra if it is set", err)
	}
	return nil
}

// judgeCRI reads the table of ctr plugins list: TYPE ID PLATFORMS STATUS.
func judgeCRI(table []byte) error {
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) < 4 || f[0] != "io.containerd.grpc.v1" || f[1] != "cri" {
			continue
		}
		if status := f[len(f)-1]; status != "ok" {
			return fmt.Errorf("its CRI plugin has the status %q, expected \"ok\"", status)
		}
		return nil
	}
	return errors.New("it has no CRI plugin (io.containerd.grpc.v1 cri)")
}

// missingImages are those of want that containerd's namespace k8s.io lacks.
func missingImages(want []string, list []byte) []string {
	have := strings.Fields(string(list))
	return slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(have, w) })
}

// pauseImage finds the sandbox image among those that kubeadm lists, so that the
// two always agree.
func pauseImage(images []string) (string, error) {
	for _, i := range images {
		name, _, _ := strings.Cut(i[strings.LastIndex(i, "/")+1:], ":")
		if name == "pause" {
			return i, nil
		}
	}
	return "", fmt.Errorf("kubeadm lists no pause image among %v", images)
}
