package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/device"
)

// Links returns the interfaces of this network namespace, with their addresses and
// the next hops of the main table. ports are the MAC addresses of
// the machine's own ports.
func Links(ports []string) ([]device.Link, error) {
	list, err := dump("interfaces", netlink.LinkList)
	if err != nil {
		return nil, err
	}
	addresses, err := dump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var routes []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		some, err := dump("routes", func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, err
		}
		routes = append(routes, some...)
	}
	return linksOf(list, addresses, routes, ports), nil
}

// linksOf is the pure part of Links.
func linksOf(list []netlink.Link, addresses []netlink.Addr, routes []netlink.Route, ports []string) []device.Link {
	own := ownLinks(list, ports)
	var out []device.Link
	for _, l := range list {
		a := l.Attrs()
		link := device.Link{Name: a.Name, Own: own[a.Index], MAC: permanentMAC(a), Bond: bondOf(list, a)}
		for _, addr := range addresses {
			if p, ok := prefixOf(addr.IPNet); ok && addr.LinkIndex == a.Index && !p.Addr().IsLinkLocalUnicast() {
				link.Addresses = append(link.Addresses, p)
			}
		}
		for _, r := range routes {
			hops := &link.Hops
			if p, ok := prefixOf(r.Dst); !ok || p.Bits() == 0 {
				hops = &link.Defaults
			}
			*hops = append(*hops, hopsOf(r, a.Index)...)
		}
		out = append(out, link)
	}
	slices.SortFunc(out, func(a, b device.Link) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ownLinks are the ports by their permanent addresses, and what stands on them: the
// bond or bridge that a port is a member of, and VLANs of either.
func ownLinks(list []netlink.Link, ports []string) map[int]bool {
	own := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for _, l := range list {
			a := l.Attrs()
			// Both ends of a veth name each other as parents.
			stands := l.Type() != "veth" && own[a.ParentIndex]
			for _, member := range list {
				stands = stands || member.Attrs().MasterIndex == a.Index && own[member.Attrs().Index]
			}
			if !own[a.Index] && (stands || slices.Contains(ports, permanentMAC(a)) && l.Type() != "vlan") {
				own[a.Index], grown = true, true
			}
		}
	}
	return own
}

// permanentMAC is the address that the hardware has; members of a bond show the
// bond's as their own.
func permanentMAC(a *netlink.LinkAttrs) string {
	if slave, ok := a.Slave.(*netlink.BondSlave); ok && len(slave.PermHardwareAddr) > 0 {
		return slave.PermHardwareAddr.String()
	}
	if len(a.PermHWAddr) > 0 {
		return a.PermHWAddr.String()
	}
	return a.HardwareAddr.String()
}

func bondOf(list []netlink.Link, a *netlink.LinkAttrs) string {
	for _, l := range list {
		if l.Attrs().Index == a.MasterIndex && a.MasterIndex != 0 && l.Type() == "bond" {
			return l.Attrs().Name
		}
	}
	return ""
}

// hopsOf are the next hops of a route by an interface.
func hopsOf(r netlink.Route, index int) []netip.Addr {
	var out []netip.Addr
	add := func(link int, gw []byte) {
		if a, ok := netip.AddrFromSlice(gw); ok && link == index {
			out = append(out, a.Unmap())
		}
	}
	add(r.LinkIndex, r.Gw)
	for _, hop := range r.MultiPath {
		add(hop.LinkIndex, hop.Gw)
	}
	return out
}
