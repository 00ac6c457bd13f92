package plan

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Firewall is what the packet filter of a server shall let in. It is about the
// guarded ports only; whatever else a server listens on is not muster's business.
type Firewall struct {
	On  bool
	Why string // why it is off, a sentence; empty where the cluster file says so
	// Guarded are tcp ports, UDP the udp ports, NodePorts those of Services, which
	// are looked at before kube-proxy translates them.
	Guarded, UDP []cluster.PortRange
	NodePorts    cluster.PortRange
	// Trusted may reach every guarded port.
	Trusted []netip.Prefix
	// APIServer are the addresses whose port 6443 is open to APIServerFrom; AnyAddress
	// stands for all of this server.
	APIServer     []netip.Addr
	AnyAddress    bool
	APIServerFrom []netip.Prefix
	Allow         []cluster.Opening
	// Metadata is where nothing is forwarded to: no pod talks to a metadata service.
	// MetadataName is a host whose addresses, with MetadataPort, belong there too.
	Metadata     []netip.AddrPort
	MetadataName string
	MetadataPort uint16
}

// privateRanges are private to everybody: RFC 1918 and RFC 4193. Link-local
// addresses are not among them: who shares the link with a public address may be
// anybody.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

// metadataAddr is where metadata services answer by convention, at ports 80 and 443.
var metadataAddr = netip.MustParseAddr("169.254.169.254")

// everybody are all addresses of both families.
var everybody = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// FirewallFor returns what the packet filter of a server shall hold.
func FirewallFor(spec cluster.Spec, d device.Device) Firewall {
	rules := spec.Network.Firewall
	f := Firewall{
		Guarded:   spec.Ports.GuardedPorts(),
		UDP:       []cluster.PortRange{{First: spec.Ports.Gossip, Last: spec.Ports.Gossip}},
		NodePorts: cluster.NodePorts,
		Trusted:   slices.Concat(privateRanges, spec.Kubernetes.PodSubnets, rules.Trusted),
		Allow:     rules.Allow,
		Metadata:  []netip.AddrPort{netip.AddrPortFrom(metadataAddr, 80), netip.AddrPortFrom(metadataAddr, 443)},
	}
	f.keepFrom(spec.MetadataSource.URL)
	f.On, f.Why = firewallOn(rules, d)
	for _, e := range spec.Network.ElasticIPs {
		f.Trusted = append(f.Trusted, e.Address)
		f.APIServer = append(f.APIServer, e.Address.Addr())
	}
	for _, a := range d.Addresses {
		f.Trusted = append(f.Trusted, netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen()))
		if !a.Public {
			f.Trusted = append(f.Trusted, a.Prefix)
		}
	}
	for _, s := range spec.Static {
		for _, a := range s.Addresses {
			if !a.Public {
				f.Trusted = append(f.Trusted, a.Address)
			}
		}
	}
	for _, way := range spec.Discovery {
		for _, a := range way.Static {
			f.Trusted = append(f.Trusted, netip.PrefixFrom(a, a.BitLen()))
		}
		if p, err := netip.ParsePrefix(way.Subnet); err == nil { // not private: that is trusted
			f.Trusted = append(f.Trusted, p)
		}
	}
	// Whatever leads to an external endpoint sends to an address of the server's own.
	f.AnyAddress = spec.Kubernetes.Endpoint.External
	if f.AnyAddress || len(f.APIServer) > 0 {
		f.APIServerFrom = merged(rules.APIServerFrom)
		if len(rules.APIServerFrom) == 0 {
			f.APIServerFrom = everybody
		}
	}
	f.Trusted = merged(f.Trusted)
	slices.SortFunc(f.APIServer, netip.Addr.Compare)
	return f
}

// firewallOn decides what auto means on this server.
func firewallOn(rules cluster.Firewall, d device.Device) (on bool, why string) {
	switch rules.Mode {
	case cluster.FirewallOn:
		return true, ""
	case cluster.FirewallOff:
		return false, ""
	}
	if !slices.ContainsFunc(d.Addresses, func(a device.Address) bool { return a.Public }) {
		return false, "this server has no public address"
	}
	for _, a := range d.Addresses {
		if !a.Public && !within(a.Prefix.Addr(), privateRanges) && !within(a.Prefix.Addr(), rules.Trusted) {
			return false, fmt.Sprintf("the servers' own network, %s here, is in no private range, so that auto does not know where the others are: "+
				"name their ranges in spec.network.firewall.trusted", a.Prefix)
		}
	}
	return true, ""
}

func within(a netip.Addr, ranges []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// keepFrom adds where the cluster file's metadata service answers. What a name stands
// for may change, so that is left to the hand.
func (f *Firewall) keepFrom(source string) {
	u, err := url.Parse(source)
	if err != nil || u.Host == "" {
		return
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		port = map[string]uint64{"http": 80, "https": 443}[u.Scheme]
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		f.MetadataName, f.MetadataPort = u.Hostname(), uint16(port)
		return
	}
	*f = f.KeptFrom(a, uint16(port))
}

// KeptFrom is f with one more address of a metadata service.
func (f Firewall) KeptFrom(a netip.Addr, port uint16) Firewall {
	if at := netip.AddrPortFrom(a.Unmap(), port); !slices.Contains(f.Metadata, at) {
		f.Metadata = append(slices.Clone(f.Metadata), at)
		slices.SortFunc(f.Metadata, netip.AddrPort.Compare)
	}
	return f
}

// merged returns the ranges sorted, without those that lie in another.
func merged(ranges []netip.Prefix) []netip.Prefix {
	var all, out []netip.Prefix
	for _, p := range ranges {
		all = append(all, p.Masked())
	}
	for _, p := range sortedPrefixes(all) { // the wider of two that begin alike comes first
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}
