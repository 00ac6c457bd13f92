package network

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

// inNamespace is set in the environment of the copy of this test binary that
// runs in a network namespace of its own.
const inNamespace = "MUSTER_NETWORK_TEST_NAMESPACE"

// TestMain runs the tests in a fresh network namespace when it may make one, so
// that they see the real kernel and leave nothing behind.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
}

func needNamespace(t *testing.T) {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("the real kernel's lo and routes are tested as root only, in a network namespace")
	}
}

func ip(s string) netip.Addr       { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var (
	netipValues = cmp.Options{
		cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	eip     = prefix("147.75.194.92/32")
	eip6    = prefix("2604:1380:1:4f00::92/128")
	tor     = plan.Route{Dst: prefix("169.254.255.1/32"), Via: ip("10.99.14.8"), Src: ip("10.99.14.9")}
	tor6    = plan.Route{Dst: prefix("fc00::e/128"), Via: ip("fd00:1::8"), Src: ip("fd00:1::9")}
	planned = plan.Network{Addresses: []netip.Prefix{eip, eip6}, Routes: []plan.Route{tor, tor6}}
)

// world is a kernel under test: the fake one, or the namespace's own.
type world struct {
	reconciler func(t *testing.T) *Reconciler // with a state file that stays the same
	lo         loopback
	table      routingTable
}

func fakeWorld(t *testing.T) world {
	k := &fakeKernel{
		addresses: []address{{Prefix: prefix("127.0.0.1/8"), Label: "lo", Host: true}},
		subnets:   map[int]netip.Prefix{2: prefix("10.99.14.9/31"), 3: prefix("fd00:1::9/127"), 4: prefix("10.98.0.1/32")},
	}
	return newWorld(t, k, k)
}

// kernelWorld gives the namespace a link with the private addresses and takes it
// away after the test, with everything on lo.
func kernelWorld(t *testing.T) world {
	needNamespace(t)
	lo := mustLink(t, "lo")
	must(t, netlink.LinkSetUp(lo))
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up1"}))
	up := mustLink(t, "up0")
	t.Cleanup(func() {
		must(t, netlink.LinkDel(up))
		list, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
		must(t, err)
		for _, a := range list {
			if !a.IP.IsLoopback() {
				must(t, netlink.AddrDel(lo, &a))
			}
		}
	})
	for _, name := range []string{"up0", "up1"} {
		// A link-local address would come a second later, with events.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, netlink.LinkSetUp(mustLink(t, name)))
	}
	for _, name := range []string{"up0", "up1"} {
		within(t, patience, name+" has a carrier", func() bool { return mustLink(t, name).Attrs().OperState == netlink.OperUp })
	}
	setLinkAddresses(t)
	settle(t)
	return newWorld(t, kernelLoopback{}, kernelTable{})
}

func setLinkAddresses(t *testing.T) {
	t.Helper()
	up := mustLink(t, "up0")
	for _, p := range []string{"10.99.14.9/31", "fd00:1::9/127", "10.98.0.1/32"} {
		a := &netlink.Addr{IPNet: ipNet(prefix(p)), ValidLft: math.MaxUint32, PreferedLft: math.MaxUint32}
		if prefix(p).Addr().Is6() {
			a.Flags = 2 // no duplicate detection, which would take a second
		}
		must(t, netlink.AddrReplace(up, a))
	}
}

// patience is for the kernel's own work, on a machine that is busy.
const patience = 10 * time.Second

// settle waits for what the kernel does after the call that adds an IPv6 address
// has returned: a worker of its own adds the route to the address, and both
// events come then.
func settle(t *testing.T) {
	t.Helper()
	within(t, patience, "every IPv6 address has its route", func() bool {
		routed := map[string]bool{}
		local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
		routes, err := dump("local routes", func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		must(t, err)
		for _, r := range routes {
			routed[r.Dst.IP.String()] = true
		}
		addresses, err := dump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V6) })
		must(t, err)
		return !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return !routed[a.IP.String()] })
	})
	// A route is listed before its event is sent, but both under the table's lock:
	// who has held it since has the event behind him.
	barrier := &netlink.Route{Dst: ipNet(prefix("100::1/128")), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE}
	must(t, netlink.RouteAdd(barrier))
	must(t, netlink.RouteDel(barrier))
}

func newWorld(t *testing.T, lo loopback, table routingTable) world {
	stateFile := filepath.Join(t.TempDir(), "network.json")
	return world{lo: lo, table: table, reconciler: func(t *testing.T) *Reconciler {
		r := New(stateFile, testLog(t))
		r.lo, r.table = lo, table
		return r
	}}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onLo returns the addresses of lo that are not 127/8 or ::1.
func (w world) onLo(t *testing.T) []address {
	t.Helper()
	list, err := w.lo.ListAddresses()
	must(t, err)
	list = slices.DeleteFunc(list, func(a address) bool { return a.Prefix.Addr().IsLoopback() })
	slices.SortFunc(list, func(a, b address) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return list
}

// routes returns the routes to the two routers, without interface index.
func (w world) routes(t *testing.T) []route {
	t.Helper()
	list, err := w.table.ListRoutes()
	must(t, err)
	var out []route
	for _, r := range list {
		if r.Dst == tor.Dst || r.Dst == tor6.Dst {
			r.Link = 0
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b route) int { return a.Dst.Addr().Compare(b.Dst.Addr()) })
	return out
}

var (
	ourEIP   = address{Prefix: eip, Label: AddressLabel, Host: true}
	ourEIP6  = address{Prefix: eip6}
	ourTor   = route{Route: tor, Protocol: RouteProtocol}
	ourTor6  = route{Route: tor6, Protocol: RouteProtocol, Metric: 1024}
	bootProt = 3 // "proto boot", what a person's `ip route add` makes
)

// TestSuite holds for every kernel.
func TestSuite(t *testing.T) {
	cases := []struct {
		name string
		run  func(t *testing.T, w world)
	}{
		{"applies the plan and does nothing the second time", testApply},
		{"removes what the plan no longer holds", testRemoveUnplanned},
		{"knows its addresses after a restart", testRestart},
		{"leaves foreign things alone", testForeign},
		{"corrects its own address and route", testCorrect},
		{"a foreign route in the way is an error", testRouteInTheWay},
		{"removes one address on order", testRemoveAddress},
		{"a source that is not there yet", testNoSource},
		{"a gateway outside every subnet", testOnlink},
		{"says what it would write", testLook},
	}
	for _, kernel := range []struct {
		name string
		make func(t *testing.T) world
	}{{"fake", fakeWorld}, {"kernel", kernelWorld}} {
		for _, tc := range cases {
			t.Run(kernel.name+"/"+tc.name, func(t *testing.T) { tc.run(t, kernel.make(t)) })
		}
	}
}

func (w world) expect(t *testing.T, addresses []address, routes []route) {
	t.Helper()
	if diff := cmp.Diff(addresses, w.onLo(t), netipValues); diff != "" {
		t.Errorf("addresses on lo (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(routes, w.routes(t), netipValues); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func testApply(t *testing.T, w world) {
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), planned))
	w.expect(t, []address{ourEIP, ourEIP6}, []route{ourTor, ourTor6})
	got, err := r.Addresses()
	must(t, err)
	if diff := cmp.Diff(planned.Addresses, got, netipValues); diff != "" {
		t.Errorf("Addresses (-want +got):\n%s", diff)
	}
	quiet := countWrites(t, w)
	must(t, r.Apply(t.Context(), planned))
	if n := quiet(); n != 0 {
		t.Errorf("the second pass wrote %d times, want 0", n)
	}
}

func testRemoveUnplanned(t *testing.T, w world) {
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), planned))
	must(t, r.Apply(t.Context(), plan.Network{Routes: []plan.Route{tor}}))
	w.expect(t, nil, []route{ourTor})
	must(t, r.Apply(t.Context(), plan.Network{}))
	w.expect(t, nil, nil)
}

func testRestart(t *testing.T, w world) {
	must(t, w.reconciler(t).Apply(t.Context(), planned))
	second := w.reconciler(t)
	got, err := second.Addresses()
	must(t, err)
	if diff := cmp.Diff(planned.Addresses, got, netipValues); diff != "" {
		t.Errorf("Addresses after a restart (-want +got):\n%s", diff)
	}
	must(t, second.Apply(t.Context(), plan.Network{}))
	w.expect(t, nil, nil)
}

func testForeign(t *testing.T, w world) {
	other, other6 := address{Prefix: eip, Label: "lo", Host: false}, address{Prefix: prefix("2604:1380:1:4f00::93/128")}
	must(t, w.lo.AddAddress(other))
	must(t, w.lo.AddAddress(other6))
	theirs := route{Route: plan.Route{Dst: tor.Dst, Via: tor.Via}, Protocol: bootProt}
	link, _, err := w.table.Egress(tor.Src, tor.Via)
	must(t, err)
	add := theirs
	add.Link = link
	must(t, w.table.ReplaceRoute(add))
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), plan.Network{Addresses: []netip.Prefix{eip}, Routes: []plan.Route{tor}}))
	w.expect(t, []address{other, other6}, []route{theirs})
	must(t, r.Apply(t.Context(), plan.Network{}))
	w.expect(t, []address{other, other6}, []route{theirs})
	if err := r.RemoveAddress(t.Context(), eip); err == nil || !strings.Contains(err.Error(), "not added by muster") {
		t.Errorf("RemoveAddress of a foreign address: %v, want a refusal", err)
	}
	w.expect(t, []address{other, other6}, []route{theirs})
}

func testCorrect(t *testing.T, w world) {
	must(t, w.lo.AddAddress(address{Prefix: eip, Label: AddressLabel})) // scope global
	link, _, err := w.table.Egress(tor.Src, tor.Via)
	must(t, err)
	must(t, w.table.ReplaceRoute(route{Route: plan.Route{Dst: tor.Dst, Via: tor.Via}, Protocol: RouteProtocol, Link: link}))
	must(t, w.reconciler(t).Apply(t.Context(), plan.Network{Addresses: []netip.Prefix{eip}, Routes: []plan.Route{tor}}))
	w.expect(t, []address{ourEIP}, []route{ourTor})
}

func testRouteInTheWay(t *testing.T, w world) {
	link, _, err := w.table.Egress(tor.Src, tor.Via)
	must(t, err)
	theirs := route{Route: plan.Route{Dst: tor.Dst, Via: ip("10.98.0.2"), Src: ip("10.98.0.1")}, Protocol: bootProt, Link: link, Onlink: true}
	if f, ok := w.table.(*fakeKernel); ok {
		theirs.Link = 4
		theirs.Via = ip("10.98.0.1")
		f.subnets[4] = prefix("10.98.0.1/32")
		theirs.Onlink = false
	}
	must(t, w.table.ReplaceRoute(theirs))
	err = w.reconciler(t).Apply(t.Context(), plan.Network{Addresses: []netip.Prefix{eip}, Routes: []plan.Route{tor}})
	if err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("error %v, want one that names the route in the way", err)
	}
	theirs.Link = 0
	w.expect(t, []address{ourEIP}, []route{theirs})
}

func testRemoveAddress(t *testing.T, w world) {
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), planned))
	must(t, r.RemoveAddress(t.Context(), eip))
	must(t, r.RemoveAddress(t.Context(), eip)) // not there: no error
	must(t, r.lockedPass(t.Context()))         // and no pass brings it back
	w.expect(t, []address{ourEIP6}, []route{ourTor, ourTor6})
	if f, ok := w.lo.(*fakeKernel); ok && !slices.Contains(f.destroyed, eip.Addr()) {
		t.Error("the connections of the removed address were not destroyed")
	}
}

func testNoSource(t *testing.T, w world) {
	early := plan.Route{Dst: tor.Dst, Via: ip("10.97.0.0"), Src: ip("10.97.0.1")}
	err := w.reconciler(t).Apply(t.Context(), plan.Network{Addresses: []netip.Prefix{eip}, Routes: []plan.Route{early, tor6}})
	if err == nil || !strings.Contains(err.Error(), "10.97.0.1 is on no interface") {
		t.Errorf("error %v, want one that names the missing source", err)
	}
	w.expect(t, []address{ourEIP}, []route{ourTor6})
}

func testOnlink(t *testing.T, w world) {
	far := plan.Route{Dst: tor.Dst, Via: ip("10.98.9.9"), Src: ip("10.98.0.1")}
	must(t, w.reconciler(t).Apply(t.Context(), plan.Network{Routes: []plan.Route{far}}))
	w.expect(t, nil, []route{{Route: far, Protocol: RouteProtocol, Onlink: true}})
}
