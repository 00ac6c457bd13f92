package shape

import (
	"net/netip"

	"github.com/mustermetal/muster/pkg/device"
)

// hetzner reads metadata and private-networks of Hetzner Cloud, both YAML. It has
// no BGP and no tags.
func hetzner(docs Documents) (device.Device, error) {
	r := &reading{}
	root, err := r.yaml("metadata", docs["metadata"])
	if err != nil {
		return device.Device{}, err
	}
	d := device.Device{ID: root.at("instance-id").text(), Hostname: root.at("hostname").text()}
	addBare(&d, root.at("local-ipv4"), false)
	addBare(&d, root.at("public-ipv4"), true)
	networkConfig(&d, root.at("network-config"))
	networks, err := r.yaml("private-networks", docs["private-networks"])
	if err != nil {
		return device.Device{}, err
	}
	for _, n := range networks.items() {
		addMAC(&d, n.at("mac_address"))
		if ip := n.at("ip").addr(); ip.IsValid() {
			// The servers have a /32 and reach the network through its gateway.
			block := prefix(n.at("network"), node{reading: r}, node{reading: r}).Masked()
			add(&d, device.Address{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Gateway: n.at("gateway").addr(), Block: block})
		}
	}
	return r.done(d, docs)
}
