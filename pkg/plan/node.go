package plan

import (
	"fmt"
	"net/netip"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Node is what this server is to Kubernetes.
type Node struct {
	Name     string
	Private  netip.Addr // node-ip and advertiseAddress
	Endpoint string     // host:port that clients use
}

// Join is how this server joins.
type Join struct {
	ControlPlane bool
	Server       string // https URL for the discovery file
	Token        string // bootstrap token, 15 minutes
	CA           []byte // PEM of the cluster CA
}

// NodeFor names the node and its addresses. leader is the private address of the
// first control plane: without an endpoint in the cluster file (K = 1) clients
// use that.
func NodeFor(c cluster.Cluster, d device.Device, leader netip.Addr) (Node, error) {
	name, err := device.NodeName(d.Hostname)
	if err != nil {
		return Node{}, fmt.Errorf("naming the node: %w", err)
	}
	private, ok := d.Private(4)
	if !ok {
		private, ok = d.Private(6)
	}
	if !ok {
		return Node{}, fmt.Errorf("device %s has no private address: muster listens and joins on the private network only; give the server one at the provider", d.ID)
	}
	endpoint := c.Spec.Kubernetes.Endpoint.Address
	if endpoint == "" && leader.IsValid() {
		endpoint = netip.AddrPortFrom(leader, APIServerPort).String()
	}
	return Node{Name: name, Private: private.Prefix.Addr(), Endpoint: endpoint}, nil
}

// ServerURL is the API server at an address, for a discovery file.
func ServerURL(at netip.Addr) string {
	return "https://" + netip.AddrPortFrom(at, APIServerPort).String()
}
