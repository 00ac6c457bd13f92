package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFormats forms one cluster of servers that each boot from the same content in
// another format, and fetch the agent by what it laid down, all of them for the programs
// of the image, which are below /usr/local. Who may become the
// control plane is said by nothing but the role that each was rendered for.
func TestFormats(t *testing.T) {
	formats := []string{"ignition", "cloud-config", "script", "mime"}
	c := form(t, shape{controlPlanes: 1, workers: len(formats) - 1, fetch: true})
	data, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	file := strings.Replace(string(data), "eligible: {tag: muster-role}", "eligible: {all: true}", 1)
	if file == string(data) {
		t.Fatal("the rig's cluster file does not say eligible: {tag: muster-role} any more")
	}
	for i, s := range c.servers {
		role := "worker"
		if i == 0 {
			role = "control-plane"
		}
		data, err := c.rig.Render(c.ctx, binary(t, "userdata"), []byte(file), "--format", formats[i], "--role", role, "--prefix", "/usr/local")
		c.must(err)
		c.must(s.SetUserData(data))
	}
	c.bootAll()
	c.awaitReady(6 * time.Minute)
	testNodes(t, c)
	testOneInit(t, c)
	// The cluster file is the one that differs, by the role.
	const show = `set -e
stat -c '%a %U:%G %n' /etc/muster/* /usr/local/libexec/muster-fetch /etc/systemd/system/muster.service /etc/systemd/system/muster-fetch.service
grep -v -e 'all: true' -e 'none: true' /etc/muster/cluster.yaml | sha256sum
sha256sum /etc/muster/fetch.env /usr/local/libexec/muster-fetch /etc/systemd/system/muster.service /etc/systemd/system/muster-fetch.service
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
