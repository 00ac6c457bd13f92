package speakers

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

var update = flag.Bool("update", false, "write the golden files")

// compare holds text to a golden file.
func compare(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// server is one of the new sites: a /31, two routers beyond it, both families.
func server(node string, n int, password string) Server {
	private, public := netip.AddrFrom4([4]byte{10, 99, 14, byte(2*n + 1)}), netip.AddrFrom16([16]byte{0x26, 4, 0x13, 0x80, 15: byte(2*n + 1)})
	return Server{Node: node, Device: device.Device{
		ID: node, Hostname: node,
		Addresses: []device.Address{
			{Prefix: netip.PrefixFrom(private, 31), Gateway: private.Prev()},
			{Prefix: netip.PrefixFrom(public, 127), Gateway: public.Prev(), Public: true},
		},
		BGPNeighbors: []device.Neighbor{
			{Family: 6, CustomerAS: 65000, CustomerIP: public, PeerAS: 65530, PeerIPs: []netip.Addr{addr("fc00::f"), addr("fc00::e")}, Multihop: true, MD5: password},
			{Family: 4, CustomerAS: 65000, CustomerIP: private, PeerAS: 65530, PeerIPs: []netip.Addr{addr("169.254.255.2"), addr("169.254.255.1")}, Multihop: true, MD5: password},
		},
	}}
}

// pair are two servers with the same routers.
func pair() []Server { return []Server{server("w2", 3, "s3cret"), server("w1", 2, "s3cret")} }

// gateways are two servers of an old site: each has the gateway of its own /31.
func gateways() []Server {
	var out []Server
	for _, s := range pair() {
		s.Device.BGPNeighbors = s.Device.BGPNeighbors[1:]
		n := &s.Device.BGPNeighbors[0]
		n.PeerIPs, n.Multihop = []netip.Addr{s.Device.Addresses[0].Gateway}, false
		out = append(out, s)
	}
	return out
}

// fixture is what Services is given in a test.
type fixture struct {
	services, controlPlane string
	servers                []Server
	pools                  []cluster.Pool // nil: one of each kind
}

func (f fixture) spec() cluster.Spec {
	if f.pools == nil {
		f.pools = []cluster.Pool{
			{Name: "public", Addresses: []netip.Prefix{prefix("147.75.40.8/29"), prefix("147.75.41.0/24")}},
			{Name: "global", Addresses: []netip.Prefix{prefix("147.75.42.1/32")}, Manual: true},
		}
	}
	return cluster.Spec{Network: cluster.Network{
		BGP:          cluster.BGP{ControlPlane: f.controlPlane, Services: f.services, Namespace: "ns"},
		LoadBalancer: cluster.LoadBalancer{Pools: f.pools},
	}}
}

func (f fixture) documents(t *testing.T) []Document {
	t.Helper()
	documents, err := Services(f.spec(), f.servers)
	if err != nil {
		t.Fatal(err)
	}
	return documents
}

func rendered(t *testing.T, documents []Document) []byte {
	t.Helper()
	stream, err := Marshal(documents)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestServices: every speaker in every shape, held to golden files and schemas.
func TestServices(t *testing.T) {
	all := readSchemas(t)
	both := []cluster.Pool{{Name: "dual", Addresses: []netip.Prefix{prefix("147.75.40.8/29"), prefix("2604:1380:1::/64")}}}
	for shape, f := range map[string]fixture{
		"shared":    {controlPlane: "builtin", servers: pair()},
		"one":       {controlPlane: "kube-vip", servers: pair()[:1]},
		"dual":      {controlPlane: "none", servers: pair(), pools: both},
		"gateways":  {controlPlane: "builtin", servers: gateways()},
		"gateway":   {controlPlane: "none", servers: gateways()[:1]},
		"passwords": {controlPlane: "builtin", servers: []Server{server("w1", 1, "a"), server("w2", 2, "b")}},
	} {
		for _, services := range []string{"metallb", "calico", "cilium"} {
			t.Run(services+" "+shape, func(t *testing.T) {
				f.services = services
				stream := rendered(t, f.documents(t))
				if err := all.check(t, stream); err != nil {
					t.Error(err)
				}
				compare(t, services+"-"+shape+".yaml", string(stream))
				if again := rendered(t, f.documents(t)); string(again) != string(stream) {
					t.Error("a second time it is another text")
				}
			})
		}
	}
}

// TestExclusion: where another speaker holds the control planes' sessions no peer
// of Services may be chosen there, in any shape; where none does, it may.
func TestExclusion(t *testing.T) {
	for _, services := range []string{"metallb", "calico", "cilium"} {
		for _, servers := range [][]Server{pair(), gateways()} {
			for controlPlane, excluded := range map[string]bool{"builtin": true, "kube-vip": true, "none": false} {
				f := fixture{services: services, controlPlane: controlPlane, servers: servers}
				peers := 0
				for _, d := range f.documents(t) {
					if d.Kind != "BGPPeer" && d.Kind != "CiliumBGPClusterConfig" {
						continue
					}
					peers++
					text := string(rendered(t, []Document{d}))
					away := strings.Contains(text, "key: node-role.kubernetes.io/control-plane\n") && strings.Contains(text, "operator: DoesNotExist") ||
						strings.Contains(text, "!has(node-role.kubernetes.io/control-plane)")
					if away != excluded {
						t.Errorf("%s beside %s: control planes excluded: %t\n%s", services, controlPlane, away, text)
					}
				}
				if peers == 0 {
					t.Errorf("%s beside %s: no peers", services, controlPlane)
				}
			}
		}
	}
}

// TestSecrets: passwords stand in Secrets, which are marked, and nowhere else.
func TestSecrets(t *testing.T) {
	for _, services := range []string{"metallb", "calico", "cilium"} {
		f := fixture{services: services, controlPlane: "builtin", servers: pair()}
		var secrets, others []Document
		for _, d := range f.documents(t) {
			if d.Secret {
				secrets = append(secrets, d)
			} else {
				others = append(others, d)
			}
		}
		if n := strings.Count(string(rendered(t, secrets)), "password: s3cret"); n != 2 || len(secrets) != 2 {
			t.Errorf("%s: %d Secrets with %d passwords, expected 2 for 2 routers", services, len(secrets), n)
		}
		if strings.Contains(string(rendered(t, others)), "s3cret") {
			t.Errorf("%s: a password outside of a Secret", services)
		}
		if text := fmt.Sprintf("%v %+v %#v", secrets, secrets, secrets); strings.Contains(text, "s3cret") {
			t.Errorf("%s: printing a document shows the password: %s", services, text)
		}
		f.servers = []Server{server("w1", 1, "")}
		for _, d := range f.documents(t) {
			if d.Secret || d.Kind == "Role" {
				t.Errorf("%s without passwords: %s %s", services, d.Kind, d.Name)
			}
		}
	}
}

// TestRefused: what the metadata make impossible is said.
func TestRefused(t *testing.T) {
	change := func(do func(*device.Device)) []Server {
		s := server("w1", 1, "")
		do(&s.Device)
		return []Server{s}
	}
	v6 := []cluster.Pool{{Name: "six", Addresses: []netip.Prefix{prefix("2604:1380:1::/64")}}}
	for _, row := range []struct {
		name string
		f    fixture
		want string
	}{
		{"no services", fixture{services: "none", servers: pair()}, "spec.network.bgp.services is none"},
		{"no servers", fixture{services: "metallb"}, "no IPv4 router to announce them to is in bgp_neighbors"},
		{"no neighbour of the family", fixture{services: "cilium", servers: gateways(), pools: v6}, "has IPv6 addresses, and no IPv6 router"},
		{"two sessions with a router", fixture{services: "metallb", servers: change(func(d *device.Device) {
			n := d.BGPNeighbors[1]
			n.PeerAS = 65531
			d.BGPNeighbors = append(d.BGPNeighbors, n)
		})}, "the metadata of w1 has the router 169.254.255.1 twice, with different sources, AS numbers or passwords"},
		{"two AS numbers", fixture{services: "metallb", servers: change(func(d *device.Device) {
			n := d.BGPNeighbors[1]
			n.CustomerAS, n.PeerIPs = 65001, []netip.Addr{addr("169.254.255.3")}
			d.BGPNeighbors = append(d.BGPNeighbors, n)
		})}, "has AS 65000 for the router 169.254.255.1 and AS 65001 for 169.254.255.3: a speaker has one AS number"},
		{"Calico and servers of two AS numbers", fixture{services: "calico", servers: append(pair(), change(func(d *device.Device) {
			d.BGPNeighbors[1].CustomerAS = 65001
		})...)}, "the servers have AS 65000 and AS 65001, and Calico's mesh"},
	} {
		if _, err := Services(row.f.spec(), row.f.servers); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	// The same neighbour twice is one, and iBGP has no hops to count.
	twice := change(func(d *device.Device) { d.BGPNeighbors = append(d.BGPNeighbors, d.BGPNeighbors...) })
	once := change(func(*device.Device) {})
	a, b := fixture{services: "metallb", servers: twice}, fixture{services: "metallb", servers: once}
	if diff := cmp.Diff(string(rendered(t, b.documents(t))), string(rendered(t, a.documents(t)))); diff != "" {
		t.Errorf("a neighbour listed twice (-once +twice):\n%s", diff)
	}
	inside := change(func(d *device.Device) { d.BGPNeighbors[1].PeerAS = 65000 })
	for _, services := range []string{"metallb", "cilium"} {
		if text := string(rendered(t, fixture{services: services, servers: inside}.documents(t))); strings.Contains(strings.ToLower(text), "multihop") {
			t.Errorf("%s: iBGP over several hops, which it refuses:\n%s", services, text)
		}
	}
}

// TestOneSession: whatever the servers have, each gets exactly its own sessions,
// and one with each router.
func TestOneSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var servers []Server
		for i := range rapid.IntRange(1, 4).Draw(t, "servers") {
			s := server(fmt.Sprintf("n%d", i), i+1, rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "password"))
			n := &s.Device.BGPNeighbors[1]
			n.Multihop = rapid.Bool().Draw(t, "multihop")
			if rapid.Bool().Draw(t, "gateway") {
				n.PeerIPs = []netip.Addr{s.Device.Addresses[0].Gateway}
			}
			servers = append(servers, s)
		}
		f := fixture{services: "metallb", controlPlane: "builtin"}
		peerings, err := peeringsOf(f.spec(), servers)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range servers {
			var got []session
			for _, p := range peerings {
				if p.node == "" || p.node == s.Node {
					got = append(got, p.sessions...)
				}
			}
			want, err := sessionsOf(s.Device, []int{4})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(unsourced(got), unsourced(want)) {
				t.Fatalf("%s has the sessions %+v, its metadata say %+v", s.Node, got, want)
			}
			for _, x := range got {
				if x.source.IsValid() && x.source != s.Device.Addresses[0].Prefix.Addr() {
					t.Fatalf("%s: the source %s is another server's", s.Node, x.source)
				}
			}
		}
	})
}
