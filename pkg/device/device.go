// Package device says what a server is: its names, addresses, gateways, BGP
// neighbours and hardware identity, as plain values.
//
// Floor 0.
package device

import (
	"cmp"
	"net/netip"
	"slices"
)

// Device is one server as its platform describes it.
type Device struct {
	ID           string         `json:"id"`       // the platform's id; unique, unlike the hostname
	Hostname     string         `json:"hostname"` // as given; NodeName makes a node name of it
	Tags         []string       `json:"tags,omitempty"`
	Addresses    []Address      `json:"addresses"`
	ElasticIPs   []netip.Prefix `json:"elasticIPs,omitempty"` // what the platform routes to this server: /32, /128 or a block
	BGPNeighbors []Neighbor     `json:"bgpNeighbors,omitempty"`
	// MACs are those that the platform knows of this server, lower case, sorted;
	// empty where it names none. Describes compares them with the real ones.
	MACs []string `json:"macs,omitempty"`
	// Bonds are groups of two or more MACs whose ports the platform has in one bond.
	Bonds [][]string `json:"bonds,omitempty"`
	// Switch names the top-of-rack switch, the same for all servers on it; empty
	// where the platform does not tell.
	Switch string `json:"switch,omitempty"`
	// Platform is the form in which it was described.
	Platform string `json:"platform,omitempty"`
	// EventsURL takes POSTs of this server's progress; empty where there is none.
	EventsURL string `json:"eventsURL,omitempty"`
}

// Address is one address of a server with its gateway.
type Address struct {
	Prefix  netip.Prefix `json:"prefix"` // address and length, such as 10.99.14.9/31
	Gateway netip.Addr   `json:"gateway"`
	Public  bool         `json:"public"`
	// Block is what the platform cuts the prefixes of this network from, where it
	// tells: the other servers of the network have theirs there too.
	Block netip.Prefix `json:"block,omitzero"`
}

// IsPrivate says whether an address is one of those that the Internet does not
// reach: RFC 1918, RFC 6598 (which clouds give out inside) and RFC 4193.
func IsPrivate(a netip.Addr) bool {
	return a.IsPrivate() || sharedRange.Contains(a)
}

var sharedRange = netip.MustParsePrefix("100.64.0.0/10")

// Neighbor is one entry of bgp_neighbors: the same session data for every peer
// IP of one address family.
type Neighbor struct {
	Family     int          `json:"family"` // 4 or 6
	CustomerAS uint32       `json:"customerAS"`
	CustomerIP netip.Addr   `json:"customerIP"`
	PeerAS     uint32       `json:"peerAS"`
	PeerIPs    []netip.Addr `json:"peerIPs"`
	Multihop   bool         `json:"multihop"`
	// MD5 is the TCP MD5 password, empty where none is set. It is a secret: the
	// cached copy of a device is 0600 and status never shows it.
	MD5 string `json:"md5,omitempty"`
}

// Private returns the first private address of a family (4 or 6) and whether
// there is one.
func (d Device) Private(family int) (Address, bool) {
	for _, a := range d.Addresses {
		if !a.Public && a.Prefix.Addr().Is4() == (family == 4) {
			return a, true
		}
	}
	return Address{}, false
}

// Any returns the private address of a family, else the public one.
func (d Device) Any(family int) (Address, bool) {
	if a, ok := d.Private(family); ok {
		return a, true
	}
	for _, a := range d.Addresses {
		if a.Prefix.Addr().Is4() == (family == 4) {
			return a, true
		}
	}
	return Address{}, false
}

// SessionAddress returns the address that the sessions of a neighbour come from:
// the one that the platform names (customer_ip) where this server has it, else
// the private address of that family, or the public one where there is no private
// one, as on Packet's shape, where IPv6 is public.
func (d Device) SessionAddress(n Neighbor) (Address, bool) {
	for _, a := range d.Addresses {
		if n.CustomerIP.IsValid() && a.Prefix.Addr() == n.CustomerIP.Unmap() {
			return a, true
		}
	}
	family := n.Family
	if family == 0 && len(n.PeerIPs) > 0 {
		family = 6
		if n.PeerIPs[0].Unmap().Is4() {
			family = 4
		}
	}
	return d.Any(family)
}

// Settle brings a device into the one order that equal servers share: neighbours by
// family, MAC addresses cleaned and sorted.
func (d *Device) Settle() {
	slices.SortStableFunc(d.BGPNeighbors, func(a, b Neighbor) int { return cmp.Compare(a.Family, b.Family) })
	d.MACs = cleanMACs(d.MACs)
	for i, macs := range d.Bonds {
		d.Bonds[i] = cleanMACs(macs)
	}
	d.Bonds = slices.DeleteFunc(d.Bonds, func(macs []string) bool { return len(macs) < 2 })
}

// Missing names what a server cannot do without and this device does not have.
func (d Device) Missing() []string {
	var missing []string
	if d.ID == "" {
		missing = append(missing, "id")
	}
	if d.Hostname == "" {
		missing = append(missing, "hostname")
	}
	if !slices.ContainsFunc(d.Addresses, func(a Address) bool { return !a.Public }) {
		missing = append(missing, "private address")
	}
	return missing
}
