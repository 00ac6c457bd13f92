package plan

import (
	"net/netip"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestDescribed: what is for all servers lies below what is for one, and what is only
// laid over a platform's answer describes no server.
func TestDescribed(t *testing.T) {
	peer := func(a string) []cluster.StaticNeighbor {
		return []cluster.StaticNeighbor{{CustomerAS: 65000, PeerAS: 65530, PeerIPs: []netip.Addr{netip.MustParseAddr(a)}}}
	}
	at := func(a string) []cluster.StaticAddress {
		return []cluster.StaticAddress{{Address: netip.MustParsePrefix(a)}}
	}
	got := Described([]cluster.StaticServer{
		{Match: cluster.StaticMatch{Hostname: "cp1"}, ID: "1", Hostname: "cp1", Addresses: at("10.0.0.1/24")},
		{Match: cluster.StaticMatch{Hostname: "cp2"}, ID: "2", Hostname: "cp2", Addresses: at("10.0.0.2/24"), BGPNeighbors: peer("10.0.0.250")},
		{Match: cluster.StaticMatch{Hostname: "w1"}, Tags: []string{"rack=1"}},
		{Match: cluster.StaticMatch{All: true}, BGPNeighbors: peer("10.0.0.251")},
	})
	if len(got) != 2 || got[0].BGPNeighbors[0].PeerIPs[0].String() != "10.0.0.251" || got[0].BGPNeighbors[0].CustomerIP.String() != "10.0.0.1" ||
		got[1].BGPNeighbors[0].PeerIPs[0].String() != "10.0.0.250" || len(got[1].BGPNeighbors) != 1 {
		t.Errorf("%+v", got)
	}
}
