package faults

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/userdata"
	"github.com/mustermetal/muster/test/rig/machine"
)

// masked are units of the image that a light server boots without: cloud-init, whose
// part the lab plays, and what a second of boot is too short for.
var masked = []string{
	"cloud-init.service", "cloud-init-local.service", "cloud-config.service", "cloud-final.service", "cloud-init-hotplugd.socket", "cloud-init.target", "cloud-config.target",
	"ssh.service", "networking.service", "console-getty.service", "getty.target", "systemd-logind.service", "systemd-user-sessions.service",
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-random-seed.service", "systemd-hwdb-update.service",
	"systemd-journal-catalog-update.service", "systemd-update-done.service", "ldconfig.service", "systemd-machine-id-commit.service",
	"systemd-firstboot.service", "systemd-sysusers.service", "systemd-binfmt.service", "systemd-networkd.service", "systemd-timesyncd.service",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount",
	"e2scrub_reap.service", "e2scrub_all.timer", "fstrim.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "man-db.timer",
	"systemd-tmpfiles-clean.timer", "ifupdown-wait-online.service", "remote-fs.target", "nftables.service", "cron.service",
	"runc.service", "containerd-shim.service", "kmod-static-nodes.service", "modprobe@.service", "systemd-pstore.service", "systemd-ask-password-wall.path",
	"systemd-ask-password-console.path",
}

// writeLayer writes what every light server has over its image.
func (l *Lab) writeLayer() error {
	files := []struct {
		path, content string
		mode          os.FileMode
	}{
		{machine.InitPath, machine.Init, 0o755},
		{"/etc/systemd/journald.conf.d/faults.conf", "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nSystemMaxUse=200M\nSyncIntervalSec=1s\n", 0o644},
		{"/etc/resolv.conf", "nameserver " + balancerIP.String() + "\n", 0o644}, // package guide may be there
	}
	if err := os.RemoveAll(l.path("layer")); err != nil {
		return err
	}
	for _, f := range files {
		if err := machine.WriteFile(l.path("layer", f.path), []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	units := l.path("layer", layout.UnitDir)
	if err := os.MkdirAll(units, 0o755); err != nil {
		return err
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	return os.MkdirAll(l.path("layer", "var/log/journal"), 0o755)
}

// laid is a file of user-data.
type laid struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Encoding    string `yaml:"encoding"`
	Content     string `yaml:"content"`
}

// seed lays into the mounted root what cloud-init would lay down of the user-data,
// and enables the units that its commands enable.
func (s *Server) seed() error {
	// The product's own parser, so that this is user-data that it means.
	if _, err := userdata.Parse(s.userData); err != nil {
		return err
	}
	var doc struct {
		Files []laid `yaml:"write_files"`
	}
	if err := yaml.Unmarshal(s.userData, &doc); err != nil {
		return fmt.Errorf("reading user-data: %w", err)
	}
	files := append(doc.Files, laid{Path: "/etc/hostname", Permissions: "0644", Content: s.Name + "\n"},
		laid{Path: "/etc/hosts", Permissions: "0644", Content: "127.0.0.1 localhost\n127.0.1.1 " + s.Name + "\n"})
	for _, f := range files {
		content, err := []byte(f.Content), error(nil)
		if f.Encoding == "b64" {
			content, err = base64.StdEncoding.DecodeString(f.Content)
		}
		if err != nil {
			return fmt.Errorf("user-data, %s: %w", f.Path, err)
		}
		mode, err := strconv.ParseUint(f.Permissions, 8, 32)
		if err != nil {
			return fmt.Errorf("user-data, %s: %w", f.Path, err)
		}
		if err := machine.WriteFile(s.path("root", f.Path), content, os.FileMode(mode)); err != nil {
			return err
		}
	}
	if s.Idle {
		return nil
	}
	wants := s.path("root", layout.UnitDir, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for _, unit := range []string{layout.UnitFetch, layout.UnitAgent} {
		err := os.Symlink(filepath.Join(layout.UnitDir, unit), filepath.Join(wants, unit))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
