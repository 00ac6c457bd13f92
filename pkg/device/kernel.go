package device

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Link is a network interface as the kernel has it.
type Link struct {
	Name string `json:"name"`
	// Own says that it is a port of this machine, or stands on one: a bond, a VLAN, a
	// bridge. Links of pods and tunnels do not.
	Own bool `json:"own"`
	// Bond is the bond that the link is a member of.
	Bond string `json:"bond,omitempty"`
	// MAC is the permanent address of a port, whatever the bond shows as its own.
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Defaults are the next hops of default routes by this link, Hops those of other
	// routes.
	Defaults []netip.Addr `json:"defaults,omitempty"`
	Hops     []netip.Addr `json:"hops,omitempty"`
}

// Complete fills in what the documents do not tell with what the kernel has, and
// compares the rest. It returns a sentence for each thing that it took from the
// kernel or left out. Addresses in elastic are never a server's own. A
// contradiction is an error that names both sides; network services may be late,
// so asking again makes sense.
func (d Device) Complete(links []Link, elastic []netip.Prefix) (Device, []string, error) {
	c := completion{links: links, elastic: slices.Concat(elastic, d.ElasticIPs)}
	told := d.Addresses
	d.Addresses = nil
	var absent []Address
	for _, a := range told {
		i := slices.IndexFunc(links, func(l Link) bool { return l.has(a.Prefix.Addr()) })
		switch {
		case i >= 0:
			checked, err := c.check(a, links[i])
			if err != nil {
				return d, nil, err
			}
			d.Addresses = append(d.Addresses, checked)
		case a.Public: // one-to-one NAT is a platform's business
			c.note("%s is on no interface here", a.Prefix.Addr())
			d.Addresses = append(d.Addresses, a)
		default:
			absent = append(absent, a)
		}
	}
	if len(absent) > 0 && !slices.ContainsFunc(d.Addresses, func(a Address) bool { return !a.Public }) {
		return d, nil, fmt.Errorf("the metadata names the private address %s, but %s: the network service has not set it yet, or one of them is wrong",
			joined(absent), c.holds())
	}
	for _, a := range absent {
		c.note("%s is on no interface here, left out", a.Prefix.Addr())
	}
	d.Addresses = append(d.Addresses, c.untold(d)...)
	return d, c.notes, c.checkBonds(d.Bonds)
}

// checkBonds compares who is bonded with whom. A port that is in no bond is noted
// only: providers take ports out of bonds for networks of their own.
func (c *completion) checkBonds(bonds [][]string) error {
	for _, macs := range bonds {
		var first *Link
		for i := range c.links {
			l := &c.links[i]
			switch {
			case !slices.Contains(macs, l.MAC) || !l.Own || l.isMaster(c.links):
			case l.Bond == "":
				c.note("%s (%s) is in no bond here, the metadata has it in one", l.Name, l.MAC)
			case first == nil:
				first = l
			case first.Bond != l.Bond:
				return fmt.Errorf("the metadata has %s and %s in one bond, but %s is in %s and %s in %s: one of them is wrong", first.MAC, l.MAC, first.Name, first.Bond, l.Name, l.Bond)
			}
		}
	}
	return nil
}

// isMaster says that the link is a bond, which shows the address of a member, or
// stands on one: it has no port of its own.
func (l Link) isMaster(links []Link) bool {
	return slices.ContainsFunc(links, func(o Link) bool { return o.Bond == l.Name || o.Name != l.Name && o.MAC == l.MAC && o.Bond != "" })
}

// completion is the work of Complete.
type completion struct {
	links   []Link
	elastic []netip.Prefix
	notes   []string
}

func (c *completion) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// check compares an address of the documents with the link that has it.
func (c *completion) check(a Address, l Link) (Address, error) {
	addr := a.Prefix.Addr()
	there := l.Addresses[slices.IndexFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })]
	switch {
	case there == a.Prefix || there.IsSingleIP(): // a /32 is how DHCP of some clouds sets what is in a network
	case a.Prefix.IsSingleIP():
		c.note("length of %s: /%d from %s", addr, there.Bits(), l.Name)
		a.Prefix = there
	default:
		return a, fmt.Errorf("the metadata gives %s the length /%d, but %s has it with /%d: one of them is wrong", addr, a.Prefix.Bits(), l.Name, there.Bits())
	}
	hop := l.hop(a.Prefix)
	switch {
	case !a.Gateway.IsValid() && hop.IsValid():
		c.note("gateway of %s: %s from the routes of %s", addr, hop, l.Name)
		a.Gateway = hop
	case a.Gateway.IsValid() && !l.leadsBy(a.Gateway):
		if other := l.defaultIn(a.Prefix); other.IsValid() {
			return a, fmt.Errorf("the metadata gives %s the gateway %s, but the default route of %s leads by %s: one of them is wrong", a.Prefix, a.Gateway, l.Name, other)
		}
	}
	return a, nil
}

// untold are addresses of own links of which the documents say nothing: private ones
// of a family that the device has none of, and public ones likewise. Links with a
// default route come first, since the private address of a family is its first.
func (c *completion) untold(d Device) []Address {
	links := slices.Clone(c.links)
	slices.SortStableFunc(links, func(a, b Link) int { return min(len(b.Defaults), 1) - min(len(a.Defaults), 1) })
	var out []Address
	for _, l := range links {
		for _, p := range l.Addresses {
			addr := p.Addr()
			public := !IsPrivate(addr)
			told := slices.ContainsFunc(d.Addresses, func(a Address) bool { return a.Public == public && a.Prefix.Addr().Is4() == addr.Is4() })
			if told || !l.Own || !addr.IsGlobalUnicast() || slices.ContainsFunc(c.elastic, func(e netip.Prefix) bool { return e.Contains(addr) }) {
				continue
			}
			c.note("address %s from %s", p, l.Name)
			out = append(out, Address{Prefix: p, Gateway: l.hop(p), Public: public})
		}
	}
	return out
}

// holds says which private addresses this machine has.
func (c *completion) holds() string {
	var have []string
	for _, l := range c.links {
		for _, p := range l.Addresses {
			if l.Own && IsPrivate(p.Addr()) {
				have = append(have, p.String()+" on "+l.Name)
			}
		}
	}
	if len(have) == 0 {
		return "this machine has none"
	}
	return "this machine has " + strings.Join(have, ", ")
}

func (l Link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

func (l Link) leadsBy(gateway netip.Addr) bool {
	return slices.Contains(l.Defaults, gateway) || slices.Contains(l.Hops, gateway)
}

// defaultIn is the next hop of a default route in the subnet of an address.
func (l Link) defaultIn(p netip.Prefix) netip.Addr {
	return firstOf(l.Defaults, func(a netip.Addr) bool { return !p.IsSingleIP() && p.Masked().Contains(a) })
}

// hop is the next hop that serves an address: in its subnet, by a default route if
// there is one, else the default route's where that may lie outside of it: on-link
// gateways of a /32, and link-local ones.
func (l Link) hop(p netip.Prefix) netip.Addr {
	if a := l.defaultIn(p); a.IsValid() {
		return a
	}
	if a := firstOf(l.Hops, func(a netip.Addr) bool { return p.Masked().Contains(a) && a != p.Addr() }); a.IsValid() {
		return a
	}
	return firstOf(l.Defaults, func(a netip.Addr) bool {
		return a.Is4() == p.Addr().Is4() && (p.IsSingleIP() || a.IsLinkLocalUnicast())
	})
}

func firstOf(addrs []netip.Addr, want func(netip.Addr) bool) netip.Addr {
	if i := slices.IndexFunc(addrs, want); i >= 0 {
		return addrs[i]
	}
	return netip.Addr{}
}

func joined(addresses []Address) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.Prefix.String()
	}
	return strings.Join(texts, ", ")
}
