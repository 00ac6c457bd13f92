package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/guide"
	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// TestDiscovery: five servers that are each alone on a /31 look for each other in six
// ways at once. A list with nobody, a block that is too large and multicast find
// nobody; a range, a name and an API do, and the cluster forms.
func TestDiscovery(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("test/faults has a short run of this: make e2e ALL=1")
	}
	parts := netip.PrefixFrom(rig.ServerAddr(1), 24).Masked()
	c := form(t, shape{controlPlanes: 3, workers: 2, apiToken: guide.Token, ways: fmt.Sprintf(
		"{static: [%s]}, {subnet: private}, {subnet: %s}, {dns: %s}, {%s}, {multicast: true}",
		rig.ServerAddr(40), parts, guide.Name, guide.PacketAPI(rig.MetadataAddr))})
	var addrs []netip.Addr
	for _, s := range c.servers {
		addrs = append(addrs, s.Addr)
	}
	g, err := guide.Open(c.rig.RouterNamespace(), rig.MetadataAddr, addrs)
	c.must(err)
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c.bootAll()
	c.awaitReady(4 * time.Minute)
	testNodes(t, c)
	testOneInit(t, c)
	found := map[string]int{} // addresses that answer, by way, as seen by all servers
	for _, s := range c.servers {
		out, err := s.Exec(c.ctx, "bootstrap", "peers", "-o", "json")
		c.must(err)
		if s == c.servers[0] {
			table, err := s.Exec(c.ctx, "bootstrap", "peers")
			c.must(err)
			t.Logf("bootstrap peers on %s:\n%s", s.Name, table)
		}
		var list member.Discovery
		c.must(json.Unmarshal([]byte(out), &list))
		testPeersOf(t, c, s, list)
		for _, f := range list.Found {
			for _, by := range f.By {
				if f.Answered {
					found[by]++
				}
			}
		}
		if out, err := s.Exec(c.ctx, "sh", "-c", "journalctl -u muster --output=cat | grep -c "+guide.Token+" || true"); err != nil || strings.TrimSpace(out) != "0" {
			t.Errorf("the token in the journal of %s: %s, %v", s.Name, out, err)
		}
	}
	testToldPlatform(t, c)
	t.Logf("found by way: %v", found)
	for _, way := range []string{"subnet " + parts.String(), "dns " + guide.Name, "packetAPI " + guide.Project} {
		if found[way] == 0 {
			t.Errorf("%s found no server that answers", way)
		}
	}
	if found["static"]+found["multicast"]+found["subnet private"] != 0 {
		t.Errorf("a way found servers that cannot: %v", found)
	}
}

// testPeersOf checks that a server knows the name and hardware of all others, and what
// its ways say.
func testPeersOf(t *testing.T, c *formation, s *rig.Server, list member.Discovery) {
	t.Helper()
	var names []string
	for _, f := range list.Found {
		if f.Answered && len(f.HW) == 32 {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	var others []string
	for _, o := range c.servers {
		if o != s {
			others = append(others, o.Name)
		}
	}
	slices.Sort(others)
	if !slices.Equal(names, others) {
		t.Errorf("%s knows %v, expected %v: %+v", s.Name, names, others, list)
	}
	if len(list.Ways) != 6 || !strings.Contains(list.Ways[1].Problem, "has more than 4096 addresses") {
		t.Errorf("ways of %s: %+v", s.Name, list.Ways)
	}
}

// testToldPlatform checks what the platform heard of each server: every phase from
// metadata to ready, as user_state events.
func testToldPlatform(t *testing.T, c *formation) {
	t.Helper()
	out, err := c.servers[0].Exec(c.ctx, "curl", "-sS", "--fail", rig.MetadataURL+"/events")
	c.must(err)
	var all []metadata.Event
	c.must(json.Unmarshal([]byte(out), &all))
	for _, s := range c.servers {
		heard := slices.DeleteFunc(slices.Clone(all), func(e metadata.Event) bool { return e.From != s.Addr })
		if len(heard) < 6 || heard[0].Code != 1001 || heard[len(heard)-1].State != "succeeded" || !strings.HasPrefix(heard[len(heard)-1].Message, "rig/"+s.Name+": ready as ") {
			t.Errorf("the platform heard of %s: %+v", s.Name, heard)
		}
		var codes []int
		for _, e := range heard {
			codes = append(codes, e.Code)
		}
		t.Logf("the platform heard of %s: %v", s.Name, codes)
	}
}
