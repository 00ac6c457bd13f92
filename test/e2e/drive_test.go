package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// TestConfigDrive boots a server that Ignition set up, so that no cloud-init reads
// its config drive, and whose metadata service fails. It learns what it is from the
// disk, a real ext4 on a loop device, which comes after the boot.
func TestConfigDrive(t *testing.T) {
	c := form(t, shape{controlPlanes: 1, platform: metadata.OpenStack})
	s := c.servers[0]
	file, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	// This image has its programs where a server without Ignition has them.
	data, err := c.rig.Render(c.ctx, binary(t, "userdata"), file, "--format", "ignition", "--prefix", "/usr/local")
	c.must(err)
	c.must(s.SetUserData(data))
	c.must(s.FailMetadata(metadata.Fault{Kind: metadata.Refused}))
	disk := c.configDrive(s)
	c.bootAll()
	c.eventually(time.Minute, "the agent to ask for metadata in vain", func() error {
		list, err := readStatus(c.ctx, s)
		if err == nil && list[0].Problem == "" {
			err = fmt.Errorf("status has no problem: %+v", list[0])
		}
		return err
	})
	c.plug(s, disk, "config-2")
	c.awaitReady(4 * time.Minute)
	testNodes(t, c)
	testStored(t, c, s, metadata.OpenStack)
	for _, unit := range []string{"muster.service", "muster-drive.service"} {
		journal, err := s.Journal(c.ctx, unit)
		c.must(err)
		if want := "/run/muster/drive/openstack/latest/meta_data.json"; !strings.Contains(journal, want) {
			t.Errorf("the journal of %s has no %s:\n%s", unit, want, journal)
		}
	}
	out, err := s.Exec(c.ctx, "sh", "-c", "grep -c "+disk+" /proc/mounts; find /run/muster/drive -type f -printf '%m %P\n' | sort; systemctl is-active muster-drive")
	if want := "0\n600 openstack/latest/meta_data.json\n600 openstack/latest/network_data.json\ninactive"; strings.TrimSpace(out) != want {
		t.Errorf("the disk's mounts, the copies, and the unit's state (%v):\n%swant:\n%s", err, out, want)
	}
}

// configDrive makes the disk of a server, with user-data on it that muster does not
// need, and returns its device.
func (c *formation) configDrive(s *rig.Server) string {
	c.t.Helper()
	dir := c.t.TempDir()
	for name, document := range s.ConfigDrive() {
		c.must(machine.WriteFile(filepath.Join(dir, name), document, 0o600))
	}
	image := filepath.Join(c.t.TempDir(), "drive.img")
	_, err := machine.Output(c.ctx, "mkfs.ext4", "-q", "-d", dir, image, "8M")
	c.must(err)
	out, err := machine.Output(c.ctx, "losetup", "--find", "--show", "--read-only", image)
	c.must(err)
	device := strings.TrimSpace(out)
	c.t.Cleanup(func() {
		if out, err := machine.Output(context.Background(), "losetup", "-d", device); err != nil {
			c.t.Logf("%s: %v: %s", device, err, out)
		}
	})
	return device
}

// plug gives a running server a disk, and does what udev would: a server of the rig
// has none.
func (c *formation) plug(s *rig.Server, device, label string) {
	c.t.Helper()
	info, err := os.Stat(device)
	c.must(err)
	number := info.Sys().(*syscall.Stat_t).Rdev
	major, minor := unix.Major(number), unix.Minor(number)
	_, err = s.Exec(c.ctx, "sh", "-c", fmt.Sprintf("set -e; mknod -m 600 %s b %d %d; mkdir -p /dev/disk/by-label /run/udev/data; ln -s %s /dev/disk/by-label/%s; echo E:ID_FS_LABEL=%s > /run/udev/data/b%d:%d",
		device, major, minor, device, label, label, major, minor))
	c.must(err)
}
