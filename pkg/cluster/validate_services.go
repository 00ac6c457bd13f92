package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// imageTag finds repository, tag and digest in the name of an image.
var imageTag = regexp.MustCompile(`^[a-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9._-]+)+:([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})(?:@sha256:[0-9a-f]{64})?$`)

// kubeVIPTag is a release of kube-vip.
var kubeVIPTag = regexp.MustCompile(`^v([0-9]{1,4})\.([0-9]{1,4})\.[0-9]{1,4}$`)

// kubeVIP checks what kube-vip can do of what the file asks for.
func (v *validator) kubeVIP() {
	const at, image = "spec.network.bgp.controlPlane", "spec.network.bgp.kubeVIP.image"
	bgp := v.Spec.Network.BGP
	if bgp.ControlPlane != SpeakerKubeVIP {
		if bgp.KubeVIP.Image != "" {
			v.errorf("spec.network.bgp.kubeVIP", "remove it, or write controlPlane: kube-vip", "is read with controlPlane: kube-vip only, this one is %s", bgp.ControlPlane)
		}
		return
	}
	if e := v.Spec.Kubernetes.Endpoint; e.External || e.Address == "" && v.fine("spec.kubernetes.endpoint") {
		v.errorf(at, "make kubernetes.endpoint an Elastic IP: endpoint: IP:6443; or write none", "kube-vip announces the endpoint, which is no Elastic IP of this file")
	}
	if n := len(v.Spec.Network.ElasticIPs); n > 1 {
		v.errorf("spec.network.elasticIPs[1]", "keep the endpoint's, or write network.bgp.controlPlane: builtin, which announces all of them", "kube-vip announces one address, here are %d", n)
	}
	for i, s := range v.Spec.Static {
		for j, n := range s.BGPNeighbors {
			if strings.ContainsAny(n.MD5.Reveal(), ":,") {
				v.errorf(fmt.Sprintf("spec.static[%d].bgpNeighbors[%d].md5", i, j), "choose another on both ends, or write network.bgp.controlPlane: builtin", "the password has a colon or a comma in it, which kube-vip cannot read")
			} else if n.MD5 != "" {
				v.warnf(fmt.Sprintf("spec.static[%d].bgpNeighbors[%d].md5", i, j), "the speaker that is built in shows it to nobody", "kube-vip has the password in the environment of its pod, where everybody sees it who may read pods in kube-system")
			}
		}
	}
	m := imageTag.FindStringSubmatch(bgp.KubeVIP.Image)
	if m == nil {
		v.errorf(image, "such as ghcr.io/kube-vip/kube-vip:v1.2.3", "%q is not the name of an image with a registry and a tag", abbreviate(bgp.KubeVIP.Image))
		return
	}
	r := kubeVIPTag.FindStringSubmatch(m[1])
	if r == nil {
		v.errorf(image, "a tag such as v1.2.3; a digest may follow it", "%q is not a release of kube-vip, so that nobody knows what it reads", abbreviate(m[1]))
		return
	}
	major, _ := strconv.Atoi(r[1])
	minor, _ := strconv.Atoi(r[2])
	switch {
	case major < 1 || major == 1 && minor < 2:
		v.errorf(image, "v1.2.0 or later", "kube-vip %s announces the endpoint also while the API server is dead", m[1])
	case major > 1 || minor > 2:
		v.warnf(image, "its environment is written as v1.2 reads it", "kube-vip %s is newer than what this muster was made for", m[1])
	}
}

// services checks who announces Services, and which addresses.
func (v *validator) services() {
	const bgpAt, at = "spec.network.bgp", "spec.network.loadBalancer.pools"
	bgp, pools := v.Spec.Network.BGP, v.Spec.Network.LoadBalancer.Pools
	if !v.fine(bgpAt+".services", at) {
		return
	}
	v.name(bgpAt+".namespace", bgp.Namespace)
	switch {
	case bgp.Services == ServicesNone && bgp.Namespace != "":
		v.errorf(bgpAt+".namespace", "remove it, or write services: metallb, calico or cilium", "is that of the speaker of Services, and there is none")
	case bgp.Services == ServicesNone && len(pools) > 0:
		v.errorf(at, "write network.bgp.services: metallb, calico or cilium, or remove the pools", "nothing gives these addresses to Services or announces them")
	case bgp.Services != ServicesNone && len(pools) == 0:
		v.missing(at, "network.bgp.services: "+bgp.Services+" has nothing to announce: pools: [{name: public, addresses: [147.75.40.8/29]}]")
	}
	if n, k := v.Spec.Servers.Expect, v.Spec.Servers.ControlPlanes; bgp.Services != ServicesNone && n == k && n > 0 {
		why := "and kubeadm labels those node.kubernetes.io/exclude-from-external-load-balancers"
		if bgp.HoldsControlPlanes() {
			why = "where " + bgp.ControlPlane + " holds the sessions with the routers"
		}
		v.warnf(bgpAt+".services", "expect more servers than control planes", "no server announces Services until a worker joins: every one is a control plane, %s", why)
	}
	names := map[string]int{}
	for i, p := range pools {
		v.name(index(at, i)+".name", p.Name)
		if j, twice := names[p.Name]; twice && p.Name != "" {
			v.errorf(index(at, i)+".name", "every pool has its own", "%q is that of pools[%d] too", abbreviate(p.Name), j)
		}
		names[p.Name] = i
		for j, a := range p.Addresses {
			v.pool(fmt.Sprintf("%s[%d].addresses[%d]", at, i, j), a)
		}
	}
}

// linkLocal are addresses that no router forwards (RFC 3927, RFC 4291); Calico
// refuses them, too.
var linkLocal = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}

// pool checks one range of a pool.
func (v *validator) pool(path string, p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	v.example(path, p.Addr())
	// 2^20 addresses are the limit of Service ranges, too: a wider IPv4 range is a
	// slip of the hand, and would be drawn to this cluster whole.
	const most = 20
	switch {
	case p != p.Masked():
		v.errorf(path, "write "+p.Masked().String(), "%s has bits set beyond its length", p)
	case !isUnicast(p.Addr()) || linkLocal[0].Overlaps(p) || linkLocal[1].Overlaps(p):
		v.errorf(path, "a range that the routers lead to the servers", "%s cannot be announced", p)
	case p.Addr().BitLen()-p.Bits() > most && p.Addr().Is4():
		v.errorf(path, fmt.Sprintf("use a /%d or narrower", p.Addr().BitLen()-most), "%s is too wide for the addresses of Services", p)
	}
}
