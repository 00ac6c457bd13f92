package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// TestPlatforms forms one cluster of five servers of which each is told otherwise
// what it is: by a Packet document, by the tree that Tinkerbell serves, by a config
// drive, by a NoCloud seed, and by the cluster file alone. All boot with the same
// user-data and platform: auto, and the real cloud-init reads each source.
func TestPlatforms(t *testing.T) {
	platforms := []string{metadata.Packet, metadata.EC2, metadata.OpenStack, metadata.NoCloud, rig.Static}
	c := form(t, shape{controlPlanes: 3, workers: 2, platform: "auto", platforms: platforms})
	c.bootAll()
	c.awaitReady(4 * time.Minute)
	testNodes(t, c)
	testEtcd(t, c, 3)
	testNextHops(t, c, 3)
	testOneInit(t, c)
	for i, s := range c.servers {
		testFound(t, c, s, platforms[i])
	}
}

// testStored looks at what a server concluded.
func testStored(t *testing.T, c *formation, s *rig.Server, platform string) {
	t.Helper()
	var stored struct {
		Device struct{ ID, Hostname, Platform string }
	}
	c.execJSON(t, s, &stored, "cat", layout.Device)
	if d := stored.Device; d.Platform != platform || d.Hostname != s.Name || d.ID != s.ID {
		t.Errorf("%s: the stored device is %+v, expected platform %s", s.Name, d, platform)
	}
}

// testFound looks in the journal for the reason, too.
func testFound(t *testing.T, c *formation, s *rig.Server, platform string) {
	c.t = t
	testStored(t, c, s, platform)
	var finding struct {
		Platform string
		Device   struct{ ID string }
		Missing  []string
	}
	c.execJSON(t, s, &finding, "bootstrap", "metadata", "-o", "json")
	if finding.Platform != platform || finding.Device.ID != s.ID || len(finding.Missing) > 0 {
		t.Errorf("%s: bootstrap metadata says %+v", s.Name, finding)
	}
	journal, err := s.Journal(c.ctx, "muster.service")
	c.must(err)
	reasons := map[string]string{
		metadata.Packet: "cloud-init found ec2", metadata.EC2: "cloud-init found ec2", metadata.OpenStack: "cloud-init found configdrive",
		metadata.NoCloud: "cloud-init found nocloud", rig.Static: "spec.static describes this server",
	}
	line := ""
	for l := range strings.Lines(journal) {
		if strings.Contains(l, "msg=metadata platform="+platform+" ") && line == "" {
			line = strings.TrimSpace(l)
		}
	}
	t.Logf("%s: %s", s.Name, line)
	if !strings.Contains(line, reasons[platform]) {
		t.Errorf("%s: the journal says %q; expected platform %s because %q", s.Name, line, platform, reasons[platform])
	}
}

// TestEachPlatform forms a cluster on each platform by its name. TestPlatforms has
// all of them in one; this takes five minutes.
func TestEachPlatform(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("one more formation for each platform: make e2e ALL=1")
	}
	large := shape{controlPlanes: 3, workers: 2}
	for platform, s := range map[string]shape{
		metadata.EC2: large, metadata.OpenStack: large, metadata.NoCloud: large, rig.Static: large, rig.CloudInit: {controlPlanes: 1, workers: 1},
	} {
		t.Run(platform, func(t *testing.T) {
			s.platform = platform
			c := form(t, s)
			c.bootAll()
			c.awaitReady(4 * time.Minute)
			testNodes(t, c)
			testEtcd(t, c, s.controlPlanes)
			testNextHops(t, c, s.controlPlanes)
			testOneInit(t, c)
			for _, s := range c.servers {
				testStored(t, c, s, platform)
			}
		})
	}
}
