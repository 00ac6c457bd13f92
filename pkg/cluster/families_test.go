package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The ranges of the guide that users followed for two families by hand.
const guideRanges = "podSubnets: [10.1.0.0/16, 'fd01::/64']\n    serviceSubnets: [10.152.183.0/24, 'fd98::/108']"

// TestNodeMask: each share leaves room for nodes, and for pods on them.
func TestNodeMask(t *testing.T) {
	for p, want := range map[string]int{
		"172.16.0.0/12": 24, "10.0.0.0/25": 24,
		"fd00::/32": 48, "fd00::/48": 64, "fd01::/56": 64, "fd01::/57": 73, "fd01::/64": 80, "fd01::/104": 120, "fd01::/112": 120, "fd01::/120": 120,
	} {
		if got := (Kubernetes{}).NodeMask(netip.MustParsePrefix(p)); got != want {
			t.Errorf("a node's share of %s is a /%d, expected a /%d", p, got, want)
		}
	}
}

func TestFamilies(t *testing.T) {
	for file, want := range map[string][]int{
		"": {4}, guideRanges: {4, 6}, "podSubnets: ['fd01::/64']\n    serviceSubnets: ['fd98::/108']": {6},
		"podSubnets: ['fd01::/64', 10.1.0.0/16]\n    serviceSubnets: ['fd98::/108', 10.152.183.0/24]": {6, 4},
	} {
		c, _ := Parse("c.yaml", []byte(strings.Replace(good, "podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]", file, 1)))
		if diff := cmp.Diff(want, c.Spec.Kubernetes.Families()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", file, diff)
		}
	}
}

// TestFamilyProblems: servers, ranges and the endpoint speak the same families.
func TestFamilyProblems(t *testing.T) {
	const ranges = "podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]"
	const six = "podSubnets: ['fd01::/64']\n    serviceSubnets: ['fd98::/108']"
	const sixFirst = "podSubnets: ['fd01::/64', 10.1.0.0/16]\n    serviceSubnets: ['fd98::/108', 10.152.183.0/24]"
	const one, both = "- {address: 10.99.14.9/31, gateway: 10.99.14.8}", "- {address: 10.99.14.9/31, gateway: 10.99.14.8}\n        - {address: 'fd66::9/127', gateway: 'fd66::8'}"
	const version = "kubernetes: {version: v1.37.0}"
	static := func(kubernetes string) string {
		return strings.Replace(staticFile, version, "kubernetes:\n    version: v1.37.0\n    "+kubernetes, 1)
	}
	for _, row := range []struct {
		name, file, old, new string
		want                 []string
	}{
		{"pod range too wide", good, "172.16.0.0/12", "172.0.0.0/7", []string{
			"16:18: spec.kubernetes.podSubnets[0]: 172.0.0.0/7 is too wide: kube-controller-manager splits a range into at most 65,536 nodes of a /24 (take a /8 to /24)",
		}},
		{"the guide's ranges", good, ranges, guideRanges, nil},
		{"IPv6 alone, of IPv4 servers", good, ranges, six, []string{
			"12:16: spec.discovery[0].static[0]: 10.99.14.9 is IPv4, but servers listen at their private IPv6 addresses, because serviceSubnets begin with fd98::/108 (for servers with IPv4 alone leave podSubnets and serviceSubnets out, or write IPv4 ranges)",
			"12:28: spec.discovery[0].static[1]: 10.99.14.11 is IPv4, but servers listen at their private IPv6 addresses, because serviceSubnets begin with fd98::/108 (for servers with IPv4 alone leave podSubnets and serviceSubnets out, or write IPv4 ranges)",
		}},
		{"IPv6 first, of IPv4 servers", good, "10.99.14.9, 10.99.14.11]\n  kubernetes:\n    version: v1.36.3\n    endpoint: 147.75.194.92:6443\n    " + ranges, "10.99.14.9]\n  kubernetes:\n    version: v1.36.3\n    endpoint: 147.75.194.92:6443\n    " + sixFirst, []string{
			"12:5: warning: spec.discovery: if 10.99.14.9 does not boot, the other servers never find each other (list private addresses of more founding servers)",
			"12:16: spec.discovery[0].static[0]: 10.99.14.9 is IPv4, but servers listen at their private IPv6 addresses, because serviceSubnets begin with fd98::/108 (list the servers' private IPv6 addresses, or begin podSubnets and serviceSubnets with their IPv4 range)",
		}},
		{"IPv6 servers, default ranges", good, "10.99.14.9, 10.99.14.11", "'fd66::9', 10.99.14.11", []string{
			"12:16: spec.discovery[0].static[0]: fd66::9 is IPv6, but servers listen at their private IPv4 addresses, because serviceSubnets begin with 192.168.0.0/16 (for servers with IPv6 alone write podSubnets: [fd01::/64] and serviceSubnets: [fd98::/108], or ranges of your own)",
		}},
		{"static, both families", static(guideRanges), one, both, nil},
		{"static, IPv6 alone", static(six), "- {address: 10.99.14.9/31, gateway: 10.99.14.8}", "- {address: 'fd66::9/127', gateway: 'fd66::8'}", nil},
		{"static, the second family is public", static(guideRanges), one, one + "\n        - {address: '2604:1380:1::9/127', gateway: '2604:1380:1::8', public: true}", nil},
		{"static, no address of the first family", static(six), "", "", []string{
			"13:9: spec.static[0].addresses: server cp1 has no private IPv6 address, but serviceSubnets begin with fd98::/108 (add one, or: for servers with IPv4 alone leave podSubnets and serviceSubnets out, or write IPv4 ranges)",
		}},
		{"static, no address of the second family", static(guideRanges), "", "", []string{
			"13:9: spec.static[0].addresses: server cp1 has no IPv6 address, but serviceSubnets have fd98::/108 (add one, or leave fd98::/108 and the pods' range of its family out)",
		}},
		{"static, an endpoint that it cannot reach", static("endpoint: {address: '[2604:1380::1]:6443', external: true}"), "", "", []string{
			"18:15: spec.kubernetes.endpoint: server cp1 has no IPv6 address, so it cannot reach 2604:1380::1 (take an IPv4 address, or give every server an IPv6 one)",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(row.file, row.old) {
				t.Fatalf("the file lacks %q", row.old)
			}
			_, problems := Parse("c.yaml", []byte(strings.Replace(row.file, row.old, row.new, 1)))
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
