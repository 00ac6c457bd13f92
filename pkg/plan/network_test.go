package plan

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

var netipValues = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func netIP(s string) netip.Addr       { return netip.MustParseAddr(s) }
func netPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// multihopDevice is a server on the fabric with two top-of-rack routers behind the
// gateway, and a second address family whose session comes from the public
// address.
func multihopDevice() device.Device {
	return device.Device{
		Addresses: []device.Address{
			{Prefix: netPrefix("147.75.55.115/31"), Gateway: netIP("147.75.55.114"), Public: true},
			{Prefix: netPrefix("2604:1380:1:4f00::5/127"), Gateway: netIP("2604:1380:1:4f00::4"), Public: true},
			{Prefix: netPrefix("10.99.14.9/31"), Gateway: netIP("10.99.14.8")},
		},
		BGPNeighbors: []device.Neighbor{
			{Family: 6, CustomerAS: 65000, CustomerIP: netIP("2604:1380:1:4f00::5"), PeerAS: 65530,
				PeerIPs: []netip.Addr{netIP("fc00::f"), netIP("fc00::e")}, Multihop: true},
			{Family: 4, CustomerAS: 65000, CustomerIP: netIP("10.99.14.9"), PeerAS: 65530, MD5: "s3cret",
				PeerIPs: []netip.Addr{netIP("169.254.255.2"), netIP("169.254.255.1")}, Multihop: true},
		},
	}
}

// gatewayPeerDevice is the older shape: the private gateway is the peer.
func gatewayPeerDevice() device.Device {
	return device.Device{
		Addresses: []device.Address{{Prefix: netPrefix("10.99.14.9/31"), Gateway: netIP("10.99.14.8")}},
		BGPNeighbors: []device.Neighbor{{Family: 4, CustomerAS: 65000, CustomerIP: netIP("10.99.14.9"), PeerAS: 65530,
			PeerIPs: []netip.Addr{netIP("10.99.14.8")}}},
	}
}

func TestToRRoutes(t *testing.T) {
	twice := multihopDevice()
	twice.BGPNeighbors = append(twice.BGPNeighbors, twice.BGPNeighbors[1])
	unnamed := multihopDevice()
	unnamed.BGPNeighbors[1].CustomerIP = netip.Addr{}
	unnamed.BGPNeighbors = unnamed.BGPNeighbors[1:]
	unnamed6 := multihopDevice()
	unnamed6.BGPNeighbors[0].CustomerIP = netip.Addr{}
	noV6 := multihopDevice()
	noV6.Addresses = noV6.Addresses[2:]
	both := []Route{
		{Dst: netPrefix("169.254.255.1/32"), Via: netIP("10.99.14.8"), Src: netIP("10.99.14.9")},
		{Dst: netPrefix("169.254.255.2/32"), Via: netIP("10.99.14.8"), Src: netIP("10.99.14.9")},
	}
	six := []Route{
		{Dst: netPrefix("fc00::e/128"), Via: netIP("2604:1380:1:4f00::4"), Src: netIP("2604:1380:1:4f00::5")},
		{Dst: netPrefix("fc00::f/128"), Via: netIP("2604:1380:1:4f00::4"), Src: netIP("2604:1380:1:4f00::5")},
	}
	all := append(append([]Route{}, both...), six...)
	for _, tc := range []struct {
		name   string
		device device.Device
		want   []Route
	}{
		{"no neighbours", device.Device{}, nil},
		{"two routers, two families, sorted", multihopDevice(), all},
		{"a neighbour listed twice", twice, all},
		{"source not named: the private address", unnamed, both},
		{"source not named, no private address of the family: the public one", unnamed6, all},
		{"no address of the family: no route of it", noV6, both},
		{"the peer is the gateway", gatewayPeerDevice(), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, ToRRoutes(tc.device), netipValues); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNetworkFor(t *testing.T) {
	eips := []netip.Prefix{netPrefix("147.75.194.92/32"), netPrefix("147.75.194.91/32"), netPrefix("147.75.194.92/32")}
	down := NetworkFor(multihopDevice(), eips, false)
	if len(down.Addresses) != 0 || len(down.Routes) != 4 {
		t.Errorf("not healthy: %+v, want no address and four routes", down)
	}
	up := NetworkFor(multihopDevice(), eips, true)
	want := []netip.Prefix{netPrefix("147.75.194.91/32"), netPrefix("147.75.194.92/32")}
	if diff := cmp.Diff(want, up.Addresses, netipValues); diff != "" {
		t.Errorf("healthy (-want +got):\n%s", diff)
	}
	if eips[0] != netPrefix("147.75.194.92/32") {
		t.Error("NetworkFor reordered its argument")
	}
}

func eipSpec() cluster.Spec {
	return cluster.Spec{Network: cluster.Network{ElasticIPs: []cluster.ElasticIP{
		{Address: netPrefix("147.75.194.92/32"), On: "control-planes"},
		{Address: netPrefix("147.75.194.93/32"), On: "elsewhere"},
	}}}
}

func TestAnnouncementFor(t *testing.T) {
	got := AnnouncementFor(eipSpec(), multihopDevice(), "00112233445566778899aabbccddeeff")
	want := Announcement{
		Version: 1, RouterID: netIP("10.99.14.9"), AS: 65000,
		Peers: []Peer{
			{Address: netIP("169.254.255.1"), Source: netIP("10.99.14.9"), AS: 65530, Multihop: true, Password: "s3cret"},
			{Address: netIP("169.254.255.2"), Source: netIP("10.99.14.9"), AS: 65530, Multihop: true, Password: "s3cret"},
			{Address: netIP("fc00::e"), Source: netIP("2604:1380:1:4f00::5"), AS: 65530, Multihop: true},
			{Address: netIP("fc00::f"), Source: netIP("2604:1380:1:4f00::5"), AS: 65530, Multihop: true},
		},
		Prefixes:  []netip.Prefix{netPrefix("147.75.194.92/32")},
		HealthURL: "https://10.99.14.9:6443/readyz",
		HealthCA:  "/etc/kubernetes/pki/ca.crt",
	}
	if diff := cmp.Diff(want, got, netipValues); diff != "" {
		t.Errorf("announcement (-want +got):\n%s", diff)
	}
	// The file on the server must carry the password; formatting must not.
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back Announcement
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, back, netipValues); diff != "" {
		t.Errorf("after JSON (-want +got):\n%s", diff)
	}
	if s := got.Peers[0].Password.String(); strings.Contains(s, "s3cret") {
		t.Errorf("the password shows itself: %s", s)
	}
}

func TestAnnouncementWithoutIPv4(t *testing.T) {
	d := device.Device{
		Addresses: []device.Address{{Prefix: netPrefix("fd00:1::9/127"), Gateway: netIP("fd00:1::8")}},
		BGPNeighbors: []device.Neighbor{{Family: 6, CustomerAS: 65000, PeerAS: 65530,
			PeerIPs: []netip.Addr{netIP("fc00::e")}}},
	}
	spec := eipSpec()
	spec.Kubernetes.ServiceSubnets = []netip.Prefix{netPrefix("fd98::/108")}
	a, b := AnnouncementFor(spec, d, "one"), AnnouncementFor(spec, d, "two")
	if !a.RouterID.Is4() || a.RouterID == b.RouterID {
		t.Errorf("router ids %s and %s: want two different IPv4 addresses", a.RouterID, b.RouterID)
	}
	if want := "https://[fd00:1::9]:6443/readyz"; a.HealthURL != want {
		t.Errorf("health URL %s, want %s", a.HealthURL, want)
	}
}
