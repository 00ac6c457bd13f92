package host

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	sysctlFile  = "/etc/sysctl.d/90-muster.conf"
	modulesFile = "/etc/modules-load.d/90-muster.conf"

	unitSysctl  = "systemd-sysctl.service"
	unitModules = "systemd-modules-load.service"
)

// sysctl is one kernel setting.
type sysctl struct {
	key, value string
	why        string
	needed     bool // without it kubeadm or the network fails; else a note suffices
}

func sysctls(ipv6 bool) []sysctl {
	s := []sysctl{
		{"net.ipv4.ip_forward", "1", "pods are behind this server; kubeadm's preflight checks it", true},
		{"net.ipv4.conf.all.rp_filter", "2", "answers to an Elastic IP may leave by another link than the request came in", false},
		{"net.bridge.bridge-nf-call-iptables", "1", "Services reach pods on the same bridge", false},
		{"net.bridge.bridge-nf-call-ip6tables", "1", "as above", false},
		{"fs.inotify.max_user_instances", "8192", "kubelet, containerd and every pod watch files; 128 is too few", false},
		{"fs.inotify.max_user_watches", "524288", "as above", false},
	}
	if ipv6 {
		s = append(s,
			sysctl{"net.ipv6.conf.all.forwarding", "1", "pods have IPv6 addresses", true},
			sysctl{"net.ipv6.conf.default.forwarding", "1", "kubeadm's preflight looks at this one", true},
			// A forwarding server ignores router advertisements otherwise, and loses
			// its default route when that came by one.
			sysctl{"net.ipv6.conf.all.accept_ra", "2", "a default route that was advertised stays", false},
			sysctl{"net.ipv6.conf.default.accept_ra", "2", "as above", false},
		)
	}
	return s
}

// sysctlConf is the file for systemd-sysctl. The minus lets the others be set
// where one cannot be, such as in a container.
func sysctlConf(settings []sysctl) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by muster.\n")
	for _, s := range settings {
		fmt.Fprintf(&b, "# %s\n-%s = %s\n", s.why, s.key, s.value)
	}
	return b.Bytes()
}

// tuneKernel writes the settings, has systemd apply those that differ, and
// checks. The agent itself sees /proc/sys read-only by its unit; where it does
// not, it writes what systemd did not.
func (h *Host) tuneKernel(ctx context.Context) error {
	settings := sysctls(slices.ContainsFunc(h.Cluster.Spec.Kubernetes.PodSubnets, isIPv6))
	if _, err := h.put(sysctlFile, sysctlConf(settings)); err != nil {
		return err
	}
	if !slices.ContainsFunc(settings, func(s sysctl) bool { return !h.holds(s) }) {
		return nil
	}
	if err := h.Units.Restart(ctx, unitSysctl); err != nil {
		h.Log.Warn("systemd did not apply all kernel settings", "unit", unitSysctl, "error", err)
	}
	for _, s := range settings {
		if h.holds(s) {
			continue
		}
		err := os.WriteFile(h.sysctlPath(s.key), []byte(s.value), 0o644)
		if err == nil && h.holds(s) {
			continue
		}
		if s.needed {
			return fmt.Errorf("the kernel setting %s is %q, expected %q (%s), and cannot be set: %w; set it by hand: sysctl -w %s=%s", s.key, h.sysctl(s.key), s.value, s.why, err, s.key, s.value)
		}
		h.Log.Warn("a kernel setting differs and cannot be set", "key", s.key, "value", h.sysctl(s.key), "expected", s.value, "why", s.why)
	}
	return nil
}

// holds says whether a setting is in force. One of a larger number serves too
// where it is a limit.
func (h *Host) holds(s sysctl) bool {
	have := h.sysctl(s.key)
	if strings.HasPrefix(s.key, "fs.inotify.") {
		return len(have) > len(s.value) || len(have) == len(s.value) && have >= s.value
	}
	return have == s.value
}

func (h *Host) sysctl(key string) string {
	data, err := os.ReadFile(h.sysctlPath(key))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (h *Host) sysctlPath(key string) string {
	return h.path(filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/")))
}

// loadModules makes sure of the two modules that nothing loads by itself. A
// kernel that has them built in, or a container, has no modprobe and needs none.
func (h *Host) loadModules(ctx context.Context) error {
	if _, err := h.put(modulesFile, []byte("# Written by muster.\noverlay\nbr_netfilter\n")); err != nil {
		return err
	}
	if h.hasOverlay() && h.hasBridgeFilter() {
		return nil
	}
	if err := h.Units.Restart(ctx, unitModules); err != nil {
		h.Log.Warn("systemd did not load all kernel modules", "unit", unitModules, "error", err)
	}
	if !h.hasOverlay() {
		return fmt.Errorf("the kernel has no overlay file system (/proc/filesystems), and the module overlay could not be loaded: containerd keeps images on it; use a kernel with CONFIG_OVERLAY_FS")
	}
	if !h.hasBridgeFilter() {
		h.Log.Warn("the kernel module br_netfilter is missing: CNI plugins with a bridge, such as flannel, need it", "module", "br_netfilter")
	}
	return nil
}

func (h *Host) hasOverlay() bool {
	data, err := os.ReadFile(h.path("/proc/filesystems"))
	return err == nil && slices.Contains(strings.Fields(string(data)), "overlay")
}

func (h *Host) hasBridgeFilter() bool {
	return h.exists("/proc/sys/net/bridge/bridge-nf-call-iptables") || h.exists("/sys/module/br_netfilter")
}

// checkSwap refuses swap that the kubelet will not start with.
func (h *Host) checkSwap() error {
	if allowed, ok := h.Cluster.Spec.Kubernetes.Kubelet["failSwapOn"].(bool); ok && !allowed {
		return nil
	}
	data, err := os.ReadFile(h.path("/proc/swaps"))
	if err != nil {
		return fmt.Errorf("looking for swap: %w", err)
	}
	var on []string
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			on = append(on, f[0])
		}
	}
	if len(on) == 0 {
		return nil
	}
	return fmt.Errorf("swap is on (%s), and the kubelet does not start with it: swapoff -a and take it out of /etc/fstab (a swap partition also needs systemctl mask NAME.swap), or set spec.kubernetes.kubelet.failSwapOn: false", strings.Join(on, ", "))
}

func (h *Host) exists(path string) bool {
	_, err := os.Stat(h.path(path))
	return err == nil
}

// put writes a file when it differs, and makes its directory.
func (h *Host) put(path string, data []byte) (changed bool, err error) {
	at := h.path(path)
	if have, err := os.ReadFile(at); err == nil && bytes.Equal(have, data) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return false, fmt.Errorf("writing %s: %w", path, err)
	}
	const everybody fs.FileMode = 0o644
	if err := h.Write(at, data, everybody); err != nil {
		return false, fmt.Errorf("writing %s: %w", path, err)
	}
	return true, nil
}
