package network

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/mustermetal/muster/pkg/device"
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// TestLinksOf: two ports in a bond that shows one address, a VLAN on it, and what
// Kubernetes brings.
func TestLinksOf(t *testing.T) {
	attrs := func(index int, name, address string, master, parent int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, Name: name, HardwareAddr: mac(address), MasterIndex: master, ParentIndex: parent}
	}
	eno1, eno2 := attrs(2, "eno1", "3c:ec:ef:00:00:01", 4, 0), attrs(3, "eno2", "3c:ec:ef:00:00:01", 4, 0)
	eno1.Slave = &netlink.BondSlave{PermHardwareAddr: mac("3c:ec:ef:00:00:01")}
	eno2.Slave = &netlink.BondSlave{PermHardwareAddr: mac("3c:ec:ef:00:00:02")}
	list := []netlink.Link{
		&netlink.Device{LinkAttrs: eno1}, &netlink.Device{LinkAttrs: eno2},
		&netlink.Bond{LinkAttrs: attrs(4, "bond0", "3c:ec:ef:00:00:01", 0, 0)},
		&netlink.Vlan{LinkAttrs: attrs(5, "bond0.7", "3c:ec:ef:00:00:01", 0, 4)},
		&netlink.Bridge{LinkAttrs: attrs(6, "cni0", "da:00:00:00:00:01", 0, 0)},
		&netlink.Veth{LinkAttrs: attrs(7, "veth1", "da:00:00:00:00:02", 6, 2)}, // its peer has index 2 elsewhere
	}
	ipnet := func(s string) *net.IPNet {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	addresses := []netlink.Addr{
		{IPNet: ipnet("147.75.1.3/31"), LinkIndex: 4}, {IPNet: ipnet("10.99.14.9/31"), LinkIndex: 4}, {IPNet: ipnet("fe80::1/64"), LinkIndex: 4},
		{IPNet: ipnet("10.7.0.2/24"), LinkIndex: 5}, {IPNet: ipnet("10.244.1.1/24"), LinkIndex: 6},
	}
	routes := []netlink.Route{
		{LinkIndex: 4, Gw: net.ParseIP("147.75.1.2")},
		{LinkIndex: 4, Dst: ipnet("10.0.0.0/8"), Gw: net.ParseIP("10.99.14.8")},
		{Dst: ipnet("::/0"), MultiPath: []*netlink.NexthopInfo{{LinkIndex: 5, Gw: net.ParseIP("fe80::9")}, {LinkIndex: 4, Gw: net.ParseIP("fe80::8")}}},
	}
	got := linksOf(list, addresses, routes, []string{"3c:ec:ef:00:00:01", "3c:ec:ef:00:00:02"})
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	want := []device.Link{
		{Name: "bond0", Own: true, MAC: "3c:ec:ef:00:00:01", Addresses: prefixes("147.75.1.3/31", "10.99.14.9/31"), Defaults: addrs("147.75.1.2", "fe80::8"), Hops: addrs("10.99.14.8")},
		{Name: "bond0.7", Own: true, MAC: "3c:ec:ef:00:00:01", Addresses: prefixes("10.7.0.2/24"), Defaults: addrs("fe80::9")},
		{Name: "cni0", MAC: "da:00:00:00:00:01", Addresses: prefixes("10.244.1.1/24")},
		{Name: "eno1", Own: true, Bond: "bond0", MAC: "3c:ec:ef:00:00:01"},
		{Name: "eno2", Own: true, Bond: "bond0", MAC: "3c:ec:ef:00:00:02"},
		{Name: "veth1", MAC: "da:00:00:00:00:02"},
	}
	if diff := cmp.Diff(want, got, netipValues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLinksOfKernel reads a real kernel's: the port that has an address of its
// machine, a link that stands on it, and its other end, which is no port.
func TestLinksOfKernel(t *testing.T) {
	needNamespace(t)
	const own = "40:a6:b7:00:00:07"
	port := netlink.LinkAttrs{Name: "port0", HardwareAddr: mac(own)}
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: port, PeerName: "far0"}))
	link := mustLink(t, "port0")
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	must(t, netlink.LinkSetUp(link))
	must(t, netlink.LinkSetUp(mustLink(t, "far0")))
	must(t, netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "port0.7", ParentIndex: link.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}))
	must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix("10.98.7.9/31"))}))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(prefix("10.98.0.0/16")), Gw: net.ParseIP("10.98.7.8")}))
	got, err := Links([]string{own})
	must(t, err)
	var of []device.Link
	for _, l := range got {
		if l.Name == "port0" || l.Name == "port0.7" || l.Name == "far0" {
			l.MAC = ""
			of = append(of, l)
		}
	}
	want := []device.Link{
		{Name: "far0"},
		{Name: "port0", Own: true, Addresses: []netip.Prefix{prefix("10.98.7.9/31")}, Hops: []netip.Addr{ip("10.98.7.8")}},
		{Name: "port0.7", Own: true},
	}
	if diff := cmp.Diff(want, of, netipValues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
