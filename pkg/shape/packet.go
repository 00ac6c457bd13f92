package shape

import (
	"math"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/device"
)

// packet reads the Packet / Equinix Metal document, which hollow-metadataservice
// and Hegel serve too.
func packet(r *reading, root node) device.Device {
	if failed := root.at("error"); failed.value != nil && root.at("id").value == nil {
		failed.refuse("the metadata service answered with an error document: %q", failed.kindOrText())
		return device.Device{}
	}
	d := device.Device{
		ID: root.at("id").text(), Hostname: root.at("hostname").text(), Tags: root.at("tags").words(),
		Switch: root.at("switch_short_id").text(), EventsURL: root.at("user_state_url").text(),
	}
	if d.ID == "" && root.at("metadata").isMapping() {
		root.at("metadata").refuse("it looks like the document of Tinkerbell's Tootles, which describes neither network nor BGP: use platform: ec2")
	}
	var bonds bondGroups
	for _, nic := range root.at("network").at("interfaces").items() {
		addMAC(&d, nic.at("mac"))
		bonds.add(nic.at("bond").text(), nic.at("mac").text())
	}
	d.Bonds = bonds.macs
	for _, a := range root.at("network").at("addresses").items() {
		packetAddress(&d, a)
	}
	neighbors(&d, root.at("bgp_neighbors"))
	return d
}

func packetAddress(d *device.Device, n node) {
	if enabled, given := n.at("enabled").truth(); given && !enabled {
		return
	}
	p := prefix(n.at("address"), n.at("cidr"), n.at("netmask"))
	if !p.IsValid() {
		if n.at("address").text() == "" {
			n.at("address").refuse("is missing")
		}
		return
	}
	if f, given := n.at("address_family").number(6); given && int(f) != family(p.Addr()) {
		n.at("address_family").refuse("address %s is not of address_family %d", p.Addr(), f)
	}
	// Documents without the management key date from before Elastic IPs.
	if management, given := n.at("management").truth(); given && !management {
		if elastic := p.Masked(); !slices.Contains(d.ElasticIPs, elastic) {
			d.ElasticIPs = append(d.ElasticIPs, elastic)
		}
		return
	}
	public, given := n.at("public").truth()
	if !given {
		public = !device.IsPrivate(p.Addr())
	}
	block := n.at("parent_block")
	add(d, device.Address{
		Prefix: p, Gateway: n.at("gateway").addr(), Public: public,
		Block: prefix(block.at("network"), block.at("cidr"), block.at("netmask")).Masked(),
	})
}

// neighbors reads bgp_neighbors, which are missing, null or empty until a session
// exists.
func neighbors(d *device.Device, list node) {
	for _, n := range list.items() {
		if b, ok := neighbor(n); ok {
			d.BGPNeighbors = append(d.BGPNeighbors, b)
		}
	}
}

// neighbor reads one of them; false for a session that the platform has not
// placed on a router yet, and for one that is wrong.
func neighbor(n node) (device.Neighbor, bool) {
	before := len(n.reading.problems)
	f, _ := n.at("address_family").number(6)
	b := device.Neighbor{Family: int(f), CustomerIP: n.at("customer_ip").addr()}
	for _, peer := range n.at("peer_ips").items() {
		ip := peer.addr() // IPv6 ones are written out in full: fc00:0000:…:000e
		if !ip.IsValid() {
			continue
		}
		if b.Family == 0 {
			b.Family = family(ip)
		}
		if family(ip) != b.Family {
			peer.refuse("peer %s is not of address_family %d", ip, b.Family)
		}
		b.PeerIPs = append(b.PeerIPs, ip)
	}
	if len(b.PeerIPs) == 0 {
		return b, false
	}
	slices.SortFunc(b.PeerIPs, netip.Addr.Compare)
	b.PeerIPs = slices.Compact(b.PeerIPs)
	b.CustomerAS, b.PeerAS = as(n.at("customer_as")), as(n.at("peer_as"))
	b.Multihop, _ = n.at("multihop").truth()
	b.MD5 = n.at("md5_password").text()
	if enabled, given := n.at("md5_enabled").truth(); given && !enabled {
		b.MD5 = ""
	} else if given && b.MD5 == "" {
		n.at("md5_password").refuse("md5_enabled is true, but md5_password is empty")
	}
	return b, len(n.reading.problems) == before
}

// as is an AS number, which must be there.
func as(n node) uint32 {
	v, given := n.number(math.MaxUint32)
	if !given && n.text() == "" || given && v == 0 {
		n.refuse("expected an AS number, such as 65000")
	}
	return uint32(v)
}

// kindOrText shows what stands in an error field, whatever it is.
func (n node) kindOrText() string {
	if s, ok := n.value.(string); ok {
		return head([]byte(s))
	}
	return n.kind()
}
