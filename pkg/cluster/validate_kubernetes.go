package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// oldestPatch is the first release of each minor version (1.34, …) whose `kubeadm
// init` talks to the API server of its own server only. Before, it went through
// the endpoint, and the Elastic IP is nowhere until that API server is healthy.
// Source: kubernetes/kubernetes#138449 and its backports.
var oldestPatch = map[int]int{34: 10, 35: 8, 36: 1, 37: 0}

// AcceptedVersions lists the versions of oldestPatch for people.
const AcceptedVersions = "v1.34.10+, v1.35.8+, v1.36.1+, v1.37.0+"

var release = regexp.MustCompile(`^v1\.(\d{1,3})\.(\d{1,3})$`)

func (v *validator) kubernetes() {
	const at = "spec.kubernetes"
	k := v.Spec.Kubernetes
	m := release.FindStringSubmatch(k.Version)
	switch {
	case k.Version == "":
	case m == nil && release.MatchString("v"+k.Version):
		v.errorf(at+".version", "write v"+k.Version, "%q lacks the v that Kubernetes releases begin with", k.Version)
	case m == nil:
		v.errorf(at+".version", "a full release such as v1.36.3; accepted: "+AcceptedVersions, "%q is not a release", abbreviate(k.Version))
	default:
		minor, _ := strconv.Atoi(m[1]) // at most three digits
		patch, _ := strconv.Atoi(m[2])
		if oldest, known := oldestPatch[minor]; !known {
			v.errorf(at+".version", "accepted: "+AcceptedVersions, "%s is not a version that this muster was built for", k.Version)
		} else if patch < oldest {
			v.errorf(at+".version", fmt.Sprintf("take v1.%d.%d or a later patch", minor, oldest), "%s is too old: its kubeadm init waits for the endpoint, which answers only after init", k.Version)
		}
	}
	for l := range strings.SplitSeq(k.DNSDomain, ".") {
		if !label.MatchString(l) {
			v.errorf(at+".dnsDomain", "such as cluster.local", "%q is not a domain name", abbreviate(k.DNSDomain))
			break
		}
	}
	v.families(at+".podSubnets", k.PodSubnets)
	v.families(at+".serviceSubnets", k.ServiceSubnets)
	if pods, services := familiesOf(k.PodSubnets), familiesOf(k.ServiceSubnets); pods != "" && services != "" && pods != services {
		v.errorf(at+".serviceSubnets", "give both lists the same address families in the same order", "Services have %s, but pods have %s", services, pods)
	}
	for i, p := range k.PodSubnets {
		v.podCapacity(index(at+".podSubnets", i), p)
	}
	for i, p := range k.ServiceSubnets {
		v.serviceSize(index(at+".serviceSubnets", i), p)
	}
}

// families checks that a list has at most one range of each address family, and
// that each is a range.
func (v *validator) families(path string, list []netip.Prefix) {
	first := map[bool]int{}
	for i, p := range list {
		if !p.IsValid() {
			continue // refused already
		}
		if p != p.Masked() {
			v.errorf(index(path, i), "write "+p.Masked().String(), "%s has bits set beyond its length", p)
		}
		if j, twice := first[p.Addr().Is4()]; twice {
			v.errorf(index(path, i), "keep one, wide enough", "a second range of the family of %s; Kubernetes takes one IPv4 and one IPv6 range", list[j])
		} else {
			first[p.Addr().Is4()] = i
		}
	}
}

// familiesOf names the address families of a list in order, "" when the list has
// other problems.
func familiesOf(list []netip.Prefix) string {
	var families []int
	for i, p := range list {
		if !p.IsValid() || i > 0 && p.Addr().Is4() == list[0].Addr().Is4() {
			return ""
		}
		families = append(families, familyOf(p.Addr()))
	}
	return familyNames(families)
}

// podCapacity checks that every expected server gets its share of the pod range.
// The controller-manager refuses to start when the range is more than 16 bits wider
// than a share (2^16 nodes).
func (v *validator) podCapacity(path string, p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	share := v.Spec.Kubernetes.NodeMask(p)
	n := v.Spec.Servers.Expect
	room := 0
	if d := share - p.Bits(); d >= 0 {
		room = 1 << min(d, 20)
	}
	need := share
	for need > 0 && 1<<(share-need) < n {
		need--
	}
	switch {
	case p.Bits() < share-nodeBits:
		v.errorf(path, fmt.Sprintf("take a /%d to /%d", share-nodeBits, share), "%s is too wide: kube-controller-manager splits a range into at most 65,536 nodes of a /%d", p, share)
	case room < n && v.fine("spec.servers.expect"):
		v.errorf(path, fmt.Sprintf("every node takes a /%d: use a /%d or wider", share, need), "%s has room for %s, but %s expected", p, count(room, "node"), are(n, "server"))
	}
}

// count says a number with its noun.
func count(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// are is count with the verb after it.
func are(n int, noun string) string {
	if n == 1 {
		return count(n, noun) + " is"
	}
	return count(n, noun) + " are"
}

// serviceSize checks the limits of kube-apiserver (at most 20 bits of addresses) and
// of kubeadm (the DNS Service takes the tenth address).
func (v *validator) serviceSize(path string, p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	bits := p.Addr().BitLen()
	if p.Bits() < bits-20 {
		v.errorf(path, fmt.Sprintf("use a /%d or narrower", bits-20), "%s is too wide: kube-apiserver takes at most 2^20 Service addresses", p)
	} else if p.Bits() > bits-4 {
		v.errorf(path, fmt.Sprintf("use a /%d or wider", bits-4), "%s is too narrow: the DNS Service takes the tenth address", p)
	}
}

// unchecked is the hint beside what is passed on.
const unchecked = "a wrong key or value shows only when servers boot"

// passedOn warns of everything that reaches kubeadm, kubelet or containerd
// without a check.
func (v *validator) passedOn() {
	const at = "spec.kubernetes."
	k := v.Spec.Kubernetes
	for _, m := range []struct {
		key, kind string
		values    map[string]any
	}{{"kubelet", "KubeletConfiguration", k.Kubelet}, {"kubeProxy", "KubeProxyConfiguration", k.KubeProxy}} {
		for _, key := range sortedKeys(m.values) {
			if key == "apiVersion" || key == "kind" {
				v.errorf(at+m.key+"."+key, "remove it", "muster writes it itself")
				continue
			}
			v.warnf(at+m.key+"."+key, unchecked, "goes into %s unchecked", m.kind)
		}
	}
	for i, check := range k.IgnorePreflightErrors {
		v.warnf(index(at+"ignorePreflightErrors", i), "the check knows why the server will not work; mend that, if it can be mended", "kubeadm goes on although its check %q fails", abbreviate(check))
	}
	for i, phase := range k.SkipPhases {
		v.warnf(index(at+"skipPhases", i), "lay down what it makes by other means", "kubeadm init leaves %q out", abbreviate(phase))
	}
	for _, plugin := range sortedKeys(v.Spec.Containerd.Extra) {
		v.warnf("spec.containerd.extra."+plugin, unchecked, "goes into containerd's configuration unchecked")
	}
}
