package userdata

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// staticFile describes n servers at network, of which the first three announce.
func staticFile(n int, network string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: static
  servers: {expect: %d, controlPlanes: 3, eligible: {hostname: "s?"}}
  discovery: [{static: [%s]}]
  kubernetes: {version: v1.36.3, endpoint: "147.75.194.92:6443", podSubnets: [172.16.0.0/12]}
  network: {elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]}
  static:
`, n, netip.MustParseAddr(network).Next())
	at := netip.MustParseAddr(network)
	for i := range n {
		gateway := at
		at = at.Next()
		fmt.Fprintf(&b, "  - match: {hostname: s%d}\n    id: rack-%d\n    hostname: s%d\n    addresses: [{address: %s/31, gateway: %s}]\n", i+1, i+1, i+1, at, gateway)
		if i < 3 {
			b.WriteString("    bgpNeighbors: [{customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], multihop: true, md5: hunter2hunter2}]\n")
		}
		at = at.Next()
	}
	return b.String()
}

// TestServersVoteTogether renders for every kind of server in every format, and
// reads back what each server reads: all have the same hash of what is voted by.
func TestServersVoteTogether(t *testing.T) {
	for name, file := range map[string]string{"packet": clusterFile, "static": staticFile(6, "10.99.14.0")} {
		t.Run(name, func(t *testing.T) {
			all := load(t, file)
			want := election.FromSpec(all.Spec)
			for _, format := range Formats {
				for _, server := range []Server{{}, {Role: member.ControlPlane}, {Role: member.Worker}, {Name: "s1"}, {Name: "s6"}, {Name: "S5", Role: member.ControlPlane}} {
					own, err := server.Of(all)
					if err != nil {
						t.Fatal(err)
					}
					got, err := Parse(mustRender(t, own, format))
					if err != nil {
						t.Fatalf("%s %+v: the server refuses it: %v", format, server, err)
					}
					if diff := cmp.Diff(want, election.FromSpec(got.Spec)); diff != "" {
						t.Errorf("%s %+v: votes by something else (-all +own):\n%s", format, server, diff)
					}
					e := got.Spec.Servers.Eligible
					if e.All != (server.Role == member.ControlPlane) || e.None != (server.Role == member.Worker) {
						t.Errorf("%s %+v: eligible is %+v", format, server, e)
					}
				}
			}
		})
	}
}

func TestServerGetsItsOwnDescription(t *testing.T) {
	all := load(t, staticFile(6, "10.99.14.0"))
	own, err := Server{Name: "s5"}.Of(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(own.Spec.Static) != 1 || own.Spec.Static[0].Hostname != "s5" || len(all.Spec.Static) != 6 {
		t.Errorf("s5 gets %+v, and the whole has %d", own.Spec.Static, len(all.Spec.Static))
	}
	if strings.Contains(string(mustRender(t, own, CloudConfig)), "hunter2") {
		t.Error("s5 gets the password of another server's routers")
	}
	if _, err := (Server{Name: "s7"}).Of(all); err == nil || !strings.Contains(err.Error(), `no server with hostname "s7"`) {
		t.Errorf("s7: %v", err)
	}
	if _, err := (Server{Role: "master"}).Of(all); err == nil || !strings.Contains(err.Error(), `no role "master"; there are control-plane and worker`) {
		t.Errorf("master: %v", err)
	}
	// The packet filter learns from the list whom to let in where addresses are public.
	public := load(t, staticFile(6, "203.0.113.0"))
	if own, err = (Server{Name: "s5"}).Of(public); err != nil || len(own.Spec.Static) != 6 {
		t.Errorf("with public addresses: %d servers, %v; expected all", len(own.Spec.Static), err)
	}
}

func BenchmarkRender(b *testing.B) {
	c := load(b, clusterFile)
	for _, format := range Formats {
		b.Run(string(format), func(b *testing.B) {
			for b.Loop() {
				mustRender(b, c, format)
			}
		})
	}
}

func TestTree(t *testing.T) {
	c := load(t, clusterFile)
	contents, err := NewContents(c, layout.Local)
	if err != nil {
		t.Fatal(err)
	}
	root := fstest.MapFS{}
	for _, n := range contents.Tree() {
		if n.Target == "" {
			root[n.Path[1:]] = &fstest.MapFile{Data: []byte(n.Content), Mode: n.Mode}
		}
	}
	got, err := ParseTree(root)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := cluster.Marshal(c)
	b, _ := cluster.Marshal(got)
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if _, err := ParseTree(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "no etc/muster/cluster.yaml") {
		t.Errorf("an empty tree: %v", err)
	}
}
