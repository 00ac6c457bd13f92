package announce

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestDiagnosis: each way in which a session with a real router stays down has a
// sentence of its own in status.
func TestDiagnosis(t *testing.T) {
	r := startRack(t)
	const (
		router = "169.254.255.1"
		deaf   = "169.254.255.3" // on the rack, where nobody listens
	)
	config := func(n int, edit func(*serverConfig)) serverConfig {
		c := serverConfig{Device: serverDevice(n, "s3cret"), EIPs: []netip.Prefix{eip}}
		edit(&c)
		return c
	}
	password := func(md5 string) func(*serverConfig) {
		return func(c *serverConfig) {
			for i := range c.Device.BGPNeighbors {
				c.Device.BGPNeighbors[i].MD5 = md5
			}
		}
	}
	nobody := func(md5 string) func(*serverConfig) {
		return func(c *serverConfig) {
			password(md5)(c)
			c.Device.BGPNeighbors[0].PeerIPs = []netip.Addr{netip.MustParseAddr(deaf)}
		}
	}
	cases := []struct {
		name, peer string
		edit       func(*serverConfig)
		says       string
	}{
		{"wrong MD5 password", router, password("another"), "a wrong MD5 password looks like that"},
		{"no MD5 password", router, password(""), "asks for an MD5 password"},
		{"the router does not know this AS", router, func(c *serverConfig) {
			for i := range c.Device.BGPNeighbors {
				c.Device.BGPNeighbors[i].CustomerAS = 65009
			}
		}, "AS mismatch: 169.254.255.1 knows this server by another AS number than 65009"},
		{"the router has another AS", router, func(c *serverConfig) { c.Device.BGPNeighbors[0].PeerAS = 65532 },
			"AS mismatch: 169.254.255.1 has another AS number than 65532"},
		{"no route", router, func(c *serverConfig) { c.NoRoutes = true }, "no route to 169.254.255.1"},
		{"the public way", router, func(c *serverConfig) { c.NoRoutes, c.Public = true, true }, "the kernel would send from 147.75.9.1"},
		{"nobody listens", deaf, nobody(""), "refuses the connection to port 179"},
		{"nobody listens, with MD5", deaf, nobody("s3cret"), "or where no BGP listens"},
	}
	var servers []*testServer
	for i, tc := range cases {
		servers = append(servers, startServer(t, fmt.Sprintf("case%d", i), config(20+i, tc.edit)))
	}
	last := map[string]string{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what status said last: %q", last)
		}
	})
	for i, tc := range cases {
		r.within(20*time.Second, tc.name+": "+tc.says, func() bool {
			for _, p := range servers[i].status().Peers {
				if p.Address.String() == tc.peer {
					last[tc.name] = p.State + " " + p.Reason
				}
				if p.Address.String() == tc.peer && p.State != established && strings.Contains(p.Reason, tc.says) {
					if p.Since.IsZero() || time.Since(p.Since) > time.Minute {
						t.Errorf("%s: down since %v", tc.name, p.Since)
					}
					return true
				}
			}
			return false
		})
	}
	// The other router's sessions are their own; only the first's are looked at.
	if got := r.hops(eip); len(got) > 0 {
		t.Errorf("next hops %v, want none: no session is up", got)
	}
}
