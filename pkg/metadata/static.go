package metadata

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// overlay lays what the cluster file says of this server over what its platform
// told: first what is for all, then the one entry that is for it. It returns the
// places of the entries. With alone there is no platform, and one must be for it.
func overlay(d device.Device, servers []cluster.StaticServer, facts Facts, alone bool) (device.Device, []int, error) {
	var common, own []int
	for i, s := range servers {
		switch {
		case s.Match.All:
			common = append(common, i)
		case matches(s.Match, facts, d.Hostname):
			own = append(own, i)
		}
	}
	switch {
	case len(own) > 1:
		return d, nil, fmt.Errorf("metadata: spec.static%v all match this server (%s); exactly one may", own, facts)
	case len(own) == 0 && alone:
		return d, nil, fmt.Errorf("metadata: none of the %d servers in spec.static matches this one: %s", len(servers), facts)
	}
	used := slices.Concat(common, own)
	for _, i := range used {
		d = lay(d, servers[i])
	}
	return d, used, nil
}

// described says whether the cluster file tells all of this server, so that no
// platform needs to be asked.
func (r *Reader) described() (bool, error) {
	if len(r.spec.Static) == 0 {
		return false, nil
	}
	facts, err := r.machine.Facts()
	if err != nil {
		return false, fmt.Errorf("metadata: %w", err)
	}
	d, _, err := overlay(device.Device{}, r.spec.Static, facts, false)
	return err == nil && len(d.Missing()) == 0, err
}

// String is for a sentence that says who this server is.
func (f Facts) String() string {
	return fmt.Sprintf("hostname %q, MACs %s, addresses %s", f.Hostname, listed(f.Hardware.MACs), listed(f.addresses()))
}

func (f Facts) addresses() []netip.Addr {
	var out []netip.Addr
	for _, l := range f.Links {
		for _, p := range l.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}

// matches compares an entry with the server; told is its hostname by the platform.
func matches(m cluster.StaticMatch, facts Facts, told string) bool {
	switch {
	case m.Hostname != "":
		return strings.EqualFold(m.Hostname, facts.Hostname) || strings.EqualFold(m.Hostname, told)
	case m.MAC != "":
		want, err := net.ParseMAC(m.MAC)
		return err == nil && slices.ContainsFunc(facts.Hardware.MACs, func(mac string) bool {
			have, err := net.ParseMAC(mac)
			return err == nil && slices.Equal(have, want)
		})
	case m.Address != "":
		want, err := netip.ParseAddr(m.Address)
		return err == nil && slices.Contains(facts.addresses(), want)
	}
	return false
}

// Described are the devices that the cluster file alone describes.
func Described(servers []cluster.StaticServer) []device.Device {
	var out []device.Device
	for _, own := range servers {
		if own.Match.All {
			continue
		}
		d := lay(device.Device{}, own)
		for _, s := range servers { // what is for all comes first, and needs the addresses
			if s.Match.All {
				d = lay(d, s)
			}
		}
		out = append(out, lay(d, own))
	}
	return out
}

// lay replaces what an entry says.
func lay(d device.Device, s cluster.StaticServer) device.Device {
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
