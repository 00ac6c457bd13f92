package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/machine"
)

// TestReadOnlyUsr: a server whose /usr is read-only from before PID 1 on, as Flatcar's,
// boots from Ignition with nothing of Kubernetes, and becomes a node of what the lock
// file pins; and does so again after a reboot.
func TestReadOnlyUsr(t *testing.T) {
	layers := testImage(t).Lower
	sealed := t.TempDir()
	c := begin(t, rig.Image{Lower: []string{sealed, layers[len(layers)-1]}}) // Debian's; no store of images
	c.must(machine.WriteFile(filepath.Join(sealed, "etc/rig-read-only-usr"), nil, 0o644))
	// kube-proxy mounts it; a real server has a kernel of its own, and with it this.
	c.must(os.MkdirAll(filepath.Join(sealed, "usr/lib/modules"), 0o755))
	s := c.mirrors(layers)
	file, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	userData, err := c.rig.Render(c.ctx, binary(t, "userdata"), file, "--format", "ignition")
	c.must(err)
	c.must(s.server.SetUserData(userData))
	c.servers = []*rig.Server{s.server}
	c.bootAll()
	for boot := range 2 {
		if boot > 0 {
			c.must(s.server.Reboot(c.ctx))
		}
		c.awaitReady(6 * time.Minute)
		s.isNode(c)
		s.usrIsSealed(c)
	}
}

// usrIsSealed looks from within whether /usr can be written, and from without whether
// it ever was: the overlay has there what differs from the image.
func (s *site) usrIsSealed(c *formation) {
	c.t.Helper()
	out, err := s.server.Exec(c.ctx, "sh", "-c", `findmnt -no OPTIONS /usr; touch /usr/local/bin/x && echo written; cat /proc/$(pidof -s containerd)/environ | tr '\0' '\n' | grep ^PATH; readlink /proc/$(pidof -s bootstrap)/exe /proc/$(pidof -s kubelet)/exe /proc/$(pidof -s containerd)/exe /proc/$(pidof -s containerd-shim-runc-v2)/exe; ls /opt/bin /opt/sbin`)
	c.t.Logf("%s:\n%s", s.server.Name, out)
	if !strings.HasPrefix(out, "ro,") || strings.Contains(out, "written") {
		c.t.Errorf("/usr is not read-only (%v)", err)
	}
	for _, program := range []string{"bootstrap", "kubelet", "containerd", "containerd-shim-runc-v2"} {
		if !strings.Contains(out, "/opt/bin/"+program+"\n") {
			c.t.Errorf("%s does not run from /opt/bin (%v)", program, err)
		}
	}
	// The kubelet looks for FlexVolumes there, and goes on without.
	const known = "/usr/libexec/kubernetes: read-only file system"
	complaints, err := s.server.Exec(c.ctx, "sh", "-c", "journalctl --no-pager | grep -i 'read-only file system' | grep -v '"+known+"' || true")
	c.must(err)
	if complaints != "" {
		c.t.Errorf("something wanted to write:\n%s", complaints)
	}
	up := filepath.Join(c.rig.Dir(), "servers", s.server.Name, "up/usr")
	err = filepath.WalkDir(up, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			c.t.Errorf("%s was written", path)
		}
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		c.t.Errorf("looking at what was written below /usr: %v", err)
	}
}
