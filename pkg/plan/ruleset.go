package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// FirewallTable is the one table of nftables that is muster's.
const FirewallTable = "muster"

// nodePortPriority is ahead of the translation of destinations, priority dstnat
// (-100), where kube-proxy turns a NodePort into a pod's port; conntrack (-200) has
// seen the packet by then.
const nodePortPriority = -110

// Script is the input of nft(8) that makes the table as f says, or removes it, in
// one transaction: whatever was there, at no instant is nothing there.
//
// A packet that the table accepts goes on to the tables of others; only what it
// drops is decided. Nothing but the guarded ports is looked at, so that ICMP,
// neighbour discovery, DHCP, tunnels and BGP pass untouched.
func (f Firewall) Script() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// Without the first line the second fails where there is no table.
	say("add table inet %s", FirewallTable)
	say("delete table inet %s", FirewallTable)
	if !f.On {
		return b.String()
	}
	say("table inet %s {", FirewallTable)
	say("\tchain input {")
	say("\t\ttype filter hook input priority 0; policy accept;")
	say("\t\ttcp dport %s jump guard", portSet(f.Guarded))
	say("\t\tudp dport %s jump guard", portSet(f.UDP))
	say("\t}")
	say("\tchain nodeports {")
	say("\t\ttype filter hook prerouting priority %d; policy accept;", nodePortPriority)
	say("\t\tmeta l4proto { tcp, udp, sctp } th dport %s fib daddr type local jump guard", portSet([]cluster.PortRange{f.NodePorts}))
	say("\t}")
	say("\tchain guard {")
	say("\t\tiif lo accept comment %q", "this server itself")
	say("\t\tct state established,related accept")
	f.sayAccepts(say)
	say("\t\tcounter drop comment %q", "a new connection from elsewhere")
	say("\t}")
	say("\tchain forward {")
	say("\t\ttype filter hook forward priority 0; policy accept;")
	for _, m := range f.Metadata {
		say("\t\t%s daddr %s tcp dport %d counter reject with tcp reset comment %q", family(m.Addr()), m.Addr(), m.Port(), "no pod reads metadata")
	}
	say("\t}")
	say("}")
	return b.String()
}

// sayAccepts writes what may open connections to guarded ports.
func (f Firewall) sayAccepts(say func(format string, args ...any)) {
	for _, from := range families(f.Trusted) {
		say("\t\t%s accept comment %q", from.source(), "the servers' own networks")
	}
	for _, from := range families(f.APIServerFrom) {
		at := families(singles(f.APIServer, from.name))
		if f.AnyAddress {
			say("\t\t%s tcp dport %d accept comment %q", from.source(), APIServerPort, "clients of the endpoint")
		} else if len(at) > 0 {
			say("\t\t%s daddr %s %s tcp dport %d accept comment %q", from.name, at[0].set(), from.source(), APIServerPort, "clients of the endpoint")
		}
	}
	for _, o := range f.Allow {
		for _, from := range families(merged(o.From)) {
			say("\t\t%s th dport %s accept comment %q", from.source(), portSet([]cluster.PortRange{{First: o.Port, Last: o.Last()}}), "network.firewall.allow")
		}
	}
}

// ranges are those of one address family, by nft's name of it.
type ranges struct {
	name string
	list []netip.Prefix
}

// source matches packets from the ranges.
func (r ranges) source() string {
	if r.list[0].Bits() == 0 {
		return "meta nfproto " + map[string]string{"ip": "ipv4", "ip6": "ipv6"}[r.name]
	}
	return r.name + " saddr " + r.set()
}

func (r ranges) set() string {
	var words []string
	for _, p := range r.list {
		if p.IsSingleIP() {
			words = append(words, p.Addr().String())
		} else {
			words = append(words, p.String())
		}
	}
	return set(words)
}

// families parts ranges by address family, IPv4 first, and leaves out a family
// without any.
func families(list []netip.Prefix) []ranges {
	var four, six []netip.Prefix
	for _, p := range list {
		if p.Addr().Is4() {
			four = append(four, p)
		} else {
			six = append(six, p)
		}
	}
	var out []ranges
	for _, r := range []ranges{{"ip", four}, {"ip6", six}} {
		if len(r.list) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// singles are the addresses of one family as ranges.
func singles(addrs []netip.Addr, name string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		if family(a) == name {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

func portSet(ports []cluster.PortRange) string {
	var words []string
	for _, p := range ports {
		if p.First == p.Last {
			words = append(words, fmt.Sprint(p.First))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", p.First, p.Last))
		}
	}
	return set(words)
}

func set(words []string) string { return "{ " + strings.Join(words, ", ") + " }" }
