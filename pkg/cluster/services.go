package cluster

import (
	"net/netip"
	"slices"
)

// BGP says who announces what. A server has one BGP session with a router: where
// the control plane's speaker holds the sessions of the control planes, that of
// Services stays on the other servers.
type BGP struct {
	// ControlPlane is who announces the Elastic IPs of the control planes: the
	// speaker that is built in, kube-vip as a static pod, or nobody. Default: builtin
	// when there are any.
	ControlPlane string  `yaml:"controlPlane,omitempty" allowed:"builtin kube-vip none"`
	KubeVIP      KubeVIP `yaml:"kubeVIP,omitempty"`
	// Services is who announces the addresses of Services of type LoadBalancer.
	// `bootstrap net render` on a server prints its documents; installing it is up to you.
	Services string `yaml:"services,omitempty" allowed:"none metallb calico cilium"`
	// Namespace is where the speaker of Services runs and reads passwords. Default:
	// metallb-system, calico-system or, for Cilium, kube-system.
	Namespace string `yaml:"namespace,omitempty"`
}

// KubeVIP is read when controlPlane is kube-vip.
type KubeVIP struct {
	// Image is kube-vip's, with a tag; a digest may follow. v1.2.0 or later: earlier
	// ones announce whether or not the API server is healthy. Default:
	// ghcr.io/kube-vip/kube-vip:v1.2.3.
	Image string `yaml:"image,omitempty"`
}

// LoadBalancer says which addresses Services of type LoadBalancer get.
type LoadBalancer struct {
	// Pools are the ranges to choose from; they lead to the servers because
	// bgp.services announces them.
	Pools []Pool `yaml:"pools,omitempty"`
}

// Pool is a set of addresses for Services.
type Pool struct {
	// Name is a DNS label, unique in this list. A Service asks for a pool by it.
	Name string `yaml:"name" required:"true" example:"public"`
	// Addresses are ranges that share no address with pods, Services or Elastic IPs.
	Addresses []netip.Prefix `yaml:"addresses" required:"true" example:"[147.75.40.8/29]"`
	// Manual keeps the addresses for Services that ask for them.
	Manual bool `yaml:"manual,omitempty"`
}

// Speakers of the control plane's Elastic IP.
const (
	SpeakerBuiltin = "builtin"
	SpeakerKubeVIP = "kube-vip"
	SpeakerNone    = "none"
)

// Speakers of Services.
const (
	ServicesNone    = "none"
	ServicesMetalLB = "metallb"
	ServicesCalico  = "calico"
	ServicesCilium  = "cilium"
)

// HoldsControlPlanes says that a speaker of ours, or one that muster lays down,
// holds the sessions of the control planes with their routers. A second speaker
// there would never come up, and nobody would say so.
func (b BGP) HoldsControlPlanes() bool {
	return b.ControlPlane == SpeakerBuiltin || b.ControlPlane == SpeakerKubeVIP
}

// Families says which address families (4, 6) the pools have.
func (l LoadBalancer) Families() []int {
	var families []int
	for _, p := range l.Pools {
		for _, a := range p.Addresses {
			families = append(families, familyOf(a.Addr()))
		}
	}
	slices.Sort(families)
	return slices.Compact(families)
}
