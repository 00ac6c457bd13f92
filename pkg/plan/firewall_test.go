package plan_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
)

var update = flag.Bool("update", false, "write the golden files anew")

// firewallCluster is a cluster file; tests put text in the place of FIREWALL.
const firewallCluster = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers: {expect: 5, controlPlanes: 3}
  discovery: [{static: [10.99.14.9, 10.99.14.11]}]
  kubernetes:
    version: v1.36.3
    endpoint: 147.75.194.92:6443
    podSubnets: [172.16.0.0/12]
    serviceSubnets: [192.168.0.0/16]
  network:
    elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]
FIREWALL`

func firewallSpec(t *testing.T, old, new string) cluster.Spec {
	t.Helper()
	if !strings.Contains(firewallCluster, old) {
		t.Fatalf("%q is not in the file", old)
	}
	text := strings.Replace(strings.Replace(firewallCluster, old, new, 1), "FIREWALL", "", 1)
	c, problems := cluster.Parse("c.yaml", []byte(text))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	return c.Spec
}

// shapes of servers.
var (
	publicServer = device.Device{Hostname: "cp1", Addresses: []device.Address{
		{Prefix: netip.MustParsePrefix("147.75.100.3/31"), Gateway: netip.MustParseAddr("147.75.100.2"), Public: true},
		{Prefix: netip.MustParsePrefix("2604:1380:1:4f00::3/127"), Gateway: netip.MustParseAddr("2604:1380:1:4f00::2"), Public: true},
		{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
	}}
	privateServer = device.Device{Hostname: "cp1", Addresses: []device.Address{
		{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
	}}
	// A private network of addresses that are not private to everybody.
	ownRange = device.Device{Hostname: "cp1", Addresses: []device.Address{
		{Prefix: netip.MustParsePrefix("147.75.100.3/31"), Gateway: netip.MustParseAddr("147.75.100.2"), Public: true},
		{Prefix: netip.MustParsePrefix("198.18.7.9/24"), Gateway: netip.MustParseAddr("198.18.7.1")},
	}}
)

// What nft is given, to be read by eye: one file for each shape.
func TestFirewallScripts(t *testing.T) {
	for _, tt := range []struct {
		name, old, new string
		device         device.Device
	}{
		{"public", "FIREWALL", "", publicServer},
		{"private-on", "FIREWALL", "    firewall: {mode: on}\n", privateServer},
		{"off", "FIREWALL", "    firewall: {mode: off}\n", publicServer},
		{"narrow", "FIREWALL", "    firewall:\n      apiServerFrom: [185.1.2.0/24, '2a02:100::/32']\n      allow: [{port: 30443, from: [0.0.0.0/0, '::/0']}, {port: 30000, through: 30099, from: [185.1.2.0/24]}]\n", publicServer},
		{"own-range", "FIREWALL", "    firewall: {trusted: [198.18.0.0/15]}\n", ownRange},
		{"external", "    endpoint: 147.75.194.92:6443", "    endpoint: {address: 'api.example.net:443', external: true}", publicServer},
		{"dual-stack", "    podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]\n  network:\n    elasticIPs: [", "    podSubnets: [172.16.0.0/12, 'fd00:10::/56']\n    serviceSubnets: [192.168.0.0/16, 'fd00:20::/108']\n  network:\n    elasticIPs: [{address: '2604:1380:1::92/128', on: control-planes}, ", publicServer},
		{"metadata-by-name", `"http://169.254.169.254"`, `"https://metadata.example.net"`, publicServer},
		{"other-metadata", `"http://169.254.169.254"`, `"http://10.1.2.3:50061"`, publicServer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := plan.FirewallFor(firewallSpec(t, tt.old, tt.new), tt.device).Script()
			golden := filepath.Join("testdata", "firewall", tt.name+".nft")
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
				t.Errorf("script (-want +got; read it, then go test ./pkg/plan -update):\n%s", diff)
			}
		})
	}
}

// auto is on only where muster knows who the others are.
func TestFirewallAuto(t *testing.T) {
	for _, tt := range []struct {
		name, firewall string
		device         device.Device
		on             bool
		why            string
	}{
		{"a public address", "", publicServer, true, ""},
		{"no public address", "", privateServer, false, "no public address"},
		{"on without a public address", "    firewall: {mode: on}\n", privateServer, true, ""},
		{"off", "    firewall: {mode: off}\n", publicServer, false, ""},
		{"a network of its own", "", ownRange, false, "198.18.7.9/24"},
		{"a network of its own, trusted", "    firewall: {trusted: [198.18.0.0/15]}\n", ownRange, true, ""},
		{"a network of its own, and a person who knows", "    firewall: {mode: on}\n", ownRange, true, ""},
	} {
		f := plan.FirewallFor(firewallSpec(t, "FIREWALL", tt.firewall), tt.device)
		if f.On != tt.on || (tt.why == "") != (f.Why == "") || !strings.Contains(f.Why, tt.why) {
			t.Errorf("%s: on %t (%s), expected %t (%s)", tt.name, f.On, f.Why, tt.on, tt.why)
		}
	}
}

// A range in which discovery looks has the servers in it.
func TestFirewallTrustsDiscovery(t *testing.T) {
	spec := firewallSpec(t, "[{static: [10.99.14.9, 10.99.14.11]}]", "[{subnet: 45.1.2.0/24}, {subnet: private}, {static: [46.1.2.3]}]")
	f := plan.FirewallFor(spec, publicServer)
	for address, want := range map[string]bool{"45.1.2.200": true, "46.1.2.3": true, "46.1.2.4": false} {
		if got := slices.ContainsFunc(f.Trusted, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(address)) }); got != want {
			t.Errorf("%s is trusted: %v", address, got)
		}
	}
}
