package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// familyOf is 4 or 6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// Families are the address families (4, 6) of the cluster in order. A server's
// own services, muster's and Kubernetes's, are at its private address of the first:
// kube-apiserver advertises no address of another family than the first range of
// Services has.
func (k Kubernetes) Families() []int {
	var families []int
	for _, p := range k.ServiceSubnets {
		families = append(families, familyOf(p.Addr()))
	}
	if len(families) == 0 {
		return []int{4} // of the default range
	}
	return families
}

// Shares of the pod range that kube-controller-manager gives to a node by itself.
const (
	nodeMask4 = 24
	nodeMask6 = 64
)

// nodeBits is the most that the controller-manager takes between the length of the
// range and of a node's share: 2^16 nodes. narrowest is the narrowest share of IPv6
// that holds the 110 pods that a kubelet runs, and room for those that go.
const (
	nodeBits  = 16
	narrowest = 120
)

// NodeMask is the length of every node's share of a pod range. Of IPv6 it is a /64
// where the range has room for 256 to 65,536 of them, else as narrow as to give room
// for 65,536 nodes: guides hand fd01::/64 to a cluster, and with a /64 for each
// node the second one gets no share.
func (k Kubernetes) NodeMask(p netip.Prefix) int {
	switch {
	case p.Addr().Is4():
		return nodeMask4
	case p.Bits() >= nodeMask6-nodeBits && p.Bits() <= nodeMask6-8:
		return nodeMask6
	}
	return min(p.Bits()+nodeBits, narrowest)
}

// reachable checks that servers have addresses of the families that the cluster
// speaks, as far as the file tells: discovery lists private addresses, and platform
// static describes every server. What only metadata tell, plan.NodeFor checks.
func (v *validator) reachable() {
	if !v.fine("spec.kubernetes.serviceSubnets") || !v.fine("spec.kubernetes.podSubnets") {
		return
	}
	families := v.Spec.Kubernetes.Families()
	first := v.Spec.Kubernetes.ServiceSubnets[0]
	if !first.IsValid() {
		return
	}
	for i, d := range v.Spec.Discovery {
		for j, a := range d.Static {
			p := fmt.Sprintf("spec.discovery[%d].static[%d]", i, j)
			if a.IsValid() && isUnicast(a) && familyOf(a) != families[0] && v.fine(p) {
				v.errorf(p, v.otherFamily(familyOf(a)), "%s is IPv%d, but servers listen at their private IPv%d addresses, because serviceSubnets begin with %s", a, familyOf(a), families[0], first)
			}
		}
	}
	if v.Spec.Platform != PlatformStatic {
		return
	}
	for i, s := range v.Spec.Static {
		v.serverFamilies(index("spec.static", i)+".addresses", s, families)
	}
}

// otherFamily is the remedy where servers have one family and the ranges begin with
// the other.
func (v *validator) otherFamily(have int) string {
	k := v.Spec.Kubernetes
	if len(k.Families()) == 2 {
		return fmt.Sprintf("list the servers' private IPv%d addresses, or begin podSubnets and serviceSubnets with their IPv%d range", 10-have, have)
	}
	if have == 6 {
		return "for servers with IPv6 alone write podSubnets: [fd01::/64] and serviceSubnets: [fd98::/108], or ranges of your own"
	}
	return "for servers with IPv4 alone leave podSubnets and serviceSubnets out, or write IPv4 ranges"
}

// serverFamilies checks one described server.
func (v *validator) serverFamilies(path string, s StaticServer, families []int) {
	if !v.fine(path) || len(s.Addresses) == 0 || slices.ContainsFunc(s.Addresses, func(a StaticAddress) bool { return !a.Address.IsValid() }) {
		return
	}
	private, any := map[int]bool{}, map[int]bool{}
	for _, a := range s.Addresses {
		f := familyOf(a.Address.Addr())
		any[f], private[f] = true, private[f] || !a.Public
	}
	ranges := v.Spec.Kubernetes.ServiceSubnets
	if !private[families[0]] && (private[4] || private[6]) {
		v.errorf(path, "add one, or: "+v.otherFamily(10-families[0]), "server %s has no private IPv%d address, but serviceSubnets begin with %s", cmp.Or(s.Hostname, s.ID), families[0], ranges[0])
		return
	}
	if len(families) > 1 && !any[families[1]] {
		v.errorf(path, "add one, or leave "+ranges[1].String()+" and the pods' range of its family out", "server %s has no IPv%d address, but serviceSubnets have %s", cmp.Or(s.Hostname, s.ID), families[1], ranges[1])
	}
	if a, ok := v.Spec.Kubernetes.Endpoint.Addr(); ok && !any[familyOf(a)] {
		v.errorf("spec.kubernetes.endpoint", fmt.Sprintf("take an IPv%d address, or give every server an IPv%d one", 10-familyOf(a), familyOf(a)), "server %s has no IPv%d address, so it cannot reach %s", cmp.Or(s.Hostname, s.ID), familyOf(a), a)
	}
}

// familyNames are those of a list of families for a sentence.
func familyNames(families []int) string {
	var names []string
	for _, f := range families {
		names = append(names, fmt.Sprintf("IPv%d", f))
	}
	return strings.Join(names, ", then ")
}
