package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFormats forms one cluster of servers that each boot from the same content in
// another format, and fetch the agent by what it laid down.
func TestFormats(t *testing.T) {
	formats := []string{"cloud-config", "script", "mime", "ignition"}
	c := form(t, shape{controlPlanes: 1, workers: len(formats) - 1, fetch: true})
	file, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	for i, s := range c.servers {
		data, err := c.rig.Render(c.ctx, binary(t, "userdata"), file, "--format", formats[i])
		c.must(err)
		c.must(s.SetUserData(data))
	}
	c.bootAll()
	c.awaitReady(6 * time.Minute)
	testNodes(t, c)
	testOneInit(t, c)
	const show = `set -e
stat -c '%a %U:%G %n' /etc/muster/* /usr/local/libexec/muster-fetch /etc/systemd/system/muster*
sha256sum /etc/muster/* /usr/local/libexec/muster-fetch /etc/systemd/system/muster.service /etc/systemd/system/muster-fetch.service
systemctl is-enabled muster.service muster-fetch.service
systemctl is-active muster.service muster-fetch.service`
	var first string
	for i, s := range c.servers {
		out, err := s.Exec(c.ctx, "sh", "-c", show)
		c.must(err)
		if i == 0 {
			first = out
			t.Logf("%s, from %s:\n%s", s.Name, formats[i], out)
		} else if diff := cmp.Diff(first, out); diff != "" {
			t.Errorf("%s booted from %s (-%s +%s):\n%s", s.Name, formats[i], formats[0], formats[i], diff)
		}
	}
}
