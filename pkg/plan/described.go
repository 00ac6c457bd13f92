package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Described are the devices that the cluster file alone describes; what is laid over
// a platform's answer and is not whole without it is none.
func Described(servers []cluster.StaticServer) []device.Device {
	var out []device.Device
	for _, own := range servers {
		if own.Match.All {
			continue
		}
		d := Laid(device.Device{}, own)
		for _, s := range servers { // what is for all comes first, and needs the addresses
			if s.Match.All {
				d = Laid(d, s)
			}
		}
		if d = Laid(d, own); len(d.Missing()) == 0 {
			out = append(out, d)
		}
	}
	return out
}

// Laid is a device with what an entry of spec.static says in place of what it had.
func Laid(d device.Device, s cluster.StaticServer) device.Device {
	d.Hostname = cmp.Or(s.Hostname, d.Hostname)
	d.ID = cmp.Or(s.ID, d.ID, s.Hostname)
	if len(s.Tags) > 0 {
		d.Tags = slices.Clone(s.Tags)
	}
	if len(s.Addresses) > 0 {
		d.Addresses = nil
	}
	for _, a := range s.Addresses {
		d.Addresses = append(d.Addresses, device.Address{Prefix: a.Address, Gateway: a.Gateway, Public: a.Public})
	}
	if len(s.BGPNeighbors) > 0 {
		d.BGPNeighbors = nil
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
	d.Settle()
	return d
}
