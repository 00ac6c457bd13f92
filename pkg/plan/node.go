package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Node is what this server is to Kubernetes.
type Node struct {
	Name     string
	Private  netip.Addr // advertiseAddress, the first node-ip, and where muster's own ports are
	Second   netip.Addr // the second node-ip, of the other address family; invalid in a cluster of one
	Endpoint string     // host:port that clients use
}

// Join is how this server joins.
type Join struct {
	ControlPlane bool
	Server       string // https URL for the discovery file
	Token        string // bootstrap token, 15 minutes
	CA           []byte // PEM of the cluster CA
	EtcdGone     bool   // etcd's majority knows no member at this server's address
}

// NodeFor names the node and its addresses. leader is the private address of the
// first control plane: without an endpoint in the cluster file (K = 1) clients
// use that.
func NodeFor(c cluster.Cluster, d device.Device, leader netip.Addr) (Node, error) {
	name, err := device.NodeName(d.Hostname)
	if err != nil {
		return Node{}, fmt.Errorf("naming the node: %w", err)
	}
	private, second, err := nodeAddresses(c.Spec.Kubernetes, d)
	if err != nil {
		return Node{}, err
	}
	endpoint := c.Spec.Kubernetes.Endpoint.Address
	if endpoint == "" && leader.IsValid() {
		endpoint = netip.AddrPortFrom(leader, APIServerPort).String()
	}
	return Node{Name: name, Private: private, Second: second, Endpoint: endpoint}, nil
}

// nodeAddresses are a server's addresses in the order of the cluster's families.
// The first is private. The second may be public where the platform gives no private
// one, as Packet's shape does for IPv6: pods need an address of the node in each
// family, and the kubelet and muster listen at the first only.
func nodeAddresses(k cluster.Kubernetes, d device.Device) (first, second netip.Addr, err error) {
	families := k.Families()
	private, ok := d.Private(families[0])
	switch other, has := d.Private(10 - families[0]); {
	case ok:
	case !has:
		return first, second, fmt.Errorf("device %s has no private address: muster listens and joins on the private network only; give the server one at the provider", d.ID)
	default:
		return first, second, fmt.Errorf("device %s has no private IPv%d address, only %s, but spec.kubernetes.serviceSubnets begin with %s: "+
			"give the server one at the provider, or begin podSubnets and serviceSubnets with ranges of the servers' family", d.ID, families[0], other.Prefix, rangesOf(k))
	}
	first = private.Prefix.Addr()
	for _, f := range families[1:] {
		a, ok := d.Any(f)
		if !ok {
			return first, second, fmt.Errorf("device %s has no IPv%d address, but spec.kubernetes.serviceSubnets are %s: "+
				"give the server one at the provider, or leave the ranges of that family out of podSubnets and serviceSubnets", d.ID, f, rangesOf(k))
		}
		second = a.Prefix.Addr()
	}
	if a, isIP := k.Endpoint.Addr(); isIP {
		if _, ok := d.Any(map[bool]int{true: 4, false: 6}[a.Is4()]); !ok {
			return first, second, fmt.Errorf("device %s has no address of the family of the endpoint %s, so it cannot reach it: give the server one at the provider, or choose another endpoint", d.ID, k.Endpoint.Address)
		}
	}
	return first, second, nil
}

// rangesOf are the ranges of Services as a sentence names them.
func rangesOf(k cluster.Kubernetes) string {
	var words []string
	for _, p := range k.ServiceSubnets {
		words = append(words, p.String())
	}
	return cmp.Or(strings.Join(words, " and "), "an IPv4 range")
}

// ServerURL is the API server at an address, for a discovery file.
func ServerURL(at netip.Addr) string {
	return "https://" + netip.AddrPortFrom(at, APIServerPort).String()
}
