package shape

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/device"
)

// openStack reads meta_data.json and network_data.json, as Nova and Ironic give
// them out over HTTP or on a config drive.
func openStack(docs Documents) (device.Device, error) {
	r := &reading{}
	meta, err := r.json(docs["meta_data.json"])
	if err != nil {
		return device.Device{}, fmt.Errorf("meta_data.json: %w", err)
	}
	d := device.Device{ID: meta.at("uuid").text()}
	openStackMeta(&d, meta)
	if network := docs["network_data.json"]; len(network) > 0 {
		root, err := r.json(network)
		if err != nil {
			return device.Device{}, fmt.Errorf("network_data.json: %w", err)
		}
		networkData(&d, root)
	}
	return r.done(d, docs)
}

// openStackMeta reads names and the user's own keys. A key of meta is a tag
// KEY=VALUE; bgp_neighbors is JSON in the Packet form, since values are text.
func openStackMeta(d *device.Device, root node) {
	if d.Hostname = root.at("hostname").text(); d.Hostname == "" {
		d.Hostname = root.at("name").text()
	}
	meta := root.at("meta")
	m, _ := meta.value.(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		switch key {
		case "bgp_neighbors":
			bgpText(d, meta.at(key))
		case "tags":
			d.Tags = append(d.Tags, meta.at(key).words()...)
		default:
			d.Tags = append(d.Tags, key+"="+meta.at(key).text())
		}
	}
}

// bgpText reads neighbours that are a list, or a text that holds one.
func bgpText(d *device.Device, n node) {
	if text, ok := n.value.(string); ok {
		inner, err := n.reading.yaml(n.path, []byte(text))
		if err != nil {
			n.reading.problems = append(n.reading.problems, err)
			return
		}
		n = inner
	}
	neighbors(d, n)
}

// networkData reads links and static addresses. What comes by DHCP or router
// advertisement has none here; the kernel has it.
func networkData(d *device.Device, root node) {
	bondOf := map[string]string{}
	for _, l := range root.at("links").items() {
		for _, port := range l.at("bond_links").items() {
			bondOf[port.text()] = l.at("id").text()
		}
	}
	var bonds bondGroups
	for _, l := range root.at("links").items() {
		addMAC(d, l.at("ethernet_mac_address"))
		bonds.add(bondOf[l.at("id").text()], l.at("ethernet_mac_address").text())
	}
	d.Bonds = bonds.macs
	for _, n := range root.at("networks").items() {
		p := prefix(n.at("ip_address"), node{reading: n.reading}, n.at("netmask"))
		if !p.IsValid() {
			continue
		}
		add(d, device.Address{Prefix: p, Gateway: gatewayOf(n, p), Public: !device.IsPrivate(p.Addr())})
	}
}

// gatewayOf is the next hop of the default route, else of the first route.
func gatewayOf(n node, p netip.Prefix) netip.Addr {
	gateway := n.at("gateway").addr()
	for _, route := range n.at("routes").items() {
		via := route.at("gateway").addr()
		if !via.IsValid() || via.Is4() != p.Addr().Is4() {
			continue
		}
		dst := route.at("network").addr()
		if dst.IsValid() && dst.IsUnspecified() {
			return via
		}
		if !gateway.IsValid() {
			gateway = via
		}
	}
	return gateway
}
