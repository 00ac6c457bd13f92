package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
)

// Limits of a connection: one that is let in must come about however loaded the
// machine is; one that is dropped must not, and nothing tells so but time.
const (
	open   = 20 * time.Second
	closed = 700 * time.Millisecond
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// site is a server, in this process's namespace, a pod on it, and all else: the
// top of rack behind which are other servers, their pods, clients, and metadata.
type site struct{ pod, outside namespace }

// Addresses of the site.
var (
	public, private, eip      = addr("147.75.100.3"), addr("10.99.14.9"), addr("147.75.194.92")
	public6, private6         = addr("2604:1380:1:4f00::3"), addr("fd00:1::9")
	client, peer, otherPod    = addr("185.1.2.3"), addr("10.99.14.11"), addr("172.16.5.5")
	client6, peer6, otherPod6 = addr("2a02:100::5"), addr("fd00:1::11"), addr("2604:1380:9::5")
	pod, metadata             = addr("172.16.1.2"), addr("169.254.169.254")
)

// guarded answers on the server; NodePort 30080 is translated to the pod's 8080.
const nodePort, podPort, ssh = 30080, 8080, 22

func newSite(t *testing.T) site {
	needNamespace(t)
	s := site{pod: newNamespace(t), outside: newNamespace(t)}
	var server namespace
	server.ip(t, "link set lo up", "link add up0 type veth peer name up1", "link add pods type veth peer name eth0")
	server.ip(t, fmt.Sprintf("link set up1 netns /proc/%d/fd/%d", os.Getpid(), s.outside.fd), fmt.Sprintf("link set eth0 netns /proc/%d/fd/%d", os.Getpid(), s.pod.fd))
	t.Cleanup(func() {
		server.ip(t, "link del up0", "link del pods", "addr del "+eip.String()+"/32 dev lo")
		server.run(t, "", "nft", "flush", "ruleset")
	})
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server.ip(t, "link set up0 up", "link set pods up",
		"addr add 147.75.100.3/31 dev up0", "addr add 10.99.14.9/24 dev up0", "addr add 147.75.194.92/32 dev lo scope host",
		"addr add 2604:1380:1:4f00::3/127 dev up0 nodad", "addr add fd00:1::9/64 dev up0 nodad",
		"addr add 172.16.1.1/24 dev pods", "route add default via 147.75.100.2", "route add default via 2604:1380:1:4f00::2")
	s.outside.ip(t, "link set lo up", "link set up1 up",
		"addr add 147.75.100.2/31 dev up1", "addr add 10.99.14.11/24 dev up1",
		"addr add 2604:1380:1:4f00::2/127 dev up1 nodad", "addr add fd00:1::11/64 dev up1 nodad",
		"addr add 185.1.2.3/32 dev lo", "addr add 172.16.5.5/32 dev lo", "addr add 169.254.169.254/32 dev lo",
		"addr add 2a02:100::5/128 dev lo nodad", "addr add 2604:1380:9::5/128 dev lo nodad",
		"route add 147.75.194.92/32 via 147.75.100.3", "route add 172.16.1.0/24 via 10.99.14.9")
	s.pod.ip(t, "link set lo up", "link set eth0 up", "addr add 172.16.1.2/24 dev eth0", "route add default via 172.16.1.1")
	// As kube-proxy does, at its priority.
	server.run(t, `table ip kube-proxy {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport 30080 dnat to 172.16.1.2:8080
	}
}`, "nft", "-f", "-")
	for _, port := range []int{2379, 2380, 6443, 9760, 9761, 9762, 9763, 10250, ssh, 8472, 179} {
		server.echo(t, port)
	}
	s.pod.echo(t, podPort)
	for _, port := range []int{53, 80, 443} {
		s.outside.echo(t, port)
	}
	s.settle(t)
	return s
}

// settle waits until IPv6 works: the kernel takes a new link's addresses into use a
// moment after they were added.
func (s site) settle(t *testing.T) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	deadline := time.Now().Add(open)
	for _, a := range []struct {
		where    namespace
		from, to netip.Addr
	}{{namespace{}, public6, public6}, {s.outside, client6, public6}, {s.outside, otherPod6, public6}, {s.outside, peer6, private6}} {
		for {
			c, err := a.where.dial("tcp", a.from, netip.AddrPortFrom(a.to, ssh), open)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("from %s to %s: %v", a.from, a.to, err)
			}
			<-look.C
		}
	}
}

func spec(t *testing.T, firewall string) cluster.Spec {
	t.Helper()
	c, problems := cluster.Parse("c.yaml", []byte(`apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers: {expect: 5, controlPlanes: 3}
  discovery: [{static: [10.99.14.9, 10.99.14.11]}]
  kubernetes:
    version: v1.36.3
    endpoint: 147.75.194.92:6443
    podSubnets: [172.16.0.0/12, 'fd00:10::/56']
    serviceSubnets: [192.168.0.0/16, 'fd00:20::/108']
  network:
    elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]
`+firewall))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	return c.Spec
}

// order is what a server of the site is told with these lines of the cluster file.
func order(t *testing.T, firewall string) plan.Firewall {
	t.Helper()
	return plan.FirewallFor(spec(t, firewall), device.Device{Addresses: []device.Address{
		{Prefix: prefix("147.75.100.3/31"), Gateway: addr("147.75.100.2"), Public: true},
		{Prefix: prefix("2604:1380:1:4f00::3/127"), Gateway: addr("2604:1380:1:4f00::2"), Public: true},
		{Prefix: prefix("10.99.14.9/24"), Gateway: addr("10.99.14.1")},
	}})
}

func load(t *testing.T, f plan.Firewall) {
	t.Helper()
	if err := (nft{}).Load(t.Context(), f.Script()); err != nil {
		t.Fatal(err)
	}
}

// attempt is one connection to the server.
type attempt struct {
	name    string
	where   func(site) namespace
	network string
	from    netip.Addr
	to      netip.Addr
	port    uint16
	pass    bool
}

func outside(s site) namespace { return s.outside }
func inPod(s site) namespace   { return s.pod }
func itself(site) namespace    { return namespace{} }

// check makes all connections at once.
func check(t *testing.T, s site, attempts []attempt, passes func(attempt) bool) {
	t.Helper()
	var wg sync.WaitGroup
	for _, a := range attempts {
		wg.Go(func() {
			limit := closed
			if passes(a) {
				limit = open
			}
			c, err := a.where(s).dial(a.network, a.from, netip.AddrPortFrom(a.to, a.port), limit)
			if err == nil {
				c.Close()
			}
			if (err == nil) != passes(a) {
				t.Errorf("%s: %s from %s to %s port %d: %v, expected to pass: %t", a.name, a.network, a.from, a.to, a.port, err, passes(a))
			}
		})
	}
	wg.Wait()
}

func attempts() []attempt {
	var out []attempt
	add := func(name string, where func(site) namespace, network string, from, to netip.Addr, pass bool, ports ...uint16) {
		for _, p := range ports {
			out = append(out, attempt{name, where, network, from, to, p, pass})
		}
	}
	all := []uint16{2379, 2380, 6443, 9760, 9761, 9762, 9763, 10250}
	add("a client of the Internet", outside, "tcp", client, public, false, all...)
	add("a client of the Internet", outside, "udp", client, public, false, 9760)
	add("a client of the Internet, NodePort", outside, "tcp", client, public, false, nodePort)
	add("a client of the Internet, NodePort of the Elastic IP", outside, "tcp", client, eip, false, nodePort)
	add("a client of the Internet, not the endpoint", outside, "tcp", client, eip, false, 10250, 2379)
	add("a client of the endpoint", outside, "tcp", client, eip, true, 6443)
	add("a client of the Internet over IPv6", outside, "tcp", client6, public6, false, 6443, 10250)
	add("a public address beside it over IPv6", outside, "tcp", otherPod6, public6, false, 6443)
	add("the neighbour on the public link", outside, "tcp", addr("147.75.100.2"), public, false, 6443, 10250)
	add("another server", outside, "tcp", peer, private, true, all...)
	add("another server", outside, "tcp", peer, private, true, nodePort)
	add("another server", outside, "udp", peer, private, true, 9760)
	add("another server over IPv6", outside, "tcp", peer6, private6, true, 6443, 10250)
	add("a pod of another server", outside, "tcp", otherPod, private, true, 6443, 10250, nodePort)
	add("a pod of this server", inPod, "tcp", pod, private, true, 6443, 10250)
	add("a pod of this server, public address", inPod, "tcp", pod, public, true, 10250)
	add("a pod of this server, endpoint", inPod, "tcp", pod, eip, true, 6443)
	add("the server itself", itself, "tcp", public, public, true, 6443, 10250)
	add("the server itself, endpoint", itself, "tcp", eip, eip, true, 6443)
	add("the server itself, IPv6", itself, "tcp", public6, public6, true, 6443)
	add("what is not guarded", outside, "tcp", client, public, true, ssh, 179)
	add("what is not guarded", outside, "tcp", client6, public6, true, ssh, 179)
	add("tunnels", outside, "udp", client, public, true, 8472)
	return out
}

func TestPackets(t *testing.T) {
	s := newSite(t)
	// Without the table all of them pass: what is refused below, the table refuses.
	check(t, s, attempts(), func(attempt) bool { return true })
	load(t, order(t, ""))
	s.outside.ip(t, "neigh flush dev up1") // so that neighbours are asked for again
	check(t, s, attempts(), func(a attempt) bool { return a.pass })
	for _, a := range []struct{ from, to netip.Addr }{{client, public}, {client6, public6}} {
		if err := s.outside.ping(a.from, a.to); err != nil {
			t.Errorf("ping from %s to %s: %v", a.from, a.to, err)
		}
	}
	if n := dropped(t); n == 0 {
		t.Error("the counter of what was dropped is 0")
	}
}

// dropped reads the counter of the rule that drops.
func dropped(t *testing.T) int {
	t.Helper()
	listing := namespace{}.run(t, "", "nft", "list", "table", "inet", plan.FirewallTable)
	m := regexp.MustCompile(`counter packets (\d+) bytes \d+ drop`).FindStringSubmatch(listing)
	if m == nil {
		t.Fatalf("no counter in\n%s", listing)
	}
	var n int
	if _, err := fmt.Sscan(m[1], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The cluster file opens and narrows.
func TestOpenings(t *testing.T) {
	s := newSite(t)
	load(t, order(t, `    firewall:
      trusted: [147.75.100.2/32]
      apiServerFrom: [203.0.114.0/24, '2a02:100::/32']
      allow: [{port: 30080, from: [0.0.0.0/0]}, {port: 9760, through: 9761, from: [185.1.2.0/24]}]
`))
	check(t, s, []attempt{
		{"the endpoint for others", outside, "tcp", client, eip, 6443, false},
		{"the endpoint for pods", inPod, "tcp", pod, eip, 6443, true},
		{"the endpoint for servers", outside, "tcp", peer, eip, 6443, true},
		{"an open NodePort", outside, "tcp", client, public, nodePort, true},
		{"open ports", outside, "tcp", client, public, 9761, true},
		{"open ports", outside, "udp", client, public, 9760, true},
		{"ports beside them", outside, "tcp", client, public, 9762, false},
		{"a trusted range", outside, "tcp", addr("147.75.100.2"), public, 10250, true},
	}, func(a attempt) bool { return a.pass })
}

// A connection that was let in lives on when the rules are written anew.
func TestEstablished(t *testing.T) {
	s := newSite(t)
	load(t, order(t, "    firewall: {allow: [{port: 10250, from: [185.1.2.0/24]}]}\n"))
	to := netip.AddrPortFrom(public, 10250)
	c, err := s.outside.dial("tcp", client, to, open)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	load(t, order(t, ""))
	if other, err := s.outside.dial("tcp", client, to, closed); err == nil {
		other.Close()
		t.Error("a new connection is let in")
	}
	if err := talk(c, open); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

// Pods do not reach metadata; the server does, and pods reach all else.
func TestMetadata(t *testing.T) {
	s := newSite(t)
	reach := func(n namespace, from, to netip.Addr, port uint16) error {
		c, err := n.dial("tcp", from, netip.AddrPortFrom(to, port), open)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := reach(s.pod, pod, metadata, 80); err != nil {
		t.Fatalf("without the table: %v", err)
	}
	load(t, order(t, ""))
	for _, port := range []uint16{80, 443} {
		if err := reach(s.pod, pod, metadata, port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a pod to port %d of the metadata address: %v, expected to be refused at once", port, err)
		}
	}
	for _, row := range []struct {
		name     string
		n        namespace
		from, to netip.Addr
		port     uint16
	}{
		{"names at the metadata address", s.pod, pod, metadata, 53},
		{"another server", s.pod, pod, peer, 80},
		{"the Internet", s.pod, pod, client, 443},
		{"the server itself", namespace{}, private, metadata, 80},
	} {
		if err := reach(row.n, row.from, row.to, row.port); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if listing := (namespace{}).run(t, "", "nft", "list", "ruleset"); !strings.Contains(listing, "table ip kube-proxy") {
		t.Errorf("the table of others is gone:\n%s", listing)
	}
}
