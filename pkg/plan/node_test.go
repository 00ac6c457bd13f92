package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// TestNodeFor: the node's name and addresses, and what clients dial.
func TestNodeFor(t *testing.T) {
	v4 := device.Address{Prefix: netPrefix("10.99.14.9/31"), Gateway: netIP("10.99.14.8")}
	v6 := device.Address{Prefix: netPrefix("fd00:1::9/127"), Gateway: netIP("fd00:1::8")}
	public := device.Address{Prefix: netPrefix("147.75.55.115/31"), Gateway: netIP("147.75.55.114"), Public: true}
	leader := netIP("10.99.14.11")
	tests := []struct {
		name      string
		hostname  string
		addresses []device.Address
		endpoint  string
		leader    netip.Addr
		want      Node
		err       string // parts, separated by |
	}{
		{"an Elastic IP", "cp1", []device.Address{public, v4}, "147.75.194.92:6443", leader,
			Node{Name: "cp1", Private: netIP("10.99.14.9"), Endpoint: "147.75.194.92:6443"}, ""},
		{"no endpoint: the first control plane", "w1", []device.Address{v4}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Endpoint: "10.99.14.11:6443"}, ""},
		{"no endpoint, nobody leads yet", "w1", []device.Address{v4}, "", netip.Addr{},
			Node{Name: "w1", Private: netIP("10.99.14.9")}, ""},
		{"no endpoint, IPv6 leader", "w1", []device.Address{v6}, "", netIP("fd00:1::b"),
			Node{Name: "w1", Private: netIP("fd00:1::9"), Endpoint: "[fd00:1::b]:6443"}, ""},
		{"both families: IPv4", "w1", []device.Address{v6, v4}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Endpoint: "10.99.14.11:6443"}, ""},
		{"only public", "w1", []device.Address{public}, "", leader, Node{}, "device 0815 has no private address|give the server one"},
		{"no name", "", []device.Address{v4}, "", leader, Node{}, "naming the node: "},
		{"no name that Kubernetes takes", "_", []device.Address{v4}, "", leader, Node{}, "naming the node: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c cluster.Cluster
			c.Spec.Kubernetes.Endpoint.Address = tt.endpoint
			got, err := NodeFor(c, device.Device{ID: "0815", Hostname: tt.hostname, Addresses: tt.addresses}, tt.leader)
			if diff := cmp.Diff(tt.want, got, netipValues); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.err != "") {
				t.Fatalf("error %v, expected %q", err, tt.err)
			}
			for part := range strings.SplitSeq(tt.err, "|") {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
		})
	}
}

func TestServerURL(t *testing.T) {
	for at, want := range map[string]string{"10.99.14.9": "https://10.99.14.9:6443", "fd00:1::9": "https://[fd00:1::9]:6443"} {
		if got := ServerURL(netIP(at)); got != want {
			t.Errorf("ServerURL(%s) = %s, expected %s", at, got, want)
		}
	}
}

// TestEligible: each way to say who may become a control plane.
func TestEligible(t *testing.T) {
	d := device.Device{Hostname: "cp-1.ams1.example.net", Tags: []string{"env=prod", "muster-role=control-plane"}}
	tests := []struct {
		name string
		e    cluster.Eligible
		d    device.Device
		want bool
	}{
		{"tag with the value", cluster.Eligible{Tag: "muster-role"}, d, true},
		{"tag alone", cluster.Eligible{Tag: "muster-role"}, device.Device{Tags: []string{"muster-role"}}, true},
		{"tag with another value", cluster.Eligible{Tag: "muster-role"}, device.Device{Tags: []string{"muster-role=worker"}}, false},
		{"a longer tag", cluster.Eligible{Tag: "muster-role"}, device.Device{Tags: []string{"muster-role-2=control-plane"}}, false},
		{"no tag", cluster.Eligible{Tag: "muster-role"}, device.Device{}, false},
		{"whole tag", cluster.Eligible{Tag: "env=prod"}, d, true},
		{"hostname", cluster.Eligible{Hostname: "cp-*"}, d, true},
		{"other hostname", cluster.Eligible{Hostname: "cp-*"}, device.Device{Hostname: "w-1"}, false},
		{"listed", cluster.Eligible{List: []string{"x", "CP-1.AMS1.example.net"}}, d, true},
		{"not listed", cluster.Eligible{List: []string{"cp-2"}}, d, false},
		{"all", cluster.Eligible{All: true}, device.Device{}, true},
		{"none", cluster.Eligible{None: true}, d, false},
		{"nothing said", cluster.Eligible{}, device.Device{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Eligible(tt.e, tt.d)
			if err != nil || got != tt.want {
				t.Errorf("%t, %v; expected %t", got, err, tt.want)
			}
		})
	}
	_, err := Eligible(cluster.Eligible{Hostname: "cp-["}, d)
	if err == nil || !strings.Contains(err.Error(), `spec.servers.eligible.hostname "cp-["`) {
		t.Errorf("a broken pattern: %v", err)
	}
}
