package change

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mustermetal/muster/pkg/cluster"
)

// formed is the file of a cluster that may grow.
var formed = strings.Replace(file, "v1.37.0}", "v1.37.0, endpoint: {address: 'api.example.net:6443', external: true}}", 1)

// spec reads what a cluster that has formed is given.
func spec(t *testing.T, text string) cluster.Cluster {
	t.Helper()
	c, problems := cluster.ParseSpec("c.yaml", []byte(text), cluster.Beside{})
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFollow: a server takes what it can take as it runs, and keeps the rest.
func TestFollow(t *testing.T) {
	compare := []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}
	own := parse(t, formed)
	own.Secret, own.AcceptSecret, own.Lock = "s", "t", []cluster.Pin{{Name: "kubelet"}}
	own.Spec.Join.CA = "sha256:aa"
	own.Spec.Servers.Eligible.None = true
	for _, row := range []struct {
		name, old, new string
		want           func(*cluster.Cluster)
	}{
		{"nothing", "", "", func(*cluster.Cluster) {}},
		{"control planes", "controlPlanes: 1", "controlPlanes: 3", func(c *cluster.Cluster) { c.Spec.Servers.ControlPlanes = 3 }},
		{"the version stays", "v1.37.0", "v1.37.1", func(*cluster.Cluster) {}},
		{"what the cluster was formed with stays", "id: 5b0c", "id: 6b0c", func(*cluster.Cluster) {}},
		{"a list of words", "[10.99.14.9, 10.99.14.11]", "[10.99.14.9]", func(c *cluster.Cluster) { c.Spec.Discovery[0].Static = c.Spec.Discovery[0].Static[:1] }},
		{"a password", "md5: hunter2", "md5: hunter3", func(c *cluster.Cluster) { c.Spec.Static[0].BGPNeighbors[0].MD5 = "hunter3" }},
		{"a hostname stays", "hostname: w1, addresses", "hostname: w2, addresses", func(*cluster.Cluster) {}},
		{"a server that is described no more stays", "    - {match: {hostname: w1}, id: two, hostname: w1, addresses: [{address: 10.99.14.11/31, gateway: 10.99.14.10}]}\n", "", func(*cluster.Cluster) {}},
		{"an add-on", "  kubernetes:", "  addons: [{name: x, file: /x.yaml}]\n  kubernetes:", func(c *cluster.Cluster) {
			c.Spec.Addons = []cluster.Addon{{Name: "x", File: "/x.yaml"}}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := formed
			if row.old != "" {
				if text = strings.Replace(formed, row.old, row.new, 1); text == formed {
					t.Fatalf("%q is not in the file", row.old)
				}
			}
			want := own
			copied := parse(t, formed) // not the slices of own
			want.Spec.Static, want.Spec.Discovery = copied.Spec.Static, copied.Spec.Discovery
			row.want(&want)
			if diff := cmp.Diff(want, Follow(own, spec(t, text)), compare...); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestFollowIsSettled: a server that follows a spec once has nothing to follow.
func TestFollowIsSettled(t *testing.T) {
	own := parse(t, formed)
	next := spec(t, strings.Replace(formed, "controlPlanes: 1", "controlPlanes: 3", 1))
	once := Follow(own, next)
	for _, c := range Between(once, Follow(once, next)) {
		t.Errorf("%+v", c)
	}
	if changes := Between(once, next); len(changes) != 0 {
		t.Errorf("%+v", changes)
	}
}
