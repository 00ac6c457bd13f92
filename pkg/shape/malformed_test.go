package shape

import (
	"strings"
	"testing"
)

// address and neighbour put fields into the least Packet document.
func address(fields string) string {
	return `{"id":"i1","hostname":"cp1","network":{"addresses":[{"address":"10.99.14.9","cidr":31,"gateway":"10.99.14.8","public":false},{` + fields + `}]}}`
}

func neighbour(fields string) string {
	return `{"id":"i1","hostname":"cp1","bgp_neighbors":[{"customer_as":65000,"peer_as":65530,` + fields + `}]}`
}

// TestMalformed: what is wrong is refused by the name of its field.
func TestMalformed(t *testing.T) {
	const meta = `{"uuid":"u","name":"n"}`
	tests := []struct {
		shape, name   string
		first, second string // documents
		err           string
	}{
		{"packet", "empty", " \n", "", "metadata document is empty"},
		{"packet", "HTML", "<!DOCTYPE html><title>Sign in</title>", "", "is HTML or XML"},
		{"packet", "text", "not found", "", "is no JSON object"},
		{"packet", "list", "[]", "", "is no JSON object"},
		{"packet", "cut off", `{"id":"i1","hostname":"cp`, "", "is cut off after 25 bytes"},
		{"packet", "two documents", `{"id":"i1"} {"id":"i2"}`, "", "more follows it at byte"},
		{"packet", "bad syntax", `{"id":i1}`, "", "is not understood: invalid character"},
		{"packet", "error document", `{"error":"Couldn't find instance"}`, "", `error: the metadata service answered with an error document: "Couldn't find instance"`},
		{"packet", "no id", `{}`, "", "it has no id of the server"},
		{"packet", "id is null", `{"id":null,"hostname":"x"}`, "", "it has no id of the server"},
		{"packet", "id is a list", `{"id":["x"]}`, "", "id: expected text, it is a list"},
		{"packet", "hostname is a mapping", `{"id":"i","hostname":{}}`, "", "hostname: expected text, it is a mapping"},
		{"packet", "tags are a mapping", `{"id":"i","tags":{}}`, "", "tags: expected text, it is a mapping"},
		{"packet", "network is text", `{"id":"i","network":"x"}`, "", `network: expected a mapping, it is "x"`},
		{"packet", "addresses are a mapping", `{"id":"i","network":{"addresses":{}}}`, "", "network.addresses: expected a list, it is a mapping"},
		{"packet", "an address is text", `{"id":"i","network":{"addresses":["10.0.0.1"]}}`, "", `network.addresses[0]: expected a mapping, it is "10.0.0.1"`},
		{"packet", "no address", address(`"cidr":31`), "", "network.addresses[1].address: is missing"},
		{"packet", "bad address", address(`"address":"147.75.1.300","cidr":31`), "", `network.addresses[1].address: "147.75.1.300" is not an IP address`},
		{"packet", "netmask with a hole", address(`"address":"147.75.1.3","netmask":"255.0.255.0"`), "", "network.addresses[1].netmask: netmask 255.0.255.0 has a hole"},
		{"packet", "netmask is none", address(`"address":"147.75.1.3","netmask":"many"`), "", `network.addresses[1].netmask: "many" is not a netmask`},
		{"packet", "length too long", address(`"address":"147.75.1.3","cidr":33`), "", "network.addresses[1].cidr: 147.75.1.3 has length /33; expected 1 to 32"},
		{"packet", "length zero", address(`"address":"147.75.1.3","cidr":0`), "", "network.addresses[1].cidr: 147.75.1.3 has length /0"},
		{"packet", "length negative", address(`"address":"147.75.1.3","cidr":-1`), "", `network.addresses[1].cidr: "-1" is not a number`},
		{"packet", "length is a fraction", address(`"address":"147.75.1.3","cidr":31.5`), "", `network.addresses[1].cidr: "31.5" is not a number`},
		{"packet", "length in the address", address(`"address":"147.75.1.3/x"`), "", "network.addresses[1].address: \"147.75.1.3/x\" has a length that is no number"},
		{"packet", "wrong family", address(`"address":"147.75.1.3","cidr":31,"address_family":6`), "", "network.addresses[1].address_family: address 147.75.1.3 is not of address_family 6"},
		{"packet", "family of 99", address(`"address":"147.75.1.3","cidr":31,"address_family":99`), "", `network.addresses[1].address_family: "99" is not a number from 0 to 6`},
		{"packet", "bad gateway", address(`"address":"147.75.1.3","cidr":31,"gateway":"no"`), "", `network.addresses[1].gateway: "no" is not an IP address`},
		{"packet", "public is a word", address(`"address":"147.75.1.3","cidr":31,"public":"perhaps"`), "", `network.addresses[1].public: "perhaps" is not true or false`},
		{"packet", "management is a list", address(`"address":"147.75.1.3","cidr":31,"management":[]`), "", "network.addresses[1].management: expected text, it is a list"},
		{"packet", "bad block", address(`"address":"147.75.1.3","cidr":31,"parent_block":{"network":"x"}`), "", `network.addresses[1].parent_block.network: "x" is not an IP address`},
		{"packet", "MAC is a mapping", `{"id":"i","network":{"interfaces":[{"mac":{}}]}}`, "", "network.interfaces[0].mac: expected text, it is a mapping"},
		{"packet", "neighbours are text", `{"id":"i","bgp_neighbors":"soon"}`, "", `bgp_neighbors: expected a list, it is "soon"`},
		{"packet", "md5 without password", neighbour(`"peer_ips":["10.0.0.1"],"md5_password":null,"md5_enabled":true`), "", "bgp_neighbors[0].md5_password: md5_enabled is true, but md5_password is empty"},
		{"packet", "mixed families", neighbour(`"peer_ips":["10.0.0.1","fc00::e"]`), "", "bgp_neighbors[0].peer_ips[1]: peer fc00::e is not of address_family 4"},
		{"packet", "bad peer", neighbour(`"peer_ips":["tor1"]`), "", `bgp_neighbors[0].peer_ips[0]: "tor1" is not an IP address`},
		{"packet", "bad customer_ip", neighbour(`"peer_ips":["10.0.0.1"],"customer_ip":7`), "", `bgp_neighbors[0].customer_ip: "7" is not an IP address`},
		{"packet", "AS of 33 bits", `{"id":"i","bgp_neighbors":[{"customer_as":4294967296,"peer_as":1,"peer_ips":["10.0.0.1"]}]}`, "", `bgp_neighbors[0].customer_as: "4294967296" is not a number from 0 to 4294967295`},
		{"packet", "no AS", `{"id":"i","bgp_neighbors":[{"customer_as":65000,"peer_ips":["10.0.0.1"]}]}`, "", "bgp_neighbors[0].peer_as: expected an AS number, such as 65000"},
		{"packet", "AS 0", `{"id":"i","bgp_neighbors":[{"customer_as":0,"peer_as":1,"peer_ips":["10.0.0.1"]}]}`, "", "bgp_neighbors[0].customer_as: expected an AS number, such as 65000"},
		{"ec2", "a login page", "<html>Sign in</html>", "", "meta-data/instance-id: is HTML or XML"},
		{"ec2", "no id", "", "", "it has no id of the server"},
		{"openstack", "network cut off", meta, `{"links":[`, "network_data.json: metadata document is cut off"},
		{"openstack", "no uuid", `{"name":"n"}`, "", "it has no id of the server"},
		{"openstack", "bad netmask", meta, `{"networks":[{"ip_address":"10.0.0.1","netmask":"255.255.0.255"}]}`, "networks[0].netmask: netmask 255.255.0.255 has a hole"},
		{"openstack", "bad gateway of a route", meta, `{"networks":[{"ip_address":"10.0.0.1","routes":[{"network":"0.0.0.0","gateway":"x"}]}]}`, `networks[0].routes[0].gateway: "x" is not an IP address`},
		{"openstack", "neighbours are no list", `{"uuid":"u","meta":{"bgp_neighbors":"{"}}`, "", "meta.bgp_neighbors: is not understood"},
		{"openstack", "neighbour in a text", `{"uuid":"u","meta":{"bgp_neighbors":"[{\"peer_ips\":[\"x\"]}]"}}`, "", `meta.bgp_neighbors[0].peer_ips[0]: "x" is not an IP address`},
		{"vultr", "bad netmask", `{"instance-id":"i","interfaces":[{"ipv4":{"address":"10.0.0.1","netmask":"255.255.255.256"}}]}`, "", `interfaces[0].ipv4.netmask: "255.255.255.256" is not a netmask`},
		{"vultr", "bad AS", `{"instance-id":"i","bgp":{"ipv4":{"peer-address":"169.254.1.1","my-asn":"AS64999","peer-asn":"20473"}}}`, "", `bgp.ipv4.my-asn: "AS64999" is not a number`},
		{"vultr", "bad prefix", `{"instance-id":"i","interfaces":[{"ipv6":{"address":"fd00::1","prefix":"129"}}]}`, "", `interfaces[0].ipv6.prefix: "129" is not a number from 0 to 128`},
		{"hetzner", "tabs", "instance-id:\t- x\n\ty", "", "metadata: is not understood: yaml"},
		{"hetzner", "HTML", "<html>", "", "metadata: is HTML or XML"},
		{"hetzner", "networks are a mapping", "instance-id: 1", "ip: 10.0.0.1", "private-networks: expected a list, it is a mapping"},
		{"hetzner", "bad ip", "instance-id: 1", "- {ip: 10.0.0.}", `private-networks[0].ip: "10.0.0." is not an IP address`},
		{"latitude", "bad address", `{"instance_id":"sv_1","local_ipv4":"10.0.0.5/24"}`, "", `local_ipv4: "10.0.0.5/24" is not an IP address`},
		{"nocloud", "meta-data is text", "hello", "", `meta-data: expected a mapping, it is "hello"`},
		{"nocloud", "no instance-id", "local-hostname: cp1", "", "it has no id of the server"},
		{"nocloud", "netplan address", "instance-id: 1", "ethernets: {e: {addresses: [10.0.0.1/x]}}", `network-config.ethernets.e.addresses[0]: "10.0.0.1/x" has a length that is no number`},
		{"nocloud", "subnet of version 1", "instance-id: 1", "config: [{subnets: [{address: ten}]}]", `network-config.config[0].subnets[0].address: "ten" is not an IP address`},
		{"cloudinit", "no v1", `{"ds":{}}`, "", "it has no id of the server"},
		{"cloudinit", "v1 is text", `{"v1":"x"}`, "", `v1: expected a mapping, it is "x"`},
	}
	for _, tt := range tests {
		t.Run(tt.shape+"/"+tt.name, func(t *testing.T) {
			s, _ := Of(tt.shape)
			docs := Documents{s.Documents[0]: []byte(tt.first)}
			if tt.second != "" {
				docs[s.Documents[1]] = []byte(tt.second)
			}
			if d, err := s.Device(docs); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("device %+v, error %v; want an error with %q", d, err, tt.err)
			}
		})
	}
}

// TestOddities: what is odd and harmless is taken.
func TestOddities(t *testing.T) {
	tests := []struct{ name, document, want string }{
		{"bgp null", `{"id":"i1","bgp_neighbors":null}`, `{"id":"i1","hostname":"","addresses":null}`},
		{"bgp without routers yet", neighbour(`"peer_ips":[]`), `{"id":"i1","hostname":"cp1","addresses":null}`},
		{"family from the routers, sorted, once", neighbour(`"peer_ips":["fc00:0000:0000:0000:0000:0000:0000:000f","fc00::e","fc00::e"]`),
			`"bgpNeighbors":[{"family":6,"customerAS":65000,"customerIP":"","peerAS":65530,"peerIPs":["fc00::e","fc00::f"],"multihop":false}]`},
		{"password without md5_enabled", neighbour(`"peer_ips":["10.0.0.1"],"md5_password":"x"`), `"md5":"x"`},
		{"password switched off", neighbour(`"peer_ips":["10.0.0.1"],"md5_password":"x","md5_enabled":false`), `"multihop":false}]`},
		{"netmask for cidr", address(`"address":"147.75.1.3","netmask":"255.255.255.254","public":true`), `{"prefix":"147.75.1.3/31","gateway":"","public":true}`},
		{"netmask of IPv6", address(`"address":"2604:1380::3","netmask":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"`), `{"prefix":"2604:1380::3/127","gateway":"","public":true}`},
		{"length in the address", address(`"address":"147.75.1.3/30"`), `{"prefix":"147.75.1.3/30","gateway":"","public":true}`},
		{"neither length nor netmask", address(`"address":"147.75.1.3"`), `{"prefix":"147.75.1.3/32","gateway":"","public":true}`},
		{"public is missing", address(`"address":"10.1.1.3","cidr":31`), `{"prefix":"10.1.1.3/31","gateway":"","public":false}`},
		{"disabled", address(`"address":"147.75.1.3","cidr":31,"enabled":false`), `"public":false}]}`},
		{"elastic", address(`"address":"147.75.194.92","cidr":32,"management":false`), `"elasticIPs":["147.75.194.92/32"]`},
		{"elastic block", address(`"address":"147.75.194.93","cidr":29,"management":false`), `"elasticIPs":["147.75.194.88/29"]`},
		{"the same address twice", address(`"address":"10.99.14.9","cidr":31`), `"addresses":[{"prefix":"10.99.14.9/31","gateway":"10.99.14.8","public":false}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := compact(t, tt.document); !strings.Contains(got, tt.want) {
				t.Errorf("got %s\nwant %s in it", got, tt.want)
			}
		})
	}
}
