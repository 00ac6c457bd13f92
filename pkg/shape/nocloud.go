package shape

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/device"
)

// noCloud reads meta-data and network-config of cloud-init's NoCloud. The first may
// have `tags` and `bgp_neighbors` of the owner's own, the latter in the Packet form.
func noCloud(docs Documents) (device.Device, error) {
	r := &reading{}
	meta, err := r.yaml("meta-data", docs["meta-data"])
	if err != nil {
		return device.Device{}, err
	}
	d := device.Device{ID: meta.at("instance-id").text(), Hostname: meta.at("local-hostname").text(), Tags: meta.at("tags").words()}
	if d.Hostname == "" {
		d.Hostname = meta.at("hostname").text()
	}
	bgpText(&d, meta.at("bgp_neighbors"))
	network, err := r.yaml("network-config", docs["network-config"])
	if err != nil {
		return device.Device{}, err
	}
	if network.at("network").isMapping() {
		network = network.at("network")
	}
	networkConfig(&d, network)
	return r.done(d, docs)
}

// networkConfig reads cloud-init's network configuration, version 1 or 2 (netplan).
// Only what is written in it is told: MAC addresses and static addresses.
func networkConfig(d *device.Device, root node) {
	if config := root.at("config"); config.isList() {
		for _, link := range config.items() {
			addMAC(d, link.at("mac_address"))
			for _, s := range link.at("subnets").items() {
				addPlain(d, prefix(s.at("address"), node{reading: s.reading}, s.at("netmask")), s.at("gateway").addr())
			}
		}
		return
	}
	for _, kind := range []string{"ethernets", "bonds", "vlans", "bridges"} {
		links := root.at(kind)
		m, _ := links.value.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			link := links.at(name)
			addMAC(d, link.at("match").at("macaddress"))
			for _, a := range link.at("addresses").items() {
				if a.isMapping() { // an address with options is a key
					options, _ := a.value.(map[string]any)
					for text := range options {
						a.value = text
					}
				}
				p := prefix(a, node{reading: a.reading}, node{reading: a.reading})
				addPlain(d, p, netplanGateway(link, p))
			}
		}
	}
}

// netplanGateway is gateway4 or gateway6, else the next hop of the default route of
// the same family, else that of any.
func netplanGateway(link node, p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	gateway := link.at(fmt.Sprintf("gateway%d", family(p.Addr()))).addr()
	for _, route := range link.at("routes").items() {
		via := route.at("via").addr()
		if !via.IsValid() || via.Is4() != p.Addr().Is4() {
			continue
		}
		to := route.at("to").text()
		if to == "default" || strings.HasSuffix(to, "/0") {
			return via
		}
		if !gateway.IsValid() {
			gateway = via
		}
	}
	return gateway
}

func addPlain(d *device.Device, p netip.Prefix, gateway netip.Addr) {
	if p.IsValid() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
		add(d, device.Address{Prefix: p, Gateway: gateway, Public: !device.IsPrivate(p.Addr())})
	}
}
