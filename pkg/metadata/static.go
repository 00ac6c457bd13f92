package metadata

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Static takes the description of this server from the cluster file.
type Static struct {
	Servers []cluster.StaticServer
	Facts   func() (Facts, error)
}

// Device returns the one description that matches this server.
func (s Static) Device(context.Context) (device.Device, error) {
	facts, err := s.Facts()
	if err != nil {
		return device.Device{}, fmt.Errorf("metadata: %w", err)
	}
	var found []int
	for i, server := range s.Servers {
		if matches(server.Match, facts) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 1:
		return Describe(s.Servers[found[0]]), nil
	case 0:
		return device.Device{}, fmt.Errorf("metadata: none of the %d servers in spec.static matches this one: hostname %q, MACs %s, addresses %s",
			len(s.Servers), facts.Hostname, listed(facts.MACs), listed(facts.Addresses))
	}
	return device.Device{}, fmt.Errorf("metadata: spec.static%v all match this server (hostname %q, MACs %s, addresses %s); exactly one may",
		found, facts.Hostname, listed(facts.MACs), listed(facts.Addresses))
}

func matches(m cluster.StaticMatch, facts Facts) bool {
	switch {
	case m.Hostname != "":
		return strings.EqualFold(m.Hostname, facts.Hostname)
	case m.MAC != "":
		want, err := net.ParseMAC(m.MAC)
		return err == nil && slices.ContainsFunc(facts.MACs, func(mac string) bool {
			have, err := net.ParseMAC(mac)
			return err == nil && slices.Equal(have, want)
		})
	case m.Address != "":
		want, err := netip.ParseAddr(m.Address)
		return err == nil && slices.Contains(facts.Addresses, want)
	}
	return false
}

// Describe makes a device of what the cluster file says of a server.
func Describe(s cluster.StaticServer) device.Device {
	d := device.Device{ID: cmp.Or(s.ID, s.Hostname), Hostname: s.Hostname, Tags: slices.Clone(s.Tags)}
	for _, a := range s.Addresses {
		d.Addresses = append(d.Addresses, device.Address{Prefix: a.Address, Gateway: a.Gateway, Public: a.Public})
	}
	for _, n := range s.BGPNeighbors {
		if len(n.PeerIPs) == 0 {
			continue
		}
		neighbor := device.Neighbor{
			Family: 6, CustomerAS: n.CustomerAS, CustomerIP: n.CustomerIP, PeerAS: n.PeerAS,
			PeerIPs: slices.Clone(n.PeerIPs), Multihop: n.Multihop, MD5: n.MD5.Reveal(),
		}
		if n.PeerIPs[0].Is4() {
			neighbor.Family = 4
		}
		slices.SortFunc(neighbor.PeerIPs, netip.Addr.Compare)
		if private, ok := d.Private(neighbor.Family); ok && !neighbor.CustomerIP.IsValid() {
			neighbor.CustomerIP = private.Prefix.Addr()
		}
		d.BGPNeighbors = append(d.BGPNeighbors, neighbor)
	}
	slices.SortStableFunc(d.BGPNeighbors, func(a, b device.Neighbor) int { return cmp.Compare(a.Family, b.Family) })
	return d
}

// listed prints values for a sentence, "none" where there are none.
func listed[T any](values []T) string {
	if len(values) == 0 {
		return "none"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ", ")
}
