package speakers

import (
	"fmt"
	"net/netip"

	"github.com/mustermetal/muster/pkg/cluster"
)

// The types below are the part of metallb.io that muster writes. Fields and rules:
// MetalLB v0.16.2, api/ and internal/config. Its default backend is FRR-K8s, which
// wants ebgpMultiHop said, one router id and one myASN on a node, and peers with
// nothing on its own host.
type ipAddressPool struct {
	Addresses  []netip.Prefix `yaml:"addresses"`
	AutoAssign *bool          `yaml:"autoAssign,omitempty"`
}

type bgpAdvertisement struct {
	IPAddressPools []string `yaml:"ipAddressPools"`
}

type metalLBPeer struct {
	MyASN          uint32          `yaml:"myASN"`
	PeerASN        uint32          `yaml:"peerASN"`
	PeerAddress    netip.Addr      `yaml:"peerAddress"`
	SourceAddress  string          `yaml:"sourceAddress,omitempty"`
	EBGPMultiHop   bool            `yaml:"ebgpMultiHop,omitempty"`
	HoldTime       string          `yaml:"holdTime"`
	KeepaliveTime  string          `yaml:"keepaliveTime"`
	PasswordSecret *nameRef        `yaml:"passwordSecret,omitempty"`
	NodeSelectors  []labelSelector `yaml:"nodeSelectors,omitempty"`
}

type nameRef struct {
	Name string `yaml:"name"`
}

// metalLB renders pools, peers and the advertisement, without which MetalLB
// announces nothing.
func metalLB(spec cluster.Spec, peerings []peering) ([]Document, error) {
	const v1beta1, v1beta2 = "metallb.io/v1beta1", "metallb.io/v1beta2"
	namespace := spec.Network.BGP.Namespace
	var out []Document
	var pools []string
	for _, p := range spec.Network.LoadBalancer.Pools {
		pool := ipAddressPool{Addresses: p.Addresses}
		if p.Manual {
			pool.AutoAssign = new(bool)
		}
		out = append(out, document(v1beta1, "IPAddressPool", metadata{Name: p.Name, Namespace: namespace}, pool))
		pools = append(pools, p.Name)
	}
	for _, p := range peerings {
		for _, s := range p.sessions {
			name := s.name(p)
			peer := metalLBPeer{
				MyASN: s.as, PeerASN: s.routerAS, PeerAddress: s.router, EBGPMultiHop: s.multihop && s.ebgp(),
				HoldTime: fmt.Sprintf("%ds", holdTime), KeepaliveTime: fmt.Sprintf("%ds", keepaliveTime),
			}
			if s.source.IsValid() { // of one node: an object for all has none that fits
				peer.SourceAddress = s.source.String()
			}
			if s.password != "" {
				peer.PasswordSecret = &nameRef{name}
				out = append(out, p.own(secret(basicAuth, namespace, name, s.password))...)
			}
			if selector := p.nodes(); selector != nil {
				peer.NodeSelectors = []labelSelector{*selector}
			}
			out = append(out, p.own(document(v1beta2, "BGPPeer", metadata{Name: name, Namespace: namespace}, peer))...)
		}
	}
	return append(out, document(v1beta1, "BGPAdvertisement", metadata{Name: "muster", Namespace: namespace}, bgpAdvertisement{pools})), nil
}
