package plan

import (
	"cmp"
	"crypto/sha256"
	"net/netip"
	"path"
	"slices"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/layout"
)

// onControlPlanes is the value of spec.network.elasticIPs[].on that gives an
// address to every control plane.
const onControlPlanes = "control-planes"

// APIServerPort is where kubeadm's API server listens on the private address.
const APIServerPort = 6443

// AnnouncementVersion is the version of the speaker's plan file.
const AnnouncementVersion = 1

// ToRRoutes returns the routes to every peer of every BGP neighbour, sorted and
// without duplicates. A session must come from the address that the router was
// told of, so each route pins it as source: without the route a server with a
// public default route would dial from its public address, and the router
// answers nothing (no refusal, no log).
//
// A peer that is the gateway itself, or that lies in the subnet of the address,
// is on the link already and gets no route.
func ToRRoutes(d device.Device) []Route {
	var routes []Route
	for _, n := range d.BGPNeighbors {
		from, ok := d.SessionAddress(n)
		if !ok || !from.Gateway.IsValid() {
			continue
		}
		for _, peer := range n.PeerIPs {
			peer = peer.Unmap()
			if peer == from.Gateway || from.Prefix.Masked().Contains(peer) || peer.Is4() != from.Prefix.Addr().Is4() {
				continue
			}
			routes = append(routes, Route{
				Dst: netip.PrefixFrom(peer, peer.BitLen()),
				Via: from.Gateway,
				Src: from.Prefix.Addr(),
			})
		}
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), a.Via.Compare(b.Via), a.Src.Compare(b.Src))
	})
	return slices.CompactFunc(routes, func(a, b Route) bool { return a.Dst == b.Dst })
}

// NetworkFor returns what lo and the routing table shall hold. The Elastic IPs
// are there only while this server's own API server is healthy: with one on lo,
// every packet for the control plane ends on this server, so a server that
// joins, or whose API server is dead, would only talk to itself.
func NetworkFor(d device.Device, elasticIPs []netip.Prefix, healthy bool) Network {
	n := Network{Routes: ToRRoutes(d)}
	if healthy {
		n.Addresses = sortedPrefixes(elasticIPs)
	}
	return n
}

// ControlPlaneIPs returns the Elastic IPs that belong on control planes, sorted.
func ControlPlaneIPs(spec cluster.Spec) []netip.Prefix {
	var ips []netip.Prefix
	for _, e := range spec.Network.ElasticIPs {
		if e.On == onControlPlanes {
			ips = append(ips, e.Address)
		}
	}
	return sortedPrefixes(ips)
}

// AnnouncementFor returns the configuration of the BGP speaker of a control
// plane. inst is the instance of this server; the router id comes from it where
// the server has no private IPv4 address.
//
// The AS is that of the first neighbour with the lowest address family: a
// server speaks with one AS number. Neighbours of an address family that this
// server has no address for are left out.
func AnnouncementFor(spec cluster.Spec, d device.Device, inst string) Announcement {
	a := Announcement{
		Version:   AnnouncementVersion,
		RouterID:  routerID(d, inst),
		Prefixes:  ControlPlaneIPs(spec),
		HealthURL: healthURL(spec, d),
		HealthCA:  path.Join(layout.KubernetesPKI, "ca.crt"),
	}
	neighbors := slices.Clone(d.BGPNeighbors)
	slices.SortStableFunc(neighbors, func(x, y device.Neighbor) int { return cmp.Compare(x.Family, y.Family) })
	for _, n := range neighbors {
		from, ok := d.SessionAddress(n)
		if !ok {
			continue
		}
		if a.AS == 0 {
			a.AS = n.CustomerAS
		}
		for _, peer := range n.PeerIPs {
			if peer = peer.Unmap(); peer.Is4() != from.Prefix.Addr().Is4() {
				continue
			}
			a.Peers = append(a.Peers, Peer{
				Address:  peer,
				Source:   from.Prefix.Addr(),
				AS:       n.PeerAS,
				Multihop: n.Multihop,
				Password: cluster.Secret(n.MD5),
			})
		}
	}
	slices.SortStableFunc(a.Peers, func(x, y Peer) int { return x.Address.Compare(y.Address) })
	a.Peers = slices.CompactFunc(a.Peers, func(x, y Peer) bool { return x.Address == y.Address })
	return a
}

// routerID is the private IPv4 address, or 32 bits of SHA-256(inst) where there
// is none: a BGP identifier is four bytes even between IPv6 addresses, and must
// differ between the servers of one router.
func routerID(d device.Device, inst string) netip.Addr {
	if a, ok := d.Private(4); ok {
		return a.Prefix.Addr()
	}
	sum := sha256.Sum256([]byte(inst))
	if [4]byte(sum[:4]) == [4]byte{} {
		sum[3] = 1 // 0.0.0.0 is no valid identifier (RFC 6286)
	}
	return netip.AddrFrom4([4]byte(sum[:4]))
}

// healthURL is the API server's readiness on the private address that it
// advertises: the Elastic IP would be answered by any control plane.
func healthURL(spec cluster.Spec, d device.Device) string {
	a, ok := d.Private(spec.Kubernetes.Families()[0])
	if !ok {
		return "" // NodeFor has said so
	}
	return ServerURL(a.Prefix.Addr()) + "/readyz"
}

func sortedPrefixes(ps []netip.Prefix) []netip.Prefix {
	out := slices.Clone(ps)
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(out)
}
