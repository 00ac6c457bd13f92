package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/test/rig"
)

func testNextHops(t *testing.T, c *formation, want int) {
	for line, l := range c.servers[0].Lines() {
		testNextHopsOf(t, c, l, planesAt(c.servers[:want], line))
	}
}

func testNextHopsOf(t *testing.T, c *formation, l rig.Line, planes []netip.Addr) {
	eip := l.ElasticIP
	c.t = t
	c.eventually(30*time.Second, "the routers to know every control plane", func() error {
		hops, err := c.rig.ToR().NextHops(c.ctx, eip)
		if err != nil {
			return err
		}
		if !slices.Equal(hops, planes) {
			return fmt.Errorf("next hops of %s are %v, expected %v", eip, hops, planes)
		}
		for router, at := range l.Routers {
			hops, err := c.rig.ToR().RouterNextHops(c.ctx, router, eip)
			if err != nil {
				return err
			}
			if !slices.Equal(hops, planes) {
				return fmt.Errorf("router %s: next hops of %s are %v, expected %v", at, eip, hops, planes)
			}
		}
		return nil
	})
}

// testNetwork reads lo and the routing table of every server as ip -j shows them.
func testNetwork(t *testing.T, c *formation) {
	for _, s := range c.servers {
		plane := strings.HasPrefix(s.Name, "cp")
		var links []struct {
			AddrInfo []struct {
				Local, Scope, Label string
				Prefixlen           int
			} `json:"addr_info"`
		}
		c.execJSON(t, s, &links, "ip", "-j", "addr", "show", "lo")
		found := ""
		for _, l := range links {
			for _, a := range l.AddrInfo {
				if a.Local == rig.ElasticIP.String() {
					found = fmt.Sprintf("%s/%d scope %s label %s", a.Local, a.Prefixlen, a.Scope, a.Label)
				}
			}
		}
		want := ""
		if plane {
			want = rig.ElasticIP.String() + "/32 scope host label lo:muster"
		}
		if found != want {
			t.Errorf("%s: Elastic IP on lo is %q, expected %q", s.Name, found, want)
		}
		var routes []struct {
			Dst, Gateway, Prefsrc, Protocol string
		}
		c.execJSON(t, s, &routes, "ip", "-j", "route")
		for _, router := range rig.Routers {
			ok := slices.ContainsFunc(routes, func(r struct{ Dst, Gateway, Prefsrc, Protocol string }) bool {
				return r.Dst == router.String() && r.Gateway == s.Gateway.String() && r.Prefsrc == s.Addr.String() && (r.Protocol == "201" || r.Protocol == "muster")
			})
			if !ok {
				t.Errorf("%s: no route to %s via %s src %s proto muster in %v", s.Name, router, s.Gateway, s.Addr, routes)
			}
		}
		if out, err := s.Exec(c.ctx, "bootstrap", "net", "plan"); err != nil || !strings.HasPrefix(out, "nothing to write") {
			t.Errorf("%s: bootstrap net plan says %q (%v), want nothing to write", s.Name, out, err)
		}
		if plane {
			testSessions(t, c, s)
		}
	}
}

// testSessions: bootstrap net status has every session, up, and since when.
func testSessions(t *testing.T, c *formation, s *rig.Server) {
	var status struct {
		Speaker struct {
			Peers []struct {
				Address, State string
				Since          time.Time
			}
		}
	}
	c.execJSON(t, s, &status, "bootstrap", "net", "status", "-o", "json")
	up := 0
	for _, p := range status.Speaker.Peers {
		if p.State == "established" && !p.Since.IsZero() && time.Since(p.Since) < time.Hour {
			up++
		}
	}
	if up != len(rig.Routers) {
		t.Errorf("%s: net status has %d sessions up, want %d: %+v", s.Name, up, len(rig.Routers), status.Speaker.Peers)
	}
}

// testNetReset takes one control plane off the network by hand: refused under the
// agent, then withdrawn and removed, and all back when the agent starts.
func testNetReset(t *testing.T, c *formation) {
	c.t = t
	s := c.servers[0]
	eip := netip.PrefixFrom(rig.ElasticIP, 32)
	if out, err := s.Exec(c.ctx, "bootstrap", "net", "reset", "--yes"); err == nil {
		t.Errorf("net reset under the agent was not refused: %s", out)
	}
	for _, argv := range [][]string{{"systemctl", "stop", "muster.service"}, {"bootstrap", "net", "reset", "--yes"}} {
		if out, err := s.Exec(c.ctx, argv...); err != nil {
			t.Fatalf("%v: %v %s", argv, err, out)
		}
	}
	hops, err := c.rig.ToR().NextHops(c.ctx, eip)
	if err != nil || slices.Contains(hops, s.Addr) || len(hops) == 0 {
		t.Errorf("after net reset the next hops are %v (%v), want those of the others", hops, err)
	}
	if out, err := s.Exec(c.ctx, "ip", "route", "show", "proto", "201"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("routes after net reset: %q (%v)", out, err)
	}
	if out, err := s.Exec(c.ctx, "ip", "addr", "show", "lo"); err != nil || strings.Contains(out, rig.ElasticIP.String()) {
		t.Errorf("lo after net reset: %q (%v)", out, err)
	}
	if out, err := s.Exec(c.ctx, "bootstrap", "net", "reset"); err != nil || !strings.HasPrefix(out, "Nothing of muster's is here") {
		t.Errorf("net reset again: %q (%v)", out, err)
	}
	if _, err := s.Exec(c.ctx, "systemctl", "start", "muster.service"); err != nil {
		t.Fatal(err)
	}
	c.awaitReady(time.Minute)
	testNextHops(t, c, 3)
	testNetwork(t, c)
}

// testRoutesFirst: in this boot, with no metadata to be had, the routes to the
// routers were there before the kubelet was started.
func testRoutesFirst(t *testing.T, c *formation) {
	for _, s := range c.servers {
		laid, started := c.monotonic(s, "muster-routes.service", "ExecMainExitTimestampMonotonic"), c.monotonic(s, "kubelet.service", "ExecMainStartTimestampMonotonic")
		if laid == 0 || started == 0 || laid > started {
			t.Errorf("%s: routes laid %v after the boot, kubelet started after %v", s.Name, laid, started)
		}
		if result, err := s.Exec(c.ctx, "systemctl", "show", "-P", "Result", "muster-routes.service"); err != nil || strings.TrimSpace(result) != "success" {
			t.Errorf("%s: muster-routes.service ended as %q (%v)", s.Name, result, err)
		}
	}
}

// monotonic is a time that systemd noted of a unit, since the boot of the host; 0
// for none.
func (c *formation) monotonic(s *rig.Server, unit, property string) time.Duration {
	c.t.Helper()
	out, err := s.Exec(c.ctx, "systemctl", "show", "-P", property, unit)
	c.must(err)
	n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	c.must(err)
	return time.Duration(n) * time.Microsecond
}
