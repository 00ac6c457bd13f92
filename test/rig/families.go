package rig

import (
	"fmt"
	"net/netip"

	"github.com/mustermetal/muster/test/rig/metadata"
)

// Stack are the address families of servers and of the cluster that they form.
type Stack string

// Stacks. Servers with both are told of both; their IPv4 address comes first.
const (
	IPv4      Stack = ""
	DualStack Stack = "dual-stack"
	IPv6      Stack = "IPv6"
)

// The fabric in IPv6: the routers have the addresses of the Packet shape, the ranges
// of pods and Services are those of the guide that users followed for both families.
var (
	Routers6      = []netip.Addr{netip.MustParseAddr("fc00::e"), netip.MustParseAddr("fc00::f")}
	MetadataAddr6 = netip.MustParseAddr("fc00::a9fe:a9fe")
	ServerRange6  = netip.MustParsePrefix("fd66::/64") // private addresses
	PodRange6     = netip.MustParsePrefix("fd01::/64") // server i has fd01:0:0:0:i::/80
	ServiceRange6 = netip.MustParsePrefix("fd98::/108")
	ElasticIP6    = netip.MustParseAddr("2604:1380:1:1::92")
)

// Line is one address family of a server's link to the ToR.
type Line struct {
	Addr, Gateway netip.Addr
	Pods          netip.Prefix // of the CNI on this server
	Routers       []netip.Addr
	ElasticIP     netip.Prefix
	servers       netip.Prefix // what Addr is cut from
	nodad         []string     // has ip(8) not look for a second owner of an address
}

// Link is the address with its length.
func (l Line) Link() netip.Prefix { return netip.PrefixFrom(l.Addr, l.Addr.BitLen()-1) }

// family is ip(8)'s word for that of an address.
func family(a netip.Addr) string {
	if a.Is6() {
		return "-6"
	}
	return "-4"
}

// lines are those of the server at a place of the fabric, the first family first.
func (s Stack) lines(index int) []Line {
	four := Line{Pods: podRange(index), Routers: Routers, ElasticIP: netip.PrefixFrom(ElasticIP, 32), servers: ServerRange}
	four.Gateway, four.Addr = link(index)
	at := func(from netip.Prefix, group, last int) netip.Addr {
		a := from.Addr().As16()
		a[2*group], a[2*group+1], a[15] = byte(index>>8), byte(index), byte(last)
		return netip.AddrFrom16(a)
	}
	six := Line{
		Gateway: at(ServerRange6, 6, 0), Addr: at(ServerRange6, 6, 1), Pods: netip.PrefixFrom(at(PodRange6, 4, 0), 80),
		Routers: Routers6, ElasticIP: netip.PrefixFrom(ElasticIP6, 128), servers: ServerRange6, nodad: []string{"nodad"},
	}
	switch s {
	case DualStack:
		return []Line{four, six}
	case IPv6:
		return []Line{six}
	}
	return []Line{four}
}

// metadataURL is where servers of the stack ask.
func (s Stack) metadataURL() string {
	if s == IPv6 {
		return "http://" + netip.AddrPortFrom(MetadataAddr6, 80).String()
	}
	return MetadataURL
}

// ranges are those of the cluster file: pods, Services, Elastic IPs.
func (s Stack) ranges() (pods, services, elastic []netip.Prefix) {
	for _, l := range s.lines(1) {
		elastic = append(elastic, l.ElasticIP)
		if l.Addr.Is6() {
			pods, services = append(pods, PodRange6), append(services, ServiceRange6)
		} else {
			pods, services = append(pods, PodRange), append(services, ServiceRange)
		}
	}
	return pods, services, elastic
}

// Lines are the families of the server's link, the first family first.
func (s *Server) Lines() []Line { return s.Stack.lines(s.Index) }

// wireLine is what makes one family of the link, after both its ends are there.
func (s *Server) wireLine(l Line) [][]string {
	tor, veth := s.rig.torName(), "v-"+s.Name
	add := func(netns string, a netip.Addr, dev string) []string {
		return append([]string{"ip", "-n", netns, "addr", "replace", netip.PrefixFrom(a, a.BitLen()-1).String(), "dev", dev}, l.nodad...)
	}
	return [][]string{
		add(s.machine(), l.Addr, "eth0"), add(tor, l.Gateway, veth),
		{"ip", "-n", tor, family(l.Addr), "route", "replace", l.Pods.String(), "via", l.Addr.String()},
	}
}

// toldFamilies are addresses and BGP neighbours as metadata say them.
func (s *Server) toldFamilies() (addresses []metadata.Address, neighbours []metadata.Neighbor) {
	for _, l := range s.Lines() {
		addresses = append(addresses, metadata.Address{Address: l.Link(), Gateway: l.Gateway, Block: l.servers})
		neighbours = append(neighbours, metadata.Neighbor{CustomerAS: ServerAS, CustomerIP: l.Addr, PeerAS: RouterAS, PeerIPs: l.Routers, MD5: md5, Multihop: true})
	}
	return addresses, neighbours
}

// table is the name of a BIRD table of router 0 or 1.
func table(router int, p netip.Prefix) string {
	if p.Addr().Is6() {
		return fmt.Sprintf("t%dv6", router+1)
	}
	return fmt.Sprintf("t%dv4", router+1)
}
