package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// static checks what the file says of servers. A server's own file may describe it
// alone (userdata.Server), and says nothing of the others.
func (v *validator) static(server bool) {
	const at = "spec.static"
	servers := v.Spec.Static
	if v.Spec.Platform == PlatformStatic {
		v.describesAll(at, servers, server)
	}
	ids, names, addresses := map[string]int{}, map[string]int{}, map[string]int{}
	for i, s := range servers {
		p := index(at, i)
		v.match(p+".match", s.Match)
		v.described(p, s)
		v.name(p+".hostname", s.Hostname)
		v.once(p+".id", ids, s.ID, i)
		v.once(p+".hostname", names, s.Hostname, i)
		private := false
		for j, a := range s.Addresses {
			q := fmt.Sprintf("%s.addresses[%d]", p, j)
			if a.Address.IsValid() {
				v.once(q+".address", addresses, a.Address.Addr().String(), i)
			}
			v.staticAddress(q, a)
			private = private || !a.Public
		}
		if len(s.Addresses) > 0 && !private && v.fine(p+".addresses") {
			v.errorf(p+".addresses", "add the private address, or remove public: true from one", "all are public, and muster listens on private addresses only")
		}
		for j, n := range s.BGPNeighbors {
			v.neighbor(fmt.Sprintf("%s.bgpNeighbors[%d]", p, j), n)
		}
		v.oneSession(p+".bgpNeighbors", s.BGPNeighbors)
	}
	if !server {
		v.someNeighbor(servers)
	}
}

// describesAll checks that platform static describes every server.
func (v *validator) describesAll(at string, servers []StaticServer, server bool) {
	n := 0
	for _, s := range servers {
		if !s.Match.All {
			n++
		}
	}
	if expect := v.Spec.Servers.Expect; n == 0 {
		v.missing(at, "platform static needs every server: - {match: {hostname: cp1}, id: cp1, hostname: cp1, addresses: [{address: 10.99.14.9/31, gateway: 10.99.14.8}]}")
	} else if n < expect && v.fine("spec.servers.expect") && !server && !v.formed {
		v.errorf(at, "describe every server that gets this user-data", "describes %s, but %s expected", count(n, "server"), are(expect, "server"))
	} else if !server {
		v.enough(servers)
	}
}

// described checks that an entry says what it must: all of a server on platform
// static, and nothing of one server where it is for all.
func (v *validator) described(path string, s StaticServer) {
	for _, field := range []struct {
		key, example string
		given        bool
	}{
		{"id", "rack1-u7", s.ID != ""}, {"hostname", "cp1", s.Hostname != ""},
		{"addresses", "[{address: 10.99.14.9/31, gateway: 10.99.14.8}]", len(s.Addresses) > 0},
	} {
		switch at := path + "." + field.key; {
		case s.Match.All && field.given:
			v.errorf(at, "write it into an entry of that server's own", "cannot be the same for all servers")
		case v.Spec.Platform == PlatformStatic && !s.Match.All && !field.given:
			v.missing(at, "such as "+field.key+": "+field.example)
		}
	}
}

// tellsNoBGP are platforms whose metadata have no place for BGP neighbours.
var tellsNoBGP = []string{PlatformEC2, PlatformHetzner, PlatformLatitude}

// oneSession checks that a server has one session with a router: the router takes
// no second one from the same address.
func (v *validator) oneSession(path string, neighbors []StaticNeighbor) {
	seen := map[netip.Addr]string{}
	for i, n := range neighbors {
		for j, a := range n.PeerIPs {
			p := fmt.Sprintf("%s[%d].peerIPs[%d]", path, i, j)
			if first := seen[a]; first != "" {
				v.errorf(p, "remove one of them: a router takes one session from a server", "%s is a neighbour already, by %s", a, first)
				continue
			}
			seen[a] = p
		}
	}
}

// someNeighbor checks that there are routers to announce to.
func (v *validator) someNeighbor(servers []StaticServer) {
	families := map[int]bool{}
	for _, s := range servers {
		for _, n := range s.BGPNeighbors {
			for _, a := range n.PeerIPs {
				families[familyOf(a)] = true
			}
		}
	}
	bgp := v.Spec.Network.BGP
	if platform := v.Spec.Platform; platform != PlatformStatic {
		if require := v.Spec.MetadataSource.RequireBGP; len(families) == 0 && slices.Contains(tellsNoBGP, platform) && require != nil && *require {
			v.missing("spec.static", "platform "+platform+" tells no BGP neighbours: - {match: {all: true}, bgpNeighbors: [{customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], multihop: true}]}, or write network.bgp.controlPlane: none")
		}
		return // the platform may tell more
	}
	switch {
	case len(servers) == 0 || len(families) > 0:
	case bgp.HoldsControlPlanes():
		v.errorf("spec.static", "add bgpNeighbors to the servers that may become control planes, or write network.bgp.controlPlane: none", "no server has a BGP neighbour to announce the Elastic IPs to")
	case bgp.Services != ServicesNone:
		v.errorf("spec.static", "add bgpNeighbors to the servers that shall announce Services, or write network.bgp.services: none", "no server has a BGP neighbour to announce the pools to")
	}
	reach := func(path string, a netip.Prefix) {
		if f := familyOf(a.Addr()); len(servers) > 0 && len(families) > 0 && a.IsValid() && !families[f] {
			v.errorf(path, fmt.Sprintf("add an entry with IPv%d peerIPs to bgpNeighbors of the servers that shall announce it", f), "no server has an IPv%d neighbour to announce %s to", f, a)
		}
	}
	for i, e := range v.Spec.Network.ElasticIPs {
		if v.Spec.Network.BGP.HoldsControlPlanes() {
			reach(index("spec.network.elasticIPs", i)+".address", e.Address)
		}
	}
	for i, p := range v.Spec.Network.LoadBalancer.Pools {
		for j, a := range p.Addresses {
			if v.Spec.Network.BGP.Services != ServicesNone {
				reach(fmt.Sprintf("spec.network.loadBalancer.pools[%d].addresses[%d]", i, j), a)
			}
		}
	}
}

// match checks that exactly one criterion is given, and that it can match.
func (v *validator) match(path string, m StaticMatch) {
	given := 0
	for _, is := range []bool{m.Hostname != "", m.MAC != "", m.Address != "", m.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		v.errorf(path, "one of hostname: cp1, mac: 52:54:00:12:34:56, address: 10.99.14.9, all: true", "has %d criteria, expected exactly one", given)
	}
	if _, err := net.ParseMAC(m.MAC); err != nil && m.MAC != "" {
		v.errorf(path+".mac", "such as 52:54:00:12:34:56", "%q is not a MAC address", abbreviate(m.MAC))
	}
	if _, err := netip.ParseAddr(m.Address); err != nil && m.Address != "" {
		v.errorf(path+".address", "such as 10.99.14.9, without a length", "%q is not an IP address", abbreviate(m.Address))
	}
}

func (v *validator) staticAddress(path string, a StaticAddress) {
	if !a.Address.IsValid() {
		return
	}
	v.example(path+".address", a.Address.Addr())
	switch g := a.Gateway; {
	case !isUnicast(a.Address.Addr()):
		v.errorf(path+".address", "the address of the server with the length of its subnet", "%s is no address of a server", a.Address)
	case !g.IsValid():
	case g == a.Address.Addr():
		v.errorf(path+".gateway", "the router's address in that subnet", "%s is the server's own address", g)
	case !a.Address.Masked().Contains(g) && !g.IsLinkLocalUnicast():
		v.errorf(path+".gateway", "the router's address in that subnet; is the length right?", "%s is not in %s, so the server cannot reach it", g, a.Address.Masked())
	}
}

func (v *validator) neighbor(path string, n StaticNeighbor) {
	for _, as := range []struct {
		key   string
		value uint32
	}{{"customerAS", n.CustomerAS}, {"peerAS", n.PeerAS}} {
		if _, given := v.values[path+"."+as.key]; given && as.value == 0 {
			v.errorf(path+"."+as.key, "such as 65000", "AS 0 is reserved (RFC 7607)")
		}
	}
	for i, a := range n.PeerIPs {
		p := index(path+".peerIPs", i)
		if !isUnicast(a) {
			v.errorf(p, "the router's address", "%s is no address of a router", a)
		}
		if n.CustomerIP.IsValid() && n.CustomerIP.Is4() != a.Is4() && v.fine(path+".customerIP") {
			v.errorf(p, "make one entry of bgpNeighbors for each address family", "%s and customerIP %s are of different families", a, n.CustomerIP)
		} else if a.Is4() != n.PeerIPs[0].Is4() {
			v.errorf(p, "make one entry of bgpNeighbors for each address family", "%s and %s are of different families", a, n.PeerIPs[0])
		}
	}
}

// once reports a value that two servers have.
func (v *validator) once(path string, seen map[string]int, value string, i int) {
	if j, twice := seen[value]; twice && value != "" && j != i {
		v.errorf(path, "every server has its own", "%q is that of static[%d] too", abbreviate(value), j)
		return
	}
	seen[value] = i
}
