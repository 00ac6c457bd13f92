package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// apiPort is where kube-apiserver listens on every control plane.
const apiPort = 6443

// HostPort splits the endpoint's address. It fails when the address is absent or
// no host:port; in a cluster that Parse accepted, only when it is absent.
func (e Endpoint) HostPort() (host string, port uint16, ok bool) {
	host, p, err := net.SplitHostPort(e.Address)
	n, bad := strconv.ParseUint(p, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" {
		return "", 0, false
	}
	return host, uint16(n), true
}

// Addr is the endpoint's host when that is an IP address.
func (e Endpoint) Addr() (netip.Addr, bool) {
	host, _, _ := e.HostPort()
	a, err := netip.ParseAddr(host)
	return a, err == nil
}

func (v *validator) endpoint() {
	const at = "spec.kubernetes.endpoint"
	e := v.Spec.Kubernetes.Endpoint
	if e.Address == "" {
		if e.External {
			v.missing(at+".address", "such as address: api.example.net:6443")
		} else if k := v.Spec.Servers.ControlPlanes; k > 1 && v.fine("spec.servers.controlPlanes") {
			v.missing(at, fmt.Sprintf("%d control planes need one address: an Elastic IP of network.elasticIPs as endpoint: IP:6443, or {address: host:port, external: true}", k))
		}
		return
	}
	host, port, ok := e.HostPort()
	if !ok {
		hint := "such as 147.75.194.92:6443, [2604:1380::1]:6443 or {address: api.example.net:6443, external: true}"
		if strings.Contains(e.Address, "://") {
			hint = "leave the scheme off; " + hint
		} else if _, err := netip.ParseAddr(e.Address); err == nil {
			hint = "write " + net.JoinHostPort(e.Address, "6443")
		}
		v.errorf(at, hint, "%q is not host:port", abbreviate(e.Address))
		return
	}
	a, isIP := e.Addr()
	if !isIP {
		for l := range strings.SplitSeq(host, ".") {
			if !label.MatchString(l) {
				v.errorf(at, "an IP address, or a name in lower case such as api.example.net", "%q is neither an IP address nor a DNS name", abbreviate(host))
				return
			}
		}
	}
	if e.External {
		v.example(at, a)
		return
	}
	v.announced(at, host, a)
	if port != apiPort {
		v.errorf(at, fmt.Sprintf("write %s", net.JoinHostPort(host, "6443")), "port %d: the API servers listen on %d, and nothing translates on the way to an Elastic IP", port, apiPort)
	}
}

// announced checks that something of ours leads to the endpoint.
func (v *validator) announced(at, host string, a netip.Addr) {
	if !v.fine("spec.network.elasticIPs") {
		return
	}
	var known []string
	for _, e := range v.Spec.Network.ElasticIPs {
		if !e.Address.IsSingleIP() { // has a problem of its own
			return
		}
		known = append(known, e.Address.Addr().String())
		if e.Address.Addr() == a {
			if v.Spec.Network.BGP.ControlPlane == SpeakerNone {
				v.errorf("spec.network.bgp.controlPlane", "write builtin or kube-vip, or make the endpoint {address: "+net.JoinHostPort(host, "6443")+", external: true}", "nothing announces the endpoint %s", host)
			}
			return
		}
	}
	hint := "add {address: " + host + "/32, on: control-planes} to network.elasticIPs"
	switch {
	case len(known) > 0:
		hint = "Elastic IPs of this file: " + strings.Join(known, ", ")
	case a.Is6():
		hint = strings.Replace(hint, "/32", "/128", 1)
	case !a.IsValid():
		hint = "use one of network.elasticIPs"
	}
	v.errorf(at, hint+"; if something else leads to the control planes, write {address: "+v.Spec.Kubernetes.Endpoint.Address+", external: true}", "nothing announces %s: it is not in network.elasticIPs", host)
}

func (v *validator) network() {
	const at = "spec.network.elasticIPs"
	for i, e := range v.Spec.Network.ElasticIPs {
		p := index(at, i) + ".address"
		a := e.Address.Addr()
		if !e.Address.IsValid() {
			continue
		}
		if !e.Address.IsSingleIP() {
			v.errorf(p, fmt.Sprintf("write %s/%d for each address that the control planes shall hold", a, a.BitLen()), "%s is a range, expected one address", e.Address)
		} else if !isUnicast(a) {
			v.errorf(p, "an address that the routers lead to the servers", "%s cannot be announced", a)
		}
		v.example(p, a)
	}
	if _, given := v.values["spec.network.bgp.controlPlane"]; given && v.Spec.Network.BGP.ControlPlane == SpeakerBuiltin && len(v.Spec.Network.ElasticIPs) == 0 && v.fine(at) {
		v.errorf("spec.network.bgp.controlPlane", "list the addresses in network.elasticIPs, or write none", "there is nothing to announce")
	}
}

// span is a range of addresses somewhere in the file. Those that are exclusive
// share no address with any other.
type span struct {
	path, what string
	prefix     netip.Prefix
	exclusive  bool
	own        netip.Addr // of a server's subnet: the server's address in it
}

// String is the span as a person calls it.
func (a span) String() string {
	if a.prefix.IsSingleIP() {
		return a.what + " " + a.prefix.Addr().String()
	}
	return a.what + " " + a.prefix.String()
}

// What spans are, where code asks.
const (
	podRange     = "pod range"
	serviceRange = "service range"
	elasticIP    = "Elastic IP"
	poolRange    = "pool range"
)

// announced says that routers lead the range to servers, wherever they cut it from.
func (a span) announced() bool { return a.what == elasticIP || a.what == poolRange }

// overlaps says that two ranges get into each other's way. The routers may well
// cut an Elastic IP or a pool out of the subnet of a server; pods and Services may
// not live there, because servers reach it directly.
func (a span) overlaps(b span) bool {
	switch {
	case !a.exclusive && !b.exclusive:
		return false
	case a.what == b.what && !a.announced():
		return false // two ranges of one family in one list are reported as such
	case a.announced() && b.own.IsValid():
		return a.prefix.Contains(b.own)
	case b.announced() && a.own.IsValid():
		return b.prefix.Contains(a.own)
	}
	return a.prefix.Overlaps(b.prefix)
}

// ranges reports every pair of ranges that must not share addresses.
func (v *validator) ranges() {
	spans := v.spans()
	var exclusive []int // only with one of these is a pair a problem, and they are few
	for i, a := range spans {
		others := exclusive
		if a.exclusive {
			others = make([]int, i)
			for j := range others {
				others[j] = j
			}
			exclusive = append(exclusive, i)
		}
		for _, j := range others {
			b := spans[j]
			if !a.overlaps(b) {
				continue
			}
			at, other := a, b
			if _, given := v.values[a.path]; !given { // a default: the person wrote the other one
				at, other = b, a
			}
			where := "which is the default"
			if _, given := v.values[other.path]; given {
				where = fmt.Sprintf("in line %d", v.place(other.path, v.values).line)
			}
			v.errorf(at.path, v.remedy(at, other, spans), "%s overlaps %s, %s", at, other, where)
		}
	}
}

// remedy says which of two overlapping ranges to change, and to what.
func (v *validator) remedy(at, other span, spans []span) string {
	for _, s := range []span{at, other} {
		list := map[string]string{podRange: "podSubnets", serviceRange: "serviceSubnets"}[s.what]
		if free, ok := freeRange(s.what, v.Spec.Servers.Expect, spans); ok && s.prefix.Addr().Is4() {
			return "set kubernetes." + list + " to a range that shares no address with others, such as [" + free.String() + "]"
		} else if list != "" {
			return "set kubernetes." + list + " to a range that shares no address with others"
		}
	}
	return "each needs its own address"
}

func (v *validator) spans() []span {
	var spans []span
	add := func(path, what string, p netip.Prefix, exclusive bool) bool {
		if !p.IsValid() || !v.fine(path) {
			return false
		}
		spans = append(spans, span{path: path, what: what, prefix: p, exclusive: exclusive})
		return true
	}
	for i, p := range v.Spec.Kubernetes.PodSubnets {
		add(index("spec.kubernetes.podSubnets", i), podRange, p.Masked(), true)
	}
	for i, p := range v.Spec.Kubernetes.ServiceSubnets {
		add(index("spec.kubernetes.serviceSubnets", i), serviceRange, p.Masked(), true)
	}
	if a, ok := v.Spec.Kubernetes.Endpoint.Addr(); ok && v.Spec.Kubernetes.Endpoint.External {
		add("spec.kubernetes.endpoint", "endpoint", single(a), false)
	}
	for i, e := range v.Spec.Network.ElasticIPs {
		add(index("spec.network.elasticIPs", i)+".address", elasticIP, e.Address, true)
	}
	for i, p := range v.Spec.Network.LoadBalancer.Pools {
		for j, a := range p.Addresses {
			add(fmt.Sprintf("spec.network.loadBalancer.pools[%d].addresses[%d]", i, j), poolRange, a.Masked(), true)
		}
	}
	for i, d := range v.Spec.Discovery {
		if p, err := netip.ParsePrefix(d.Subnet); err == nil {
			add(index("spec.discovery", i)+".subnet", "discovery range", p.Masked(), false)
		}
		for j, a := range d.Static {
			add(fmt.Sprintf("spec.discovery[%d].static[%d]", i, j), "discovery address", single(a), false)
		}
	}
	for i, s := range v.Spec.Static {
		at := index("spec.static", i)
		for j, a := range s.Addresses {
			if add(fmt.Sprintf("%s.addresses[%d].address", at, j), "the subnet of server "+s.Hostname, a.Address.Masked(), false) {
				spans[len(spans)-1].own = a.Address.Addr()
			}
		}
		for j, n := range s.BGPNeighbors {
			for l, a := range n.PeerIPs {
				add(fmt.Sprintf("%s.bgpNeighbors[%d].peerIPs[%d]", at, j, l), "router", single(a), false)
			}
		}
	}
	return spans
}

// freeRange proposes an IPv4 range for pods (of nodes servers) or Services that
// overlaps nothing in spans but the one it shall replace.
func freeRange(what string, nodes int, spans []span) (netip.Prefix, bool) {
	candidates := map[string][]string{
		podRange:     {"172.16.0.0/12", "10.244.0.0/16", "100.64.0.0/12"},
		serviceRange: {"192.168.0.0/16", "10.96.0.0/16", "100.96.0.0/16"},
	}[what]
	for _, c := range candidates {
		p := netip.MustParsePrefix(c)
		free := what != podRange || 1<<(24-p.Bits()) >= nodes
		for _, s := range spans {
			free = free && (s.what == what || !s.prefix.Overlaps(p))
		}
		if free {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// takenPorts are ports that something on a Kubernetes server listens on, or may.
var takenPorts = []struct {
	from, to uint16
	by       string
}{
	{1, 1023, "the system's services"},
	{2379, 2381, "etcd"},
	{4240, 4244, "Cilium's health checks and Hubble"},
	{5473, 5473, "Calico's Typha"},
	{apiPort, apiPort, "kube-apiserver"},
	{7472, 7473, "MetalLB's metrics"},
	{7946, 7946, "MetalLB's speakers"},
	{9099, 9099, "Calico's Felix"},
	{10248, 10259, "kubelet, kube-proxy, kube-scheduler and kube-controller-manager"},
	{30000, 32767, "NodePorts"},
}

func (v *validator) ports() {
	const at = "spec.ports."
	p := v.Spec.Ports
	seen := map[uint16]string{}
	for _, e := range []struct {
		key  string
		port uint16
	}{{"gossip", p.Gossip}, {"agents", p.Agents}, {"enrolment", p.Enrolment}, {"directory", p.Directory}} {
		for _, t := range takenPorts {
			if e.port >= t.from && e.port <= t.to {
				v.errorf(at+e.key, "any port from 1024 that is free on every server; 9760 to 9763 when left out", "port %d is taken by %s", e.port, t.by)
			}
		}
		if other := seen[e.port]; other != "" {
			v.errorf(at+e.key, "give each its own port", "port %d is that of ports.%s too", e.port, other)
		}
		seen[e.port] = e.key
	}
}
