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
	public6 := device.Address{Prefix: netPrefix("2604:1380:1::5/127"), Gateway: netIP("2604:1380:1::4"), Public: true}
	six, dual := []netip.Prefix{netPrefix("fd98::/108")}, []netip.Prefix{netPrefix("10.96.0.0/16"), netPrefix("fd98::/108")}
	leader := netIP("10.99.14.11")
	tests := []struct {
		name      string
		hostname  string
		addresses []device.Address
		endpoint  string
		leader    netip.Addr
		want      Node
		err       string // parts, separated by |
		services  []netip.Prefix
	}{
		{"an Elastic IP", "cp1", []device.Address{public, v4}, "147.75.194.92:6443", leader,
			Node{Name: "cp1", Private: netIP("10.99.14.9"), Endpoint: "147.75.194.92:6443"}, "", nil},
		{"no endpoint: the first control plane", "w1", []device.Address{v4}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Endpoint: "10.99.14.11:6443"}, "", nil},
		{"no endpoint, nobody leads yet", "w1", []device.Address{v4}, "", netip.Addr{},
			Node{Name: "w1", Private: netIP("10.99.14.9")}, "", nil},
		{"no endpoint, IPv6 leader", "w1", []device.Address{v6}, "", netIP("fd00:1::b"),
			Node{Name: "w1", Private: netIP("fd00:1::9"), Endpoint: "[fd00:1::b]:6443"}, "", six},
		{"both families: IPv4", "w1", []device.Address{v6, v4}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Endpoint: "10.99.14.11:6443"}, "", nil},
		{"both families in the cluster", "w1", []device.Address{v6, v4}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Second: netIP("fd00:1::9"), Endpoint: "10.99.14.11:6443"}, "", dual},
		{"IPv6 first", "w1", []device.Address{v4, v6}, "", netIP("fd00:1::b"),
			Node{Name: "w1", Private: netIP("fd00:1::9"), Second: netIP("10.99.14.9"), Endpoint: "[fd00:1::b]:6443"}, "", []netip.Prefix{dual[1], dual[0]}},
		{"the second family is public", "w1", []device.Address{v4, public6}, "", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Second: netIP("2604:1380:1::5"), Endpoint: "10.99.14.11:6443"}, "", dual},
		{"an endpoint of the other family", "w1", []device.Address{v4, public6}, "[2604:1380:1::92]:6443", leader,
			Node{Name: "w1", Private: netIP("10.99.14.9"), Endpoint: "[2604:1380:1::92]:6443"}, "", nil},
		{"no address of the first family", "w1", []device.Address{v4, public6}, "", leader, Node{},
			"device 0815 has no private IPv6 address, only 10.99.14.9/31, but|begin with fd98::/108", six},
		{"no address of the second family", "w1", []device.Address{v4}, "", leader, Node{},
			"device 0815 has no IPv6 address, but spec.kubernetes.serviceSubnets are 10.96.0.0/16 and fd98::/108", dual},
		{"no address of the endpoint's family", "w1", []device.Address{v4}, "[2604:1380:1::92]:6443", leader, Node{},
			"device 0815 has no address of the family of the endpoint [2604:1380:1::92]:6443", nil},
		{"only public", "w1", []device.Address{public}, "", leader, Node{}, "device 0815 has no private address|give the server one", nil},
		{"no name", "", []device.Address{v4}, "", leader, Node{}, "naming the node: ", nil},
		{"no name that Kubernetes takes", "_", []device.Address{v4}, "", leader, Node{}, "naming the node: ", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c cluster.Cluster
			c.Spec.Kubernetes.Endpoint.Address, c.Spec.Kubernetes.ServiceSubnets = tt.endpoint, tt.services
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
