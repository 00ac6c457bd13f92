package e2e

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// Clients behind the routers: one of the Internet, one of a private network.
const (
	stranger  = "185.1.2.3"
	colleague = "10.200.0.3"
)

// metricsPort is where CoreDNS's pods answer, nodePort the Service of the test for it.
const metricsPort, nodePort = 9153, 30153

// probe puts a pod on every node, from whose network the test looks, and a NodePort
// before CoreDNS's pods.
const probe = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: probe}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: probe, image: "registry.k8s.io/pause:3.10.2", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Service
metadata: {name: metrics, namespace: kube-system}
spec:
  type: NodePort
  selector: {k8s-app: kube-dns}
  ports: [{port: 9153, nodePort: 30153}]
`

// testFirewall looks from pods, from a private network and from the Internet at a
// cluster of servers with public addresses, where the firewall is on by default.
func testFirewall(t *testing.T, c *formation) {
	c.t = t
	for _, s := range c.servers {
		if got := c.status(s).Network.Firewall; got != (member.FirewallStatus{State: member.FirewallOn}) {
			t.Errorf("%s: firewall %+v", s.Name, got)
		}
	}
	for _, a := range []string{stranger, colleague} {
		_, err := c.rig.ToR().Exec(c.ctx, "ip", "addr", "add", a+"/32", "dev", "lo")
		c.must(err)
	}
	c.must(c.servers[0].WriteFile(c.ctx, "/run/probe.yaml", []byte(probe), 0o600))
	c.eventually(time.Minute, "the probes to be made", func() error {
		_, err := c.servers[0].Exec(c.ctx, "kubectl", "apply", "-f", "/run/probe.yaml")
		return err
	})
	c.kubectl("rollout", "status", "daemonset/probe", "--timeout=4s")
	c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=4s")

	t.Run("clients", func(t *testing.T) { testClients(t, c) })
	t.Run("pods", func(t *testing.T) { testPods(t, c) })
	t.Run("a table that was removed is back", func(t *testing.T) { testFirewallHeals(t, c) })
}

// connects tries TCP from an address behind the routers. Only time tells that a
// packet was dropped. What is said then does not matter; with https curl would call
// a connection without TLS none.
func connects(c *formation, from string, to netip.AddrPort, limit time.Duration) bool {
	c.t.Helper()
	script := fmt.Sprintf("curl -sk -o /dev/null -m 20 --connect-timeout %v -w '%%{time_connect}' --interface %s http://%s/ || true",
		limit.Seconds(), from, to)
	out, err := c.rig.ToR().Exec(c.ctx, "sh", "-c", script)
	c.must(err)
	took, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	c.must(err)
	return took > 0
}

const passes, refused = 15 * time.Second, 2 * time.Second

// comesThrough connects, or says that it could not for a minute: what answers behind a
// NodePort may still start, and kube-proxy may still write its rules.
func comesThrough(c *formation, from string, to netip.AddrPort) error {
	c.t.Helper()
	return c.within(time.Minute, func() error {
		if !connects(c, from, to, passes) {
			return fmt.Errorf("no connection from %s to %s", from, to)
		}
		return nil
	})
}

// testClients looks at a control plane and a worker.
func testClients(t *testing.T, c *formation) {
	c.t = t
	for _, s := range []*rig.Server{c.servers[0], c.servers[len(c.servers)-1]} {
		guarded := []netip.AddrPort{netip.AddrPortFrom(s.Public, nodePort)}
		for _, port := range []uint16{10250, nodePort, 9760, 9761, 9762} {
			guarded = append(guarded, netip.AddrPortFrom(s.Addr, port))
		}
		if s.Name == "cp1" {
			guarded = append(guarded, netip.AddrPortFrom(s.Public, 6443), netip.AddrPortFrom(rig.ElasticIP, nodePort))
			for _, port := range []uint16{6443, 2379, 2380, 9763} {
				guarded = append(guarded, netip.AddrPortFrom(s.Addr, port))
			}
		}
		for _, to := range guarded {
			// First, so that something answers there when the stranger tries.
			if err := comesThrough(c, colleague, to); err != nil {
				t.Errorf("%s: the private network: %v", s.Name, err)
			}
			if connects(c, stranger, to, refused) {
				t.Errorf("%s: a stranger reaches %s", s.Name, to)
			}
		}
		if err := comesThrough(c, stranger, netip.AddrPortFrom(s.Public, 22)); err != nil {
			t.Errorf("%s: sshd is shut off: %v", s.Name, err)
		}
	}
	for _, from := range []string{stranger, colleague} {
		if err := comesThrough(c, from, netip.AddrPortFrom(rig.ElasticIP, 6443)); err != nil {
			t.Errorf("the endpoint: %v", err)
		}
	}
}

// inPod runs a program of the server in the network of its probe.
func inPod(c *formation, s *rig.Server, script string) (string, error) {
	const enter = `pod=$(crictl pods --name probe --state ready -q | head -n 1)
exec nsenter --net=/proc/$(crictl inspectp "$pod" | jq .info.pid)/ns/net sh -c "$1"`
	return s.Exec(c.ctx, "sh", "-ec", enter, "sh", script)
}

// podReaches runs the script in the network of the server's probe until it succeeds: a
// Service is refused until kube-proxy has written its rules on that server.
func podReaches(c *formation, s *rig.Server, what, script string) {
	c.t.Helper()
	err := c.within(time.Minute, func() error {
		out, err := inPod(c, s, script)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		c.t.Errorf("a pod on %s does not reach %s: %v", s.Name, what, err)
	}
}

func testPods(t *testing.T, c *formation) {
	c.t = t
	pods := func(namespace, label string) []string {
		return strings.Fields(c.kubectl("-n", namespace, "get", "pods", "-l", label, "-o", "jsonpath={.items[*].status.podIP}"))
	}
	probes, answering := pods("default", "app=probe"), pods("kube-system", "k8s-app=kube-dns")
	if len(probes) != len(c.servers) || len(answering) == 0 {
		t.Fatalf("pods %v and %v", probes, answering)
	}
	api := strings.TrimSpace(c.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"))
	for _, s := range c.servers {
		scripts := map[string]string{
			"kubernetes.default": "curl -sfk -m 20 https://" + api + "/version",
			"the endpoint":       "curl -sfk -m 20 https://" + rig.ElasticIP.String() + ":6443/version",
		}
		for _, p := range probes {
			scripts["the pod "+p] = "ping -c 1 -W 20 " + p
		}
		for _, p := range answering {
			scripts["CoreDNS at "+p] = fmt.Sprintf("curl -sf -m 20 -o /dev/null http://%s:%d/metrics", p, metricsPort)
		}
		for _, other := range c.servers {
			scripts["the NodePort of "+other.Name] = fmt.Sprintf("curl -sf -m 20 -o /dev/null http://%s:%d/metrics", other.Addr, nodePort)
			scripts["the kubelet of "+other.Name] = fmt.Sprintf("curl -sk -m 20 -o /dev/null https://%s:10250/", other.Addr)
		}
		for what, script := range scripts {
			podReaches(c, s, what, script)
		}
		if out, err := s.Exec(c.ctx, "curl", "-sf", "-m", "20", rig.MetadataURL+"/metadata"); err != nil {
			t.Errorf("%s itself does not reach the metadata: %v: %s", s.Name, err, out)
		}
		// 7 is curl's word for a refused connection.
		out, err := inPod(c, s, "curl -s -m 20 "+rig.MetadataURL+"/metadata; echo exit $?")
		if err != nil || !strings.Contains(out, "exit 7") {
			t.Errorf("a pod on %s and the metadata: %v: %s", s.Name, err, out)
		}
	}
}

func testFirewallHeals(t *testing.T, c *formation) {
	c.t = t
	s := c.servers[0]
	if _, err := s.Exec(c.ctx, "nft", "delete", "table", "inet", "muster"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.eventually(10*time.Second, "the table to be back", func() error {
		_, err := s.Exec(c.ctx, "nft", "list", "chain", "inet", "muster", "guard")
		return err
	})
	t.Logf("the table was back after %s", time.Since(began).Round(10*time.Millisecond))
}

// testFirewallOff ends it, and shows with that that strangers were kept out by it.
func testFirewallOff(t *testing.T, c *formation) {
	c.t = t
	s := c.servers[0]
	if _, err := s.Exec(c.ctx, "sed", "-i", "s/mode: auto/mode: off/", "/etc/muster/cluster.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Exec(c.ctx, "systemctl", "restart", "muster"); err != nil {
		t.Fatal(err)
	}
	c.eventually(time.Minute, "the firewall to be off", func() error {
		list, err := readStatus(c.ctx, s) // an agent that has just started does not know its name yet
		if err != nil {
			return err
		}
		for _, one := range list {
			if one.Name == s.Name && one.Network.Firewall == (member.FirewallStatus{State: member.FirewallOff}) {
				return nil
			}
		}
		return fmt.Errorf("status %+v", list)
	})
	if out, err := s.Exec(c.ctx, "nft", "list", "tables"); err != nil || strings.Contains(out, "inet muster") {
		t.Errorf("tables of nft (%v):\n%s", err, out)
	}
	open := []netip.AddrPort{netip.AddrPortFrom(s.Public, 6443), netip.AddrPortFrom(s.Public, nodePort)}
	for _, port := range []uint16{10250, 6443, 2379, 2380, nodePort, 9760, 9761, 9762, 9763} {
		open = append(open, netip.AddrPortFrom(s.Addr, port))
	}
	for _, to := range open {
		if err := comesThrough(c, stranger, to); err != nil {
			t.Errorf("nothing keeps him out, but: %v", err)
		}
	}
	c.awaitReady(2 * time.Minute)
}
