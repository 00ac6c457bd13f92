package shape

import (
	"net/netip"

	"github.com/mustermetal/muster/pkg/device"
)

// vultr reads v1.json of Vultr's cloud and bare metal. Text is "" where there is
// nothing. It tells BGP peers, but no password.
func vultr(r *reading, root node) device.Device {
	d := device.Device{ID: root.at("instance-v2-id").text(), Hostname: root.at("hostname").text(), Tags: root.at("tags").words()}
	if d.ID == "" {
		d.ID = root.at("instance-id").text()
	}
	if d.Hostname == "" {
		d.Hostname = root.at("local-hostname").text()
	}
	for _, i := range root.at("interfaces").items() {
		addMAC(&d, i.at("mac"))
		v4, v6 := i.at("ipv4"), i.at("ipv6")
		for _, p := range []struct {
			prefix  netip.Prefix
			gateway netip.Addr
		}{
			{prefix(v4.at("address"), node{reading: r}, v4.at("netmask")), v4.at("gateway").addr()},
			{prefix(v6.at("address"), v6.at("prefix"), node{reading: r}), v6.at("gateway").addr()},
		} {
			public := i.at("network-type").text() != "private"
			add(&d, device.Address{Prefix: p.prefix, Gateway: p.gateway, Public: public})
		}
	}
	for _, key := range []string{"ipv4", "ipv6"} {
		n := root.at("bgp").at(key)
		peer := n.at("peer-address").addr()
		if !peer.IsValid() {
			continue // BGP is off
		}
		d.BGPNeighbors = append(d.BGPNeighbors, device.Neighbor{
			Family: family(peer), CustomerAS: as(n.at("my-asn")), CustomerIP: n.at("my-address").addr(), PeerAS: as(n.at("peer-asn")),
			PeerIPs: []netip.Addr{peer}, Multihop: true, // the peer is a link-local address behind the gateway
		})
	}
	return d
}
