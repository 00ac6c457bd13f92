package device

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func TestParsePacketGolden(t *testing.T) {
	documents, err := filepath.Glob("testdata/packet/*.json")
	if err != nil || len(documents) < 7 {
		t.Fatalf("documents: %v, %v", documents, err)
	}
	for _, document := range documents {
		t.Run(filepath.Base(document), func(t *testing.T) {
			raw, err := os.ReadFile(document)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if d, err := ParsePacket(raw); err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				b, err := json.MarshalIndent(d, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = string(b) + "\n"
			}
			golden := strings.TrimSuffix(document, ".json") + ".device"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// small is the least document that is complete.
const small = `{"id":"i1","hostname":"cp1","network":{"addresses":[
	{"address":"10.99.14.9","cidr":31,"gateway":"10.99.14.8","public":false}]}%s}`

func TestParsePacketOddities(t *testing.T) {
	neighbor := func(fields string) string {
		return strings.Replace(small, "%s", `,"bgp_neighbors":[{"customer_as":65000,"peer_as":65530,`+fields+`}]`, 1)
	}
	address := func(fields string) string {
		return `{"id":"i1","hostname":"cp1","network":{"addresses":[
			{"address":"10.99.14.9","cidr":31,"gateway":"10.99.14.8","public":false},{` + fields + `}]}}`
	}
	tests := []struct {
		name, document string
		want           func(Device) any // nil: an error is expected
		value          any
		err            string
	}{
		{name: "bgp missing", document: strings.Replace(small, "%s", "", 1), want: neighbors, value: 0},
		{name: "bgp null", document: strings.Replace(small, "%s", `,"bgp_neighbors":null`, 1), want: neighbors, value: 0},
		{name: "bgp empty", document: strings.Replace(small, "%s", `,"bgp_neighbors":[]`, 1), want: neighbors, value: 0},
		{name: "bgp without routers yet", document: neighbor(`"peer_ips":[]`), want: neighbors, value: 0},
		{name: "family from the routers, sorted, once", document: neighbor(`"peer_ips":["fc00:0000:0000:0000:0000:0000:0000:000f","fc00::e","fc00::e"]`),
			want: func(d Device) any { return d.BGPNeighbors[0] }, value: Neighbor{
				Family: 6, CustomerAS: 65000, PeerAS: 65530, PeerIPs: addrs("fc00::e", "fc00::f"),
			}},
		{name: "password without md5_enabled", document: neighbor(`"peer_ips":["10.0.0.1"],"md5_password":"x"`), want: md5, value: "x"},
		{name: "password switched off", document: neighbor(`"peer_ips":["10.0.0.1"],"md5_password":"x","md5_enabled":false`), want: md5, value: ""},
		{name: "md5 without password", document: neighbor(`"peer_ips":["10.0.0.1"],"md5_password":null,"md5_enabled":true`), err: "bgp_neighbors[0]: md5_enabled is true, but md5_password is empty"},
		{name: "mixed families", document: neighbor(`"peer_ips":["10.0.0.1","fc00::e"]`), err: "bgp_neighbors[0]: peer fc00::e is not of address_family 4"},
		{name: "no AS", document: neighbor(`"peer_ips":["10.0.0.1"],"peer_as":0`), err: "customer_as is 65000 and peer_as is 0"},
		{name: "netmask for cidr", document: address(`"address":"147.75.1.3","netmask":"255.255.255.254","public":true`), want: second, value: "147.75.1.3/31"},
		{name: "netmask of IPv6", document: address(`"address":"2604:1380::3","netmask":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe","public":true`), want: second, value: "2604:1380::3/127"},
		{name: "length in the address", document: address(`"address":"147.75.1.3/30","public":true`), want: second, value: "147.75.1.3/30"},
		{name: "numbers as strings", document: address(`"address":"147.75.1.3","cidr":"31","address_family":"4","public":true`), want: second, value: "147.75.1.3/31"},
		{name: "disabled", document: address(`"address":"147.75.1.3","cidr":31,"enabled":false,"public":true`), want: second, value: ""},
		{name: "elastic", document: address(`"address":"147.75.194.92","cidr":32,"management":false,"public":true`), want: elastic, value: "147.75.194.92/32"},
		{name: "elastic block", document: address(`"address":"147.75.194.93","cidr":29,"management":false,"public":true`), want: elastic, value: "147.75.194.88/29"},
		{name: "no length", document: address(`"address":"147.75.1.3"`), err: "network.addresses[1]: address 147.75.1.3 has neither cidr nor netmask"},
		{name: "netmask with a hole", document: address(`"address":"147.75.1.3","netmask":"255.0.255.0"`), err: "netmask 255.0.255.0 has a hole"},
		{name: "length too long", document: address(`"address":"147.75.1.3","cidr":33`), err: "has length /33; expected 1 to 32"},
		{name: "address of the wrong family", document: address(`"address":"147.75.1.3","cidr":31,"address_family":6`), err: "address 147.75.1.3 is not of address_family 6"},
		{name: "bad gateway", document: address(`"address":"147.75.1.3","cidr":31,"gateway":"no"`), err: "gateway of 147.75.1.3/31"},
		{name: "all missing", document: `{}`, err: "it has no id, no hostname, no private address"},
		{name: "empty", document: " \n", err: "metadata document is empty"},
		{name: "HTML", document: "<!DOCTYPE html><title>Sign in</title>", err: "is HTML or XML"},
		{name: "text", document: "not found", err: "is no JSON object"},
		{name: "error document", document: `{"error":"Couldn't find instance"}`, err: "answered with an error document: \"Couldn't find instance\""},
		{name: "cut off", document: small[:40], err: "is cut off after 40 bytes"},
		{name: "wrong type", document: `{"id":5}`, err: "is not understood"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParsePacket([]byte(tt.document))
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v; want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.value, tt.want(d), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func neighbors(d Device) any { return len(d.BGPNeighbors) }
func md5(d Device) any       { return d.BGPNeighbors[0].MD5 }
func elastic(d Device) any   { return d.ElasticIPs[0].String() }
func second(d Device) any {
	if len(d.Addresses) < 2 {
		return ""
	}
	return d.Addresses[1].Prefix.String()
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestParsePacketCutOffAnywhere(t *testing.T) {
	raw, err := os.ReadFile("testdata/packet/equinix-ibx-ny5-2021-bgp-eip.json")
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.TrimSpace(string(raw))
	for n := 1; n < len(whole); n += 7 {
		if _, err := ParsePacket([]byte(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v; want io.ErrUnexpectedEOF", n, err)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	documents, _ := filepath.Glob("testdata/packet/*.json")
	for _, document := range documents {
		raw, err := os.ReadFile(document)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		d, err := ParsePacket(document)
		if err != nil {
			return
		}
		// What was accepted survives the cache.
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("accepted document makes a device that cannot be stored: %v", err)
		}
		var again Device
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("stored device cannot be read: %v\n%s", err, b)
		}
	})
}
