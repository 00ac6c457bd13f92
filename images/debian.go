package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/pkg/bake"
)

const debianSuite = "bookworm"

// debianPackages make a minimal Debian into a server as providers deliver one:
// systemd, cloud-init and ssh, and what Kubernetes runs on a host.
var debianPackages = []string{
	"systemd-sysv", "systemd", "dbus", "udev", "kmod", "netbase", "procps", "util-linux",
	"iproute2", "iputils-ping", "ifupdown", "ethtool", "openssh-server", "ca-certificates",
	"cloud-init", "python3", "curl", "wget", "jq", "xz-utils",
	"runc", "iptables", "nftables", "conntrack", "ebtables", "ipset", "socat",
}

// debianFiles are laid over the packages' own.
var debianFiles = map[string]string{
	// There is no other locale, and cloud-init would report one it cannot make.
	"etc/default/locale":                  "LANG=C.UTF-8\n",
	"etc/cloud/cloud.cfg.d/90-locale.cfg": "locale: C.UTF-8\n",
	"etc/crictl.yaml":                     "runtime-endpoint: unix:///run/containerd/containerd.sock\n",
}

// debian makes debian-KEY/root with mmdebstrap, which verifies every package by
// the archive's keyring, and takes its identity away.
func (b *builder) debian(ctx context.Context) (string, error) {
	k := key("2", debianSuite, b.arch, strings.Join(debianPackages, ","), fmt.Sprint(debianFiles))
	return b.cache.product(ctx, "debian", k, func(ctx context.Context, dir string) error {
		return step(ctx, b.cache.log, "install Debian "+debianSuite+" with mmdebstrap (about 1 minute)", func(ctx context.Context) error {
			root := filepath.Join(dir, "root")
			cmd := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
				"--architectures="+b.arch, "--include="+strings.Join(debianPackages, ","), debianSuite, root)
			cmd.Env = withEnv("LC_ALL=C.UTF-8")
			if err := b.cache.runCommand("debian", cmd); err != nil {
				return err
			}
			for name, content := range debianFiles {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					return err
				}
			}
			// mmdebstrap's "uninitialized" would make every boot a first boot, and
			// systemd-firstboot might ask questions on a console nobody reads.
			if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444); err != nil {
				return err
			}
			// The package's placeholder, "UNCONFIGURED FSTAB": the rig mounts.
			if err := os.Remove(filepath.Join(root, "etc/fstab")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			_, err := bake.Bake(ctx, bake.Options{Root: root, Clean: true})
			return err
		})
	})
}
