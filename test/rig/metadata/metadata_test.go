package metadata

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	reader "github.com/mustermetal/muster/pkg/metadata"
)

// here is a server whose requests come from this machine.
const here = `servers:
  - id: 7c9a5711-aadd-4fa0-8e57-789431626a27
    hostname: cp1
    tags: [muster-role=control-plane, rack=1]
    macs: ["40:a6:b7:00:00:01"]
    switch: 5707e61f
    addresses:
      - {address: 10.99.14.9/31, gateway: 10.99.14.8, block: 10.99.14.0/25}
      - {address: 147.75.1.3/31, gateway: 147.75.1.2, public: true}
      - {address: 147.75.194.92/32, public: true, elastic: true}
    bgp: [{customerAS: 65000, customerIP: 10.99.14.9, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], md5: secret, multihop: true}]
    userData: |
      #cloud-config
    fault: {}
  - id: other
    hostname: cp2
    addresses: [{address: 10.99.14.11/31}]
    macs: ["40:a6:b7:00:00:02"]
`

// serve answers from an inventory as if requests came from cp1.
func serve(t *testing.T, inventory string, fault string) (*Service, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab.yaml")
	inventory = strings.Replace(inventory, "fault: {}", "fault: "+fault, 1)
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Service{Inventory: path, Neighbour: func(a netip.Addr) string {
		if !a.IsLoopback() {
			return ""
		}
		return "40-A6-B7-00-00-01"
	}}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return s, server.URL
}

// read asks the service as the agent does.
func read(t *testing.T, platform, url string) (reader.Finding, error) {
	t.Helper()
	m := reader.Machine{Root: fstest.MapFS{}, Facts: func() (reader.Facts, error) {
		return reader.Facts{Hardware: device.Hardware{MACs: []string{"40:a6:b7:00:00:01"}}, Links: []device.Link{{
			Name: "bond0", Own: true, Hops: []netip.Addr{netip.MustParseAddr("10.99.14.8")}, Defaults: []netip.Addr{netip.MustParseAddr("147.75.1.2")},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.14.9/31"), netip.MustParsePrefix("147.75.1.3/31")},
		}}}, nil
	}}
	r, err := reader.NewReader(cluster.Spec{Platform: platform, MetadataSource: cluster.MetadataSource{URL: url}}, m)
	if err != nil {
		t.Fatal(err)
	}
	return r.Read(t.Context())
}

// TestForms: what the inventory says arrives at the agent, in each form as far as
// it has a place for it.
func TestForms(t *testing.T) {
	address := func(prefix, gateway, block string, public bool) device.Address {
		a := device.Address{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway), Public: public}
		if block != "" {
			a.Block = netip.MustParsePrefix(block)
		}
		return a
	}
	private, public := address("10.99.14.9/31", "10.99.14.8", "", false), address("147.75.1.3/31", "147.75.1.2", "", true)
	bgp := []device.Neighbor{{Family: 4, CustomerAS: 65000, CustomerIP: netip.MustParseAddr("10.99.14.9"), PeerAS: 65530, Multihop: true, MD5: "secret",
		PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}}}
	of := func(platform string, change func(*device.Device)) device.Device {
		d := device.Device{ID: "7c9a5711-aadd-4fa0-8e57-789431626a27", Hostname: "cp1", Tags: []string{"muster-role=control-plane", "rack=1"}, Platform: platform, Addresses: []device.Address{private, public}}
		change(&d)
		return d
	}
	macs := []string{"40:a6:b7:00:00:01"}
	want := map[string]device.Device{
		Packet: of(Packet, func(d *device.Device) {
			d.Addresses = []device.Address{address("10.99.14.9/31", "10.99.14.8", "10.99.14.0/25", false), public}
			d.ElasticIPs, d.BGPNeighbors, d.MACs = []netip.Prefix{netip.MustParsePrefix("147.75.194.92/32")}, bgp, macs
			d.Switch, d.EventsURL = "5707e61f", "http://169.254.169.254/events"
		}),
		EC2:       of(EC2, func(*device.Device) {}),
		OpenStack: of(OpenStack, func(d *device.Device) { d.MACs = macs }),
		NoCloud:   of(NoCloud, func(d *device.Device) { d.BGPNeighbors = bgp }),
		Vultr:     of(Vultr, func(d *device.Device) { d.MACs = macs }),
		Hetzner: of(Hetzner, func(d *device.Device) {
			a := address("10.99.14.9/31", "10.99.14.8", "10.99.14.8/31", false)
			d.Tags, d.MACs, d.Addresses = nil, macs, []device.Address{public, a}
		}),
		Latitude: of(Latitude, func(d *device.Device) { d.Tags = nil }),
	}
	for platform, device := range want {
		inventory := strings.Replace(here, "    fault: {}", "    forms: ["+platform+"]", 1)
		_, url := serve(t, inventory, "")
		base := url
		if platform == NoCloud {
			base += "/nocloud"
		}
		f, err := read(t, platform, base)
		if err != nil {
			t.Errorf("%s: %v", platform, err)
			continue
		}
		byValue := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
		if diff := cmp.Diff(device, f.Device, byValue); diff != "" {
			t.Errorf("%s (-want +got):\n%s", platform, diff)
		}
		if found, err := read(t, cluster.PlatformAuto, base); err != nil || found.Platform != platform {
			t.Errorf("auto took %s for %s: %v", platform, found.Platform, err)
		}
	}
}

// TestFaults: each way to fail a server reaches the agent as the sentence that its
// status shows.
func TestFaults(t *testing.T) {
	for fault, want := range map[string]string{
		"{kind: absent}":            "it answers 404",
		"{kind: broken}":            "is in trouble: it answers 500",
		"{kind: truncated}":         "is cut off after",
		"{kind: refused}":           "hung up",
		"{kind: slow, delay: 20ms}": "",
		"{kind: absent, for: 1ns}":  "", // is over before it begins
		"{kind: swapped, of: cp2}":  "describes another server: cp2 (other) has MAC 40:a6:b7:00:00:02, this machine has 40:a6:b7:00:00:01",
		"{kind: swapped, of: cp9}":  "no server is called",
	} {
		_, url := serve(t, here, fault)
		_, err := read(t, Packet, url)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", fault, err, want)
		}
	}
	_, url := serve(t, here, "{kind: flaky}")
	var outcomes []string
	for range 4 {
		_, err := read(t, Packet, url)
		outcomes = append(outcomes, fmt.Sprint(err == nil))
	}
	if got := strings.Join(outcomes, " "); got != "false true false true" {
		t.Errorf("flaky: good answers %s", got)
	}
	_, url = serve(t, here, "{kind: no-bgp}")
	if f, err := read(t, Packet, url); err != nil || len(f.Device.BGPNeighbors) != 0 {
		t.Errorf("no-bgp: %+v, %v", f.Device, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"servers: [{id: a, hostname: b}]":                                                                                                 "expected id, hostname, and an address or a MAC",
		"servers: [{id: a, hostnam: b}]":                                                                                                  "field hostnam not found",
		"servers: [{id: a, hostname: b, macs: [x]}]":                                                                                      "servers[0].macs: address x",
		"servers: [{id: a, hostname: b, addresses: [{address: 10.0.0.1}]}]":                                                               "no '/'",
		"servers: [{id: a, hostname: b, macs: ['40:a6:b7:00:00:01'], forms: [gce]}]":                                                      `servers[0].forms has "gce"`,
		"servers: [{id: a, hostname: b, macs: ['40:a6:b7:00:00:01'], fault: {kind: tired}}]":                                              `servers[0].fault.kind is "tired"`,
		"servers: [{id: a, hostname: b, addresses: [{address: 10.0.0.1/24}]}, {id: c, hostname: d, addresses: [{address: 10.0.0.1/24}]}]": "servers[1] (d) has 10.0.0.1, which b has too",
	} {
		path := filepath.Join(t.TempDir(), "lab.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

func TestStore(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if err := s.Fail("cp1", Fault{Kind: Broken}); err == nil {
		t.Error("a fault for a server that nobody put")
	}
	put := Server{ID: "i", Hostname: "cp1", Addresses: []Address{{Address: netip.MustParsePrefix("10.0.0.1/24")}}, UserData: "#!/bin/sh\n"}
	if err := s.Put(put); err != nil {
		t.Fatal(err)
	}
	if err := s.Fail("cp1", Fault{Kind: Broken, For: 60e9}); err != nil {
		t.Fatal(err)
	}
	put.Fault = Fault{Kind: Broken, For: 60e9}
	got, known, err := s.Get("cp1")
	if diff := cmp.Diff(put, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()); err != nil || !known || diff != "" {
		t.Errorf("%v, %v (-put +got):\n%s", known, err, diff)
	}
}
