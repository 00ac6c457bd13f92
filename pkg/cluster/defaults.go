package cluster

import (
	"net/netip"
	"time"
)

// withDefaults fills in what the file leaves out. The copy that is rendered
// carries them written out, so that an agent of another version cannot read the
// same file differently.
func withDefaults(c Cluster) Cluster {
	s := &c.Spec
	// Safe: one wiped or surplus server in three cannot lead to a second cluster.
	set(&s.Servers.Quorum, QuorumSafe)
	// The DMI UUID survives a new disk; fleets with duplicates say mac.
	set(&s.Identity.Source, "auto")
	// A server without NTP must not hold up the rest for ever.
	set(&s.Time.Require, "auto")
	// An Elastic IP that nobody announces leads nowhere; without one there is
	// nothing to announce.
	speaker := SpeakerNone
	if len(s.Network.ElasticIPs) > 0 {
		speaker = SpeakerBuiltin
	}
	bgp := &s.Network.BGP
	set(&bgp.ControlPlane, speaker)
	if bgp.ControlPlane == SpeakerKubeVIP {
		// The release whose environment pkg/speakers writes.
		set(&bgp.KubeVIP.Image, "ghcr.io/kube-vip/kube-vip:v1.2.3")
	}
	set(&bgp.Services, ServicesNone)
	// Where each project's own manifests put it; Cilium reads passwords there.
	set(&bgp.Namespace, map[string]string{
		ServicesMetalLB: "metallb-system", ServicesCalico: "calico-system", ServicesCilium: "kube-system",
	}[bgp.Services])
	// A server that only private networks reach is not shut off from any of them.
	set(&s.Network.Firewall.Mode, FirewallAuto)
	if s.Platform != PlatformStatic {
		// Longer than a metadata service takes to restart, short enough that status
		// says what is wrong while somebody still looks.
		set(&s.MetadataSource.Deadline, 5*time.Minute)
		if s.MetadataSource.RequireBGP == nil {
			speaks := bgp.HoldsControlPlanes() || bgp.Services != ServicesNone
			s.MetadataSource.RequireBGP = &speaks
		}
	}
	// 4,096 nodes of a /24. The private networks of bare-metal providers are cut
	// from 10.0.0.0/8, so both ranges stay out of it.
	if len(s.Kubernetes.PodSubnets) == 0 {
		s.Kubernetes.PodSubnets = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}
	}
	if len(s.Kubernetes.ServiceSubnets) == 0 {
		s.Kubernetes.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	}
	// What every Kubernetes document takes for granted.
	set(&s.Kubernetes.DNSDomain, "cluster.local")
	// Four in a row outside of NodePorts and of what known add-ons take (takenPorts).
	set(&s.Ports.Gossip, 9760)
	set(&s.Ports.Agents, 9761)
	set(&s.Ports.Enrolment, 9762)
	set(&s.Ports.Directory, 9763)
	return c
}

// set gives a field its default.
func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
