package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/shape"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// The cluster files of the rig are such as check accepts, with no more warnings
// than the relaxations deserve.
func TestClusterFile(t *testing.T) {
	id := strings.Repeat("5b", 16)
	for name, c := range map[string]Cluster{
		"3+2":         {ID: id, Servers: 5, ControlPlanes: 3},
		"1+0":         {ID: id, Servers: 1, ControlPlanes: 1, NoEndpoint: true},
		"dual-stack":  {ID: id, Servers: 2, ControlPlanes: 1, Stack: DualStack},
		"IPv6":        {ID: id, Servers: 3, ControlPlanes: 3, Stack: IPv6},
		"fetch agent": {ID: id, Servers: 2, ControlPlanes: 1, AgentSHA256: strings.Repeat("ab", 32)},
		"platforms":   {ID: id, Servers: 5, ControlPlanes: 3, Platform: "auto", Platforms: []string{"packet", "ec2", "openstack", "nocloud", Static}},
		"static":      {ID: id, Servers: 2, ControlPlanes: 1, Platform: Static},
		"electors":    {ID: id, Servers: 4, ControlPlanes: 3, Electors: 1},
		"nocloud":     {ID: id, Servers: 2, ControlPlanes: 1, Platform: "nocloud"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := ClusterFile(c)
			if err != nil {
				t.Fatal(err)
			}
			parsed, problems := cluster.Parse("cluster.yaml", b)
			for _, p := range problems {
				if p.Severity == cluster.SeverityError {
					t.Errorf("%v", p)
				}
			}
			s := parsed.Spec
			if s.ID != id || s.Servers.Expect != c.Servers || s.Servers.ControlPlanes != c.ControlPlanes || len(s.Discovery[0].Static) != min(3, c.Servers) {
				t.Errorf("%+v became\n%s", c, b)
			}
			if len(s.Servers.Electors) != c.Electors {
				t.Errorf("%d electors became %q", c.Electors, s.Servers.Electors)
			}
			if (s.Kubernetes.Endpoint.Address == "") != c.NoEndpoint || (len(s.Agent.URLs) == 0) != (c.AgentSHA256 == "") {
				t.Errorf("%+v became\n%s", c, b)
			}
		})
	}
}

// The document says of a server what the rig gives it.
func TestDocument(t *testing.T) {
	r := newRig(t.TempDir(), nil)
	r.state.Name = "doc"
	s, err := r.Add(ServerOptions{Name: "cp1", Tags: []string{"muster-role=control-plane"}, Index: 129})
	if err != nil {
		t.Fatal(err)
	}
	b := metadata.Documents(s.told(nil), metadata.Packet)["/metadata"]
	packet, _ := shape.Of("packet")
	d, err := packet.Device(shape.Documents{"metadata": b})
	if err != nil {
		t.Fatal(err)
	}
	private, ok := d.Private(4)
	if !ok || private.Prefix.String() != "10.66.1.3/31" || private.Gateway.String() != "10.66.1.2" || d.Hostname != "cp1" {
		t.Errorf("the device is %+v", d)
	}
	n := d.BGPNeighbors[0]
	if diff := cmp.Diff([]string{Routers[0].String(), Routers[1].String()}, []string{n.PeerIPs[0].String(), n.PeerIPs[1].String()}); diff != "" || n.MD5 != md5 || !n.Multihop {
		t.Errorf("neighbour %+v %s", n, diff)
	}
	if s.MAC != "40:a6:b7:00:00:81" || s.Pods.String() != "10.244.129.0/24" {
		t.Errorf("MAC %s, pods %s", s.MAC, s.Pods)
	}
}

func TestAddRefuses(t *testing.T) {
	r := newRig(t.TempDir(), nil)
	if _, err := r.Add(ServerOptions{Name: "cp1"}); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]ServerOptions{
		"twice": {Name: "cp1"}, "place taken": {Name: "cp2", Index: 1}, "no place": {Name: "cp2", Index: 251},
		"long": {Name: "controlplane1"}, "no name": {}, "not a name": {Name: "CP"},
	} {
		if _, err := r.Add(o); err == nil {
			t.Errorf("%s: %+v was added", name, o)
		}
	}
	if got := len(r.Servers()); got != 1 {
		t.Errorf("%d servers; want 1", got)
	}
}

// BIRD takes the configuration as it is rendered.
func TestBIRDConfiguration(t *testing.T) {
	bird, err := exec.LookPath("bird")
	if err != nil {
		t.Skip("bird is not installed: apt-get install bird2")
	}
	r := newRig(t.TempDir(), nil)
	if err := os.Mkdir(r.torFile(""), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.writeBIRD(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bird, "-p", "-c", filepath.Join(r.dir, "tor", "bird.conf")).CombinedOutput(); err != nil {
		t.Errorf("bird -p: %v: %s", err, out)
	}
}

func TestNextHops(t *testing.T) {
	for out, want := range map[string]string{
		"":   "[]",
		"[]": "[]",
		`[{"dst":"147.75.194.92","gateway":"10.66.0.3","dev":"v-cp1","protocol":"bird","metric":32,"flags":[]}]`:                                              "[10.66.0.3]",
		`[{"dst":"147.75.194.92","protocol":"bird","nexthops":[{"gateway":"10.66.0.5","weight":1},{"gateway":"10.66.0.3","weight":1}],"flags":["linkdown"]}]`: "[10.66.0.3 10.66.0.5]",
	} {
		hops, err := nextHops(out)
		if err != nil {
			t.Errorf("%s: %v", out, err)
		}
		var words []string
		for _, h := range hops {
			words = append(words, h.String())
		}
		if got := "[" + strings.Join(words, " ") + "]"; got != want {
			t.Errorf("%s: %s; want %s", out, got, want)
		}
	}
}
