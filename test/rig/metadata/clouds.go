package metadata

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// Forms of single vendors, after their descriptions; a server has one of them when
// its inventory says so.
const (
	Vultr    = "vultr"
	Hetzner  = "hetzner"
	Latitude = "latitude"
)

// token is what Latitude's form wants with each request.
const token = "token-of-the-lab"

// clouds are the documents of a vendor's form, by path.
func clouds(s Server, form string) map[string][]byte {
	s.Addresses = slices.DeleteFunc(slices.Clone(s.Addresses), func(a Address) bool { return a.Elastic }) // none of them has such
	switch form {
	case Vultr:
		return map[string][]byte{"/v1.json": vultr(s)}
	case Hetzner:
		return hetzner(s)
	case Latitude:
		return map[string][]byte{"/metadata/v1/metadata.json": latitude(s), "/metadata/v1/api/token": []byte(token)}
	}
	return nil
}

func vultr(s Server) []byte {
	off := object{"my-address": "", "my-asn": "", "peer-address": "", "peer-asn": ""}
	var interfaces []object
	for i, a := range s.Addresses {
		kind := "private"
		if a.Public {
			kind = "public"
		}
		o := object{"network-type": kind, "ipv4": object{"address": a.Address.Addr().String(), "netmask": netmask(a.Address), "gateway": text(a.Gateway), "additional": []object{}}}
		if i < len(s.MACs) {
			o["mac"] = s.MACs[i]
		}
		interfaces = append(interfaces, o)
	}
	return encode(object{"instance-v2-id": s.ID, "hostname": s.Hostname, "tags": s.Tags, "bgp": object{"ipv4": off, "ipv6": off}, "interfaces": interfaces})
}

func hetzner(s Server) map[string][]byte {
	meta, networks := object{"instance-id": s.ID, "hostname": s.Hostname, "local-ipv4": ""}, []object{}
	for i, a := range s.Addresses {
		if a.Public {
			meta["public-ipv4"] = a.Address.Addr().String()
			continue
		}
		o := object{"ip": a.Address.Addr().String(), "network": a.Address.Masked().String(), "gateway": text(a.Gateway), "interface_num": i + 1}
		if i < len(s.MACs) {
			o["mac_address"] = s.MACs[i]
		}
		networks = append(networks, o)
	}
	docs := map[string][]byte{}
	for path, v := range map[string]any{"/hetzner/v1/metadata": meta, "/hetzner/v1/metadata/private-networks": networks} {
		b, err := yaml.Marshal(v)
		if err != nil {
			panic(err) // maps, lists and text
		}
		docs[path] = b
	}
	return docs
}

func latitude(s Server) []byte {
	document := object{"instance_id": s.ID, "hostname": s.Hostname, "region": "LAB", "plan": "lab.x86"}
	for _, a := range s.Addresses {
		key := "local_ipv4"
		if a.Public {
			key = "public_ipv4"
		}
		document[key] = a.Address.Addr().String()
	}
	return encode(document)
}
