package announce

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
)

// birdConfig makes one BIRD two top-of-rack routers that answer any server with
// the right password. The routes of the first router go to the kernel, those of
// the second stay in BIRD. The second has an AS number and a router id of its own
// and the first sends a route, so that a server that carries routes from one
// router to the other is found out: GoBGP only keeps a route from the router and
// the AS that it came from.
//
// Each protocol for a range has another port, unused because passive: two with
// the same one block each other.
const birdConfig = `
router id 169.254.255.1;
ipv4 table t1v4; ipv6 table t1v6; ipv4 table t2v4; ipv6 table t2v6;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
protocol static { ipv4 { table t1v4; }; route 203.0.113.0/24 blackhole; }
protocol kernel { ipv4 { table t1v4; export where source = RTS_BGP; }; merge paths yes; }
protocol kernel { ipv6 { table t1v6; export where source = RTS_BGP; }; merge paths yes; }
template bgp server {
  passive; strict bind; multihop 5; password "s3cret";
  hold time 9; keepalive time 3; error wait time 1, 2; startup hold time 9;
}
protocol bgp tor1 from server { local 169.254.255.1 as 65530; dynamic name "tor1_"; neighbor range 10.70.0.0/16 as 65000;
  ipv4 { table t1v4; igp table master4; import all; export where source = RTS_STATIC; }; }
protocol bgp tor1v6 from server { local fc00::e as 65530; dynamic name "six_"; neighbor range fd70::/16 as 65000;
  ipv6 { table t1v6; igp table master6; import all; export none; }; }
protocol bgp tor2 from server { router id 169.254.255.2; local 169.254.255.2 as 65531; dynamic name "tor2_"; neighbor range 10.70.0.0/16 port 1790 as 65000;
  ipv4 { table t2v4; igp table master4; import all; export none; }; }
protocol bgp tor2v6 from server { router id 169.254.255.2; local fc00::f as 65531; dynamic name "six2_"; neighbor range fd70::/16 port 1790 as 65000;
  ipv6 { table t2v6; igp table master6; import all; export none; }; }
`

// rack is the routers' namespace, in which the test itself runs.
type rack struct {
	t      *testing.T
	socket string        // of BIRD
	dump   func() string // what the routers know, for a test that failed
}

// newRack gives the namespace the routers' addresses, or skips the test.
func newRack(t *testing.T, program, pkg string) *rack {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("sessions with a real router are tested as root only, in network namespaces")
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("sessions with this router need %s of the package %s: test/need.sh test installs it", program, pkg)
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	for _, a := range []string{"169.254.255.1/32", "169.254.255.2/32", "169.254.255.3/32", "fc00::e/128", "fc00::f/128"} {
		// Without NODAD an IPv6 address is tentative for a moment; BIRD cannot bind to it
		// then, and does not try again.
		must(t, netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}))
	}
	return &rack{t: t, dump: func() string { return "" }}
}

// daemon runs a router's program until the test ends.
func (r *rack) daemon(program string, args ...string) {
	r.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = r.t.Output(), r.t.Output()
	must(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func startRack(t *testing.T) *rack {
	t.Helper()
	r := newRack(t, "bird", "bird2")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "bird.conf"), []byte(birdConfig), 0o600))
	r.socket = filepath.Join(dir, "bird.ctl")
	r.dump = func() string { return r.birdc("show", "route", "all", "table", "all") }
	r.daemon("bird", "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", r.socket, "-P", filepath.Join(dir, "bird.pid"))
	r.within(5*time.Second, "BIRD answers", func() bool { return strings.Contains(r.birdc("show", "status"), "up and running") })
	return r
}

func (r *rack) birdc(args ...string) string {
	out, _ := exec.Command("birdc", append([]string{"-s", r.socket}, args...)...).CombinedOutput()
	return string(out)
}

// hops returns the next hops of p in the first router's kernel, sorted.
func (r *rack) hops(p netip.Prefix) []string {
	r.t.Helper()
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: ipNet(p), Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	must(r.t, err)
	var hops []string
	for _, route := range list {
		if route.Gw != nil {
			hops = append(hops, route.Gw.String())
		}
		for _, hop := range route.MultiPath {
			hops = append(hops, hop.Gw.String())
		}
	}
	slices.Sort(hops)
	return hops
}

// hops2 returns the next hops of p at the second router.
func (r *rack) hops2(p netip.Prefix) []string {
	var hops []string
	table := "t2v4"
	if p.Addr().Is6() {
		table = "t2v6"
	}
	for line := range strings.Lines(r.birdc("show", "route", "table", table, p.String())) {
		if _, hop, ok := strings.Cut(line, "via "); ok {
			hops = append(hops, strings.Fields(hop)[0])
		}
	}
	slices.Sort(hops)
	return hops
}

// within polls what other processes bring about, and says how long it took.
func (r *rack) within(d time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	begin := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begin) > d {
			r.t.Fatalf("not within %v: %s\n%s", d, what, r.dump())
		}
		<-tick.C
	}
	took := time.Since(begin)
	r.t.Logf("%s after %v", what, took.Round(time.Millisecond))
	return took
}

func (r *rack) expectHops(d time.Duration, what string, p netip.Prefix, want ...string) {
	r.t.Helper()
	r.within(d, what, func() bool { return slices.Equal(r.hops(p), want) })
}

// serverDevice is server n of the rack: 10.70.n.1 behind 10.70.n.0.
func serverDevice(n int, password string) device.Device {
	v4 := netip.AddrFrom4([4]byte{10, 70, byte(n), 1})
	d := device.Device{
		Addresses: []device.Address{
			{Prefix: netip.PrefixFrom(v4, 31), Gateway: v4.Prev()},
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd70:%d::1/127", n)), Gateway: netip.MustParseAddr(fmt.Sprintf("fd70:%d::", n))},
		},
	}
	d.BGPNeighbors = []device.Neighbor{
		{Family: 4, CustomerAS: 65000, CustomerIP: v4, PeerAS: 65530, Multihop: true, MD5: password,
			PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1")}},
		{Family: 4, CustomerAS: 65000, CustomerIP: v4, PeerAS: 65531, Multihop: true, MD5: password,
			PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.2")}},
		{Family: 6, CustomerAS: 65000, PeerAS: 65530, Multihop: true, MD5: password,
			PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::e")}},
		{Family: 6, CustomerAS: 65000, PeerAS: 65531, Multihop: true, MD5: password,
			PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::f")}},
	}
	return d
}

func (s *testServer) status() Status {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	st, err := s.Status(ctx)
	must(s.t, err)
	return st
}

func TestAnnounceToBIRD(t *testing.T) {
	r := startRack(t)
	both := []netip.Prefix{eip, eip6}
	one := startServer(t, "one", serverConfig{Device: serverDevice(1, "s3cret"), EIPs: both})
	two := startServer(t, "two", serverConfig{Device: serverDevice(2, "s3cret"), EIPs: both})

	r.expectHops(10*time.Second, "two servers announce", eip, "10.70.1.1", "10.70.2.1")
	r.within(5*time.Second, "so they do to the second router", func() bool { return slices.Equal(r.hops2(eip), []string{"10.70.1.1", "10.70.2.1"}) })
	r.expectHops(5*time.Second, "and over IPv6", eip6, "fd70:1::1", "fd70:2::1")
	r.within(5*time.Second, "to the second router too", func() bool { return slices.Equal(r.hops2(eip6), []string{"fd70:1::1", "fd70:2::1"}) })
	expectAllUp(t, one)
	if got := r.hops2(netip.MustParsePrefix("203.0.113.0/24")); len(got) > 0 {
		t.Errorf("servers %v carry a route from one router to the other", got)
	}

	one.tell("api health 500")
	r.expectHops(3*time.Second, "not ready: withdrawn", eip, "10.70.2.1")
	if st := one.status(); st.Healthy || !strings.Contains(st.Health, "500") || len(st.Announced) > 0 {
		t.Errorf("status %+v, want nothing announced because of status 500", st)
	}
	one.tell("api health 200")
	r.expectHops(3*time.Second, "ready again: announced", eip, "10.70.1.1", "10.70.2.1")

	one.tell("lo- " + eip.String())
	r.expectHops(time.Second, "off lo: withdrawn", eip, "10.70.2.1")
	if got := r.hops(eip6); len(got) != 2 {
		t.Errorf("next hops of the other prefix %v, want two", got)
	}
	one.tell("lo+ " + eip.String())
	r.expectHops(time.Second, "on lo again: announced", eip, "10.70.1.1", "10.70.2.1")

	must(t, one.Withhold(t.Context(), eip, true))
	r.expectHops(time.Second, "withheld: withdrawn when the call returns", eip, "10.70.2.1")
	must(t, one.Withhold(t.Context(), eip, false))
	r.expectHops(time.Second, "let go: announced", eip, "10.70.1.1", "10.70.2.1")

	one.tell("plan " + eip6.String())
	r.expectHops(time.Second, "out of the plan: withdrawn", eip, "10.70.2.1")
	expectAllUp(t, one)
	one.tell("write " + eip.String() + " " + eip6.String())
	must(t, one.Reload(t.Context()))
	r.expectHops(time.Second, "in the plan again: announced", eip, "10.70.1.1", "10.70.2.1")

	logMemory(t, one)
	must(t, one.cmd.Process.Kill())
	r.expectHops(time.Second, "killed: withdrawn", eip, "10.70.2.1")
	must(t, two.cmd.Process.Signal(syscall.SIGTERM))
	r.expectHops(time.Second, "terminated: withdrawn", eip)
	if err := two.wait(); err != nil {
		t.Errorf("a terminated speaker ended with %v, want exit 0", err)
	}
}

func expectAllUp(t *testing.T, s *testServer) {
	t.Helper()
	st := s.status()
	if len(st.Peers) != 4 {
		t.Errorf("%d sessions in status, want 4", len(st.Peers))
	}
	for _, p := range st.Peers {
		if p.State != "established" || p.Reason != "" {
			t.Errorf("session %+v, want established", p)
		}
		if ago := time.Since(p.Since); ago < -time.Second || ago > time.Minute {
			t.Errorf("session %+v is up since %v, want a moment ago", p, ago)
		}
	}
}

// logMemory notes what a speaker takes, with the test's fake API server in it.
func logMemory(t *testing.T, s *testServer) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestWithdrawalIsQuick: a withdrawal is in the router's table when the
// call returns, give or take the router, and does not wait for the limit.
func TestWithdrawalIsQuick(t *testing.T) {
	r := startRack(t)
	one := startServer(t, "quick", serverConfig{Device: serverDevice(5, "s3cret"), EIPs: []netip.Prefix{eip, eip6}})
	r.expectHops(10*time.Second, "announced", eip, "10.70.5.1")
	r.expectHops(10*time.Second, "announced over IPv6", eip6, "fd70:5::1")
	r.within(5*time.Second, "all sessions up", func() bool { return len(r.hops2(eip)) == 1 })
	begin := time.Now()
	must(t, one.Withhold(t.Context(), eip, true))
	if d := time.Since(begin); d > flushTime/2 {
		t.Errorf("the withdrawal took %v, want far below the limit of %v", d, flushTime)
	}
	r.expectHops(time.Second, "gone", eip)
}

func TestPlanRoundTrip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "announce.json")
	b, err := MarshalPlan(goodPlan())
	must(t, err)
	must(t, os.WriteFile(file, b, 0o600))
	got, err := ReadPlan(file)
	must(t, err)
	if !slices.Equal(got.Peers, goodPlan().Peers) {
		t.Errorf("peers %v, want %v", got.Peers, goodPlan().Peers)
	}
	if _, err := MarshalPlan(plan.Announcement{}); err == nil {
		t.Error("an empty plan was written")
	}
}
