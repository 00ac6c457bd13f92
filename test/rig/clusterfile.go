package rig

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	_ "embed"

	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/test/rig/machine"
)

// Cluster is what differs between the clusters that are formed on a rig.
type Cluster struct {
	Name          string // default: rig
	ID            string // 32 hex digits; default: random
	Servers       int    // N
	ControlPlanes int    // K
	// Electors has the first so many servers vote alone, who can form the cluster
	// before the others are on; 0: all vote.
	Electors int
	// Eligible is as in the cluster file; default {tag: muster-role}.
	Eligible string
	// Discovery are the servers to find the others by; default: the first three
	// places of the fabric, as many as there are.
	Discovery []netip.Addr
	// Ways are elements of spec.discovery in place of that list, in YAML.
	Ways string
	// AgentSHA256 has the servers fetch /files/bootstrap from the metadata service
	// and pins it; empty: the agent is baked into the image.
	AgentSHA256 string
	// Artifacts is spec.artifacts, written as a mapping in one line; what it asks for
	// is in the lock file LockFile of the rig.
	Artifacts string
	// NoEndpoint leaves out endpoint and Elastic IP, which is allowed with one
	// control plane.
	NoEndpoint bool
	// Public gives every server a public address beside the private one.
	Public bool
	// Stack are the address families; without one it is IPv4 alone.
	Stack Stack
	// Platform is as in the cluster file; default packet, from the metadata service.
	Platform string
	// Platforms are those of the servers, in turn, where they differ: Server.Platform,
	// or static for one that only the cluster file describes. Default: Platform.
	Platforms []string

	// ReplaceAfter is spec.servers.replace.after; empty: the default.
	ReplaceAfter string
	// Addons is spec.addons, a list in YAML's flow style; empty: none.
	Addons string

	rig string // its name, which ids of servers are made of
}

// platformOf is the platform of server i, 0 being the first.
func (c Cluster) platformOf(i int) string {
	switch {
	case len(c.Platforms) > 0:
		return c.Platforms[i%len(c.Platforms)]
	case c.Platform == "packet":
		return "" // told by the service, and by a seed of cloud-init
	}
	return c.Platform
}

// described are the servers that only the cluster file describes.
func (c Cluster) described() []*Server {
	var out []*Server
	for i := range c.Servers {
		if c.platformOf(i) == Static {
			name, tags := c.member(i)
			out = append(out, new(Rig).server(serverState{Name: name, Index: i + 1, ID: serverID(c.rig, name), Tags: tags}))
		}
	}
	return out
}

// member is the name and the tags of server i.
func (c Cluster) member(i int) (name string, tags []string) {
	if i < c.ControlPlanes {
		return fmt.Sprintf("cp%d", i+1), []string{"muster-role=control-plane"}
	}
	return fmt.Sprintf("w%d", i-c.ControlPlanes+1), []string{"muster-role=worker"}
}

// Platforms of servers that no metadata service knows: described by the cluster file,
// or by whatever cloud-init found, here a seed.
const (
	Static    = "static"
	CloudInit = "cloudinit"
)

//go:embed cluster.yaml
var clusterTemplate string

var clusterFile = template.Must(template.New("cluster.yaml").Parse(clusterTemplate))

// ClusterFile writes the cluster file as an operator of this fabric would, with
// the relaxations that containers on a shared kernel need. Each is a documented
// field; the agent knows nothing of test servers.
func ClusterFile(c Cluster) ([]byte, error) {
	if c.Name == "" {
		c.Name = "rig"
	}
	if c.Eligible == "" {
		c.Eligible = "{tag: muster-role}"
	}
	if c.Platform == "" {
		c.Platform = "packet"
	}
	if c.ID == "" {
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails, crypto/rand
		c.ID = hex.EncodeToString(id)
	}
	for i := 1; len(c.Discovery) < min(3, c.Servers); i++ {
		c.Discovery = append(c.Discovery, c.Stack.lines(i)[0].Addr)
	}
	var electors []string
	for i := range c.Electors {
		hw, err := device.HW(device.SourceMAC, device.Hardware{MACs: []string{mac(i + 1)}}, "")
		if err != nil {
			return nil, fmt.Errorf("naming the electors: %w", err)
		}
		electors = append(electors, hw)
	}
	var b strings.Builder
	pods, services, elastic := c.Stack.ranges()
	err := clusterFile.Execute(&b, map[string]any{
		"C": c, "Electors": electors, "Described": c.described(), "ServerAS": ServerAS, "RouterAS": RouterAS, "Routers": Routers, "MD5": md5, "MetadataURL": c.Stack.metadataURL(),
		"Endpoint": netip.AddrPortFrom(elastic[0].Addr(), 6443), "ElasticIPs": elastic, "Pods": pods, "Services": services, "Discovery": c.Discovery,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the cluster file: %w", err)
	}
	return []byte(b.String()), nil
}

// LockFile is where the lock file of the rig's cluster must lie.
func (r *Rig) LockFile() string { return filepath.Join(r.dir, "cluster.lock.yaml") }

// Render makes user-data of a cluster file with the real generator, the program
// userdata; flags are more of its own. File and secret stay in the rig's
// directory; the secret is made at the first call.
func (r *Rig) Render(ctx context.Context, userdata string, file []byte, flags ...string) ([]byte, error) {
	path, secret := filepath.Join(r.dir, "cluster.yaml"), filepath.Join(r.dir, "cluster.secret")
	if err := machine.ReplaceFile(path, file, 0o644); err != nil {
		return nil, err
	}
	if _, err := os.Stat(secret); err != nil {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, crypto/rand
		if err := machine.ReplaceFile(secret, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	out, err := machine.Output(ctx, append([]string{userdata, "render", "-f", path, "--secret", secret}, flags...)...)
	if err != nil {
		return nil, err
	}
	return []byte(out), nil
}

// AddCluster adds the servers of a cluster, cp1… and w1…, all with the same
// user-data, and leaves them off. Control planes carry the tag that Eligible asks
// for.
func (r *Rig) AddCluster(ctx context.Context, userdata string, c Cluster) ([]*Server, error) {
	c.rig = r.state.Name
	file, err := ClusterFile(c)
	if err != nil {
		return nil, err
	}
	data, err := r.Render(ctx, userdata, file)
	if err != nil {
		return nil, err
	}
	var servers []*Server
	for i := range c.Servers {
		o := ServerOptions{UserData: data, Public: c.Public, Stack: c.Stack, Platform: c.platformOf(i)}
		o.Name, o.Tags = c.member(i)
		s, err := r.Add(o)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}
