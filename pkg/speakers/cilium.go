package speakers

import (
	"fmt"
	"net/netip"

	"github.com/mustermetal/muster/pkg/cluster"
)

// The types below are the part of cilium.io/v2 that muster writes. Fields and
// rules: Cilium v1.20.2, pkg/k8s/apis/cilium.io/v2.
type ciliumClusterConfig struct {
	NodeSelector *labelSelector   `yaml:"nodeSelector,omitempty"`
	BGPInstances []ciliumInstance `yaml:"bgpInstances"`
}

// ciliumInstance has no localPort: without one Cilium listens on none.
type ciliumInstance struct {
	Name     string       `yaml:"name"`
	LocalASN uint32       `yaml:"localASN"`
	Peers    []ciliumPeer `yaml:"peers"`
}

type ciliumPeer struct {
	Name          string     `yaml:"name"`
	PeerASN       uint32     `yaml:"peerASN"`
	PeerAddress   netip.Addr `yaml:"peerAddress"`
	PeerConfigRef nameRef    `yaml:"peerConfigRef"`
}

type ciliumPeerConfig struct {
	AuthSecretRef string         `yaml:"authSecretRef,omitempty"`
	EBGPMultihop  int            `yaml:"ebgpMultihop,omitempty"` // a TTL; 1 when left out
	Timers        ciliumTimers   `yaml:"timers"`
	Families      []ciliumFamily `yaml:"families"`
}

type ciliumTimers struct {
	HoldTimeSeconds      int `yaml:"holdTimeSeconds"`
	KeepAliveTimeSeconds int `yaml:"keepAliveTimeSeconds"`
	// The default of 120 s is how long a session would stay away after a router came back.
	ConnectRetryTimeSeconds int `yaml:"connectRetryTimeSeconds"`
}

type ciliumFamily struct {
	AFI            string        `yaml:"afi"`
	SAFI           string        `yaml:"safi"`
	Advertisements labelSelector `yaml:"advertisements"`
}

type ciliumAdvertisements struct {
	Advertisements []ciliumAdvertisement `yaml:"advertisements"`
}

type ciliumAdvertisement struct {
	AdvertisementType string        `yaml:"advertisementType"`
	Service           ciliumService `yaml:"service"`
	Selector          labelSelector `yaml:"selector"`
}

type ciliumService struct {
	Addresses []string `yaml:"addresses"`
}

type ciliumPool struct {
	Blocks          []cidrRef      `yaml:"blocks"`
	ServiceSelector *labelSelector `yaml:"serviceSelector,omitempty"`
}

const (
	ciliumName = "muster"
	// poolLabel is what a Service asks for a pool with that is not for all.
	poolLabel = "loadbalancer-pool"
	retryTime = 5 // seconds
)

// advertised ties the families of a peer to the advertisement.
func advertised() map[string]string { return map[string]string{"advertise": "muster-services"} }

// cilium renders pools, the advertisement, and for each peering its instance.
func cilium(spec cluster.Spec, peerings []peering) ([]Document, error) {
	const v2 = "cilium.io/v2"
	var out []Document
	for _, p := range spec.Network.LoadBalancer.Pools {
		var pool ciliumPool
		for _, a := range p.Addresses {
			pool.Blocks = append(pool.Blocks, cidrRef{a})
		}
		if p.Manual {
			pool.ServiceSelector = &labelSelector{MatchLabels: map[string]string{poolLabel: p.Name}}
		}
		out = append(out, document(v2, "CiliumLoadBalancerIPPool", metadata{Name: p.Name}, pool))
	}
	// Without a selector no Service is announced. This one is true of all.
	every := labelSelector{MatchExpressions: []requirement{{Key: "advertise", Operator: "NotIn", Values: []string{"never"}}}}
	m := metadata{Name: ciliumName, Labels: labels()}
	for k, v := range advertised() {
		m.Labels[k] = v
	}
	out = append(out, document(v2, "CiliumBGPAdvertisement", m, ciliumAdvertisements{[]ciliumAdvertisement{
		{AdvertisementType: "Service", Service: ciliumService{[]string{"LoadBalancerIP"}}, Selector: every},
	}}))
	for _, p := range peerings {
		name := ciliumName
		if p.node != "" {
			name += "-" + p.node
		}
		instance := ciliumInstance{Name: ciliumName}
		for _, s := range p.sessions {
			peer := s.name(p)
			instance.LocalASN = s.as
			instance.Peers = append(instance.Peers, ciliumPeer{peer, s.routerAS, s.router, nameRef{peer}})
			config := ciliumPeerConfigOf(s)
			if s.password != "" {
				config.AuthSecretRef = peer
				out = append(out, p.own(secret(opaque, spec.Network.BGP.Namespace, peer, s.password))...)
			}
			out = append(out, p.own(document(v2, "CiliumBGPPeerConfig", metadata{Name: peer}, config))...)
		}
		out = append(out, p.own(document(v2, "CiliumBGPClusterConfig", metadata{Name: name},
			ciliumClusterConfig{NodeSelector: p.nodes(), BGPInstances: []ciliumInstance{instance}}))...)
	}
	return out, nil
}

func ciliumPeerConfigOf(s session) ciliumPeerConfig {
	c := ciliumPeerConfig{
		Timers: ciliumTimers{HoldTimeSeconds: holdTime, KeepAliveTimeSeconds: keepaliveTime, ConnectRetryTimeSeconds: retryTime},
		Families: []ciliumFamily{{AFI: fmt.Sprintf("ipv%d", s.family()), SAFI: "unicast",
			Advertisements: labelSelector{MatchLabels: advertised()}}},
	}
	if s.multihop && s.ebgp() {
		c.EBGPMultihop = ttl
	}
	return c
}
