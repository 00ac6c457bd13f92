package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/discovery"
)

// newSearch looks in the ways of spec.discovery.
func newSearch(c cluster.Cluster, self bootstrap.Self, seen *roll, settled func() bool, log *slog.Logger) *discovery.Search {
	return discovery.New(self.Inst, self.Node.Private, waysOf(c, self, seen, settled), seen, settled, log)
}

// waysOf opens each element of spec.discovery. All lists of addresses are one way.
func waysOf(c cluster.Cluster, self bootstrap.Self, seen discovery.Gossip, settled func() bool) []discovery.Way {
	at := self.Node.Private
	spec := c.Spec
	internal := slices.Concat(spec.Kubernetes.ServiceSubnets, spec.Kubernetes.PodSubnets)
	var listed discovery.Static
	var ways []discovery.Way
	for _, d := range spec.Discovery {
		switch {
		case len(d.Static) > 0:
			listed = append(listed, d.Static...)
		case d.Subnet != "":
			ways = append(ways, discovery.Subnet{Range: d.Subnet, Self: at, Device: self.Device, OnLink: linkPrefixes, Gossip: seen, Settled: settled})
		case d.DNS != "":
			ways = append(ways, discovery.DNS{Host: d.DNS, Self: at, Resolver: net.DefaultResolver})
		case d.Multicast:
			ways = append(ways, discovery.Multicast{Self: at, Label: spec.ID[:16], Inst: self.Inst, Port: spec.Ports.Gossip})
		case d.PacketAPI != (cluster.PacketAPI{}):
			ways = append(ways, discovery.PacketAPI{API: d.PacketAPI, Token: c.APIToken, Self: at, Client: &http.Client{Timeout: apiPatience}})
		case d.EIP:
			ways = append(ways, discovery.Endpoint{Address: spec.Kubernetes.Endpoint.Address, Self: at, Internal: internal})
		}
	}
	if len(listed) > 0 {
		ways = slices.Insert(ways, 0, discovery.Way(listed))
	}
	return ways
}

// apiPatience bounds one page of the list of devices.
const apiPatience = 10 * time.Second

// linkPrefixes are the addresses of this server's links with their lengths.
func linkPrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading the addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}
