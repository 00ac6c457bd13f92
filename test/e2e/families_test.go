package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/test/rig"
)

// twoFamilies is a Service before CoreDNS's pods with an address of each family that
// the cluster has.
const twoFamilies = `---
apiVersion: v1
kind: Service
metadata: {name: families, namespace: kube-system}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {k8s-app: kube-dns}
  ports: [{port: 9153}]
`

// TestFamilies forms clusters of IPv6 alone and of both families. TestOtherShapes has
// a small one of both.
func TestFamilies(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("formations with IPv6: make e2e ALL=1")
	}
	for _, s := range []shape{
		{controlPlanes: 3, stack: rig.IPv6}, {controlPlanes: 3, workers: 2, stack: rig.DualStack},
	} {
		t.Run(s.String(), func(t *testing.T) { testFormation(t, s) })
	}
}

func testFormation(t *testing.T, s shape) {
	c := form(t, s)
	c.bootAll()
	c.awaitReady(6 * time.Minute)
	testNodes(t, c)
	testEtcd(t, c, s.controlPlanes)
	testNextHops(t, c, s.controlPlanes)
	testOneInit(t, c)
	testListeners(t, c)
	testFamilies(t, c, s)
}

// testFamilies looks at a cluster of IPv6 alone, or of both families, from outside and
// from pods.
func testFamilies(t *testing.T, c *formation, s shape) {
	c.t = t
	lines := c.servers[0].Lines()
	nodes, err := c.rig.Nodes(c.ctx)
	c.must(err)
	for _, n := range nodes {
		if len(n.PodCIDRs) != len(lines) || !strings.HasSuffix(n.PodCIDRs[len(lines)-1], "/80") {
			t.Errorf("node %s has the pod ranges %v, expected one of each family, a /80 of IPv6", n.Name, n.PodCIDRs)
		}
	}
	for _, l := range lines {
		server := "--server=https://" + netip.AddrPortFrom(l.ElasticIP.Addr(), 6443).String()
		if out := c.kubectl(server, "get", "--raw", "/readyz"); out != "ok" {
			t.Errorf("kubectl %s: /readyz says %q", server, out)
		}
	}
	for _, server := range c.servers {
		if out, err := server.Exec(c.ctx, "ip", "-4", "addr", "show", "scope", "global"); s.stack == rig.IPv6 && (err != nil || strings.TrimSpace(out) != "") {
			t.Errorf("%s has IPv4: %q (%v)", server.Name, out, err)
		}
		if out, err := server.Exec(c.ctx, "bootstrap", "net", "plan"); err != nil || !strings.HasPrefix(out, "nothing to write") {
			t.Errorf("%s: bootstrap net plan says %q (%v), want nothing to write", server.Name, out, err)
		}
		st := c.status(server).Network
		if plane := strings.HasPrefix(server.Name, "cp"); plane && (len(st.ElasticIPs) != len(lines) || len(st.Peers) != 2*len(lines)) {
			t.Errorf("%s: status has Elastic IPs %v, peers %+v", server.Name, st.ElasticIPs, st.Peers)
		}
	}
	testFamiliesOfPods(t, c)
}

// testFamiliesOfPods: a pod on every server reaches pods of every other and Services,
// in each family.
func testFamiliesOfPods(t *testing.T, c *formation) {
	c.must(c.servers[0].WriteFile(c.ctx, "/run/families.yaml", []byte(probe+twoFamilies), 0o600))
	c.eventually(time.Minute, "the probes to be made", func() error {
		_, err := c.servers[0].Exec(c.ctx, "kubectl", "apply", "-f", "/run/families.yaml")
		return err
	})
	c.kubectl("rollout", "status", "daemonset/probe", "--timeout=4s")
	c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=4s")
	count := len(c.servers[0].Lines())
	addresses := func(namespace, what, path string, want int) []string {
		found := strings.Fields(c.kubectl("-n", namespace, "get", what, "-o", "jsonpath="+path))
		if len(found) != want {
			t.Fatalf("%s: %v, expected %d addresses", what, found, want)
		}
		return found
	}
	pods := addresses("default", "pods", "{.items[*].status.podIPs[*].ip}", count*len(c.servers))
	services := addresses("kube-system", "service/families", "{.spec.clusterIPs[*]}", count)
	for _, s := range c.servers {
		for _, ip := range pods {
			podReaches(c, s, "the pod "+ip, "ping -c 1 -W 20 "+ip)
		}
		for _, ip := range services {
			at := netip.AddrPortFrom(netip.MustParseAddr(ip), metricsPort)
			podReaches(c, s, "the Service at "+at.String(), fmt.Sprintf("curl -sf -m 20 -o /dev/null http://%s/metrics", at))
		}
	}
}

// addressesOf are a server's private addresses as nodes list them.
func addressesOf(s *rig.Server) string {
	var words []string
	for _, l := range s.Lines() {
		words = append(words, l.Addr.String())
	}
	return strings.Join(words, ",")
}

// planesAt are the addresses of the first servers in the family of a line.
func planesAt(servers []*rig.Server, line int) []netip.Addr {
	var planes []netip.Addr
	for _, s := range servers {
		planes = append(planes, s.Lines()[line].Addr)
	}
	slices.SortFunc(planes, netip.Addr.Compare)
	return planes
}
