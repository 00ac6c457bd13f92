package metadata

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Documents are all that the service has of a server in one form, by path.
func Documents(s Server, form string) map[string][]byte {
	switch form {
	case Packet:
		return map[string][]byte{"/metadata": packet(s), "/userdata": []byte(s.UserData)}
	case EC2:
		return ec2(s)
	case OpenStack:
		docs := map[string][]byte{"/openstack": []byte("2018-08-27\nlatest\n"), "/openstack/": []byte("2018-08-27\nlatest\n")}
		for _, version := range []string{"latest", "2018-08-27"} {
			for name, document := range ConfigDrive(s) {
				docs["/openstack/"+version+"/"+name] = document
			}
		}
		return docs
	case NoCloud:
		docs := map[string][]byte{}
		for name, document := range Seed(s) {
			docs["/nocloud/"+name] = document
		}
		return docs
	}
	return clouds(s, form)
}

// packet is the document of Equinix Metal, as far as a server of a lab has it.
func packet(s Server) []byte {
	addresses, interfaces := []object{}, []object{}
	for i, a := range s.Addresses {
		addresses = append(addresses, packetAddress(fmt.Sprintf("%s-%d", s.ID, i+1), a))
	}
	for i, mac := range s.MACs {
		interfaces = append(interfaces, object{"name": fmt.Sprintf("eth%d", i), "mac": mac, "bond": "bond0"})
	}
	document := object{
		"id": s.ID, "hostname": s.Hostname, "iqn": "iqn.2026-11.net.packet:device." + s.ID[:min(8, len(s.ID))],
		"operating_system": object{"slug": "debian_12", "distro": "debian", "version": "12", "license_activation": object{"state": "unlicensed"}, "image_tag": nil},
		"plan":             "lab.x86", "class": "lab.x86", "reserved": false, "facility": "lab1", "metro": "la", "state": "active",
		"private_subnets": []string{"10.0.0.0/8"}, "tags": append([]string{}, s.Tags...), "ssh_keys": []string{}, "customdata": object{}, "volumes": []string{},
		"network": object{
			"bonding": object{"mode": 4, "link_aggregation": "individual"}, "interfaces": interfaces,
			"addresses": addresses, "metal_gateways": []string{},
		},
		"api_url": "http://169.254.169.254", "phone_home_url": "http://169.254.169.254/phone-home", "user_state_url": "http://169.254.169.254/events",
	}
	if s.Switch != "" {
		document["switch_short_id"] = s.Switch
	}
	if len(s.BGP) > 0 { // the key is absent until there is a session
		document["bgp_neighbors"] = neighbors(s)
	}
	return encode(document)
}

func packetAddress(id string, a Address) object {
	family := 4
	if a.Address.Addr().Is6() {
		family = 6
	}
	o := object{
		"id": id, "address_family": family, "netmask": netmask(a.Address), "created_at": "2026-11-01T00:00:00Z",
		"public": a.Public, "cidr": a.Address.Bits(), "management": !a.Elastic, "enabled": true,
		"network": a.Address.Masked().Addr().String(), "address": a.Address.Addr().String(), "gateway": text(a.Gateway),
	}
	if a.Block.IsValid() {
		o["parent_block"] = object{"network": a.Block.Masked().Addr().String(), "netmask": netmask(a.Block), "cidr": a.Block.Bits(), "href": "/ips/" + id}
	}
	return o
}

func neighbors(s Server) []object {
	var out []object
	for _, n := range s.BGP {
		var peers []string
		family := 4
		for _, p := range n.PeerIPs {
			peers = append(peers, p.StringExpanded())
			if p.Is6() {
				family = 6
			}
		}
		o := object{
			"address_family": family, "customer_as": n.CustomerAS, "customer_ip": text(n.CustomerIP),
			"md5_enabled": n.MD5 != "", "md5_password": nil, "multihop": n.Multihop, "peer_as": n.PeerAS, "peer_ips": peers,
			"routes_in": []object{}, "routes_out": []object{},
		}
		if n.MD5 != "" {
			o["md5_password"] = n.MD5
		}
		out = append(out, o)
	}
	return out
}

// ec2 is the tree of Tinkerbell's Tootles: one version of it, no tokens, and beside
// it a /metadata that says nothing of network.
func ec2(s Server) map[string][]byte {
	leaves := map[string]string{
		"instance-id": s.ID, "hostname": s.Hostname, "local-hostname": s.Hostname, "plan": "lab.x86", "facility": "lab1",
		"iqn": "iqn.2026-11.net.packet:device." + s.ID, "tags": strings.Join(s.Tags, "\n"), "public-keys": "",
	}
	for _, a := range s.Addresses {
		key := "local-ipv4"
		switch {
		case a.Address.Addr().Is6():
			key = "public-ipv6"
		case a.Public:
			key = "public-ipv4"
		}
		if leaves[key] == "" { // the first only
			leaves[key] = a.Address.Addr().String()
		}
	}
	const tree = "/2009-04-04/"
	docs := map[string][]byte{tree + "user-data": []byte(s.UserData), "/metadata": encode(object{"metadata": object{"instance": object{"storage": object{}}}})}
	var names []string
	for name, value := range leaves {
		names = append(names, name)
		docs[tree+"meta-data/"+name] = []byte(value)
	}
	slices.Sort(names)
	docs[tree+"meta-data/"] = []byte(strings.Join(names, "\n"))
	docs[tree+"meta-data"] = docs[tree+"meta-data/"]
	return docs
}

// ConfigDrive are the files below openstack/latest of a config drive.
func ConfigDrive(s Server) map[string][]byte {
	meta := object{}
	for _, tag := range s.Tags {
		if key, value, ok := strings.Cut(tag, "="); ok {
			meta[key] = value
		}
	}
	links, networks := []object{}, []object{}
	for i, mac := range s.MACs {
		links = append(links, object{"id": fmt.Sprintf("tap%d", i), "type": "phy", "ethernet_mac_address": mac, "mtu": nil})
	}
	for i, a := range s.Addresses {
		if a.Elastic {
			continue
		}
		kind, anywhere := "ipv4", "0.0.0.0"
		if a.Address.Addr().Is6() {
			kind, anywhere = "ipv6", "::"
		}
		routes := []object{}
		if a.Gateway.IsValid() {
			routes = append(routes, object{"network": anywhere, "netmask": anywhere, "gateway": a.Gateway.String()})
		}
		networks = append(networks, object{"id": fmt.Sprintf("network%d", i), "type": kind, "link": "tap0", "ip_address": a.Address.Addr().String(), "netmask": netmask(a.Address), "routes": routes})
	}
	docs := map[string][]byte{
		"meta_data.json":    encode(object{"uuid": s.ID, "hostname": s.Hostname, "name": s.Hostname, "availability_zone": "lab", "meta": meta, "public_keys": object{}}),
		"network_data.json": encode(object{"links": links, "networks": networks, "services": []object{}}),
	}
	if s.UserData != "" {
		docs["user_data"] = []byte(s.UserData)
	}
	return docs
}

// Seed are the files of a NoCloud seed. Tags and BGP neighbours are additions of our
// own, which cloud-init passes over.
func Seed(s Server) map[string][]byte {
	meta := object{"instance-id": s.ID, "local-hostname": s.Hostname}
	if len(s.Tags) > 0 {
		meta["tags"] = s.Tags
	}
	if len(s.BGP) > 0 {
		meta["bgp_neighbors"] = neighbors(s)
	}
	b, err := yaml.Marshal(meta)
	if err != nil {
		panic(err) // maps, lists and text
	}
	return map[string][]byte{"meta-data": b, "user-data": []byte(s.UserData), "vendor-data": {}}
}

func netmask(p netip.Prefix) string {
	mask, _ := netip.AddrFromSlice(net.CIDRMask(p.Bits(), p.Addr().BitLen()))
	return mask.String()
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
