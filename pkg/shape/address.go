package shape

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mustermetal/muster/pkg/device"
)

// prefix joins an address with its length, which is that of bits, else of the
// netmask, else after a slash. With none of them it is the address alone (/32,
// /128): the kernel knows the length of addresses that it has. Nothing there is
// an invalid prefix and no problem.
func prefix(address, bits, netmask node) netip.Prefix {
	text, after, slashed := strings.Cut(address.text(), "/")
	if text == "" {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		address.refuse("%.60q is not an IP address", text)
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	length, from := addr.BitLen(), address
	switch mask := netmask.text(); {
	case bits.text() != "":
		n, ok := bits.number(128)
		if !ok {
			return netip.Prefix{}
		}
		length, from = int(n), bits
	case mask != "":
		if length = maskBits(netmask, mask); length < 0 {
			return netip.Prefix{}
		}
		from = netmask
	case slashed:
		if length, err = strconv.Atoi(after); err != nil {
			address.refuse("%.60q has a length that is no number", text+"/"+after)
			return netip.Prefix{}
		}
	}
	if length < 1 || length > addr.BitLen() {
		from.refuse("%s has length /%d; expected 1 to %d", addr, length, addr.BitLen())
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, length)
}

// maskBits returns the length of a netmask in address form, or written as a
// number; -1 when it is neither.
func maskBits(n node, text string) int {
	if bits, err := strconv.Atoi(text); err == nil {
		return bits
	}
	mask, err := netip.ParseAddr(text)
	if err != nil {
		n.refuse("%.60q is not a netmask", text)
		return -1
	}
	bits, ended := 0, false
	for _, b := range mask.AsSlice() {
		for i := 7; i >= 0; i-- {
			set := b>>i&1 == 1
			if set && ended {
				n.refuse("netmask %s has a hole", text)
				return -1
			}
			if set {
				bits++
			}
			ended = !set
		}
	}
	return bits
}

// add gives a device an address that its documents tell, once.
func add(d *device.Device, a device.Address) {
	if a.Prefix.IsValid() && !slices.ContainsFunc(d.Addresses, func(b device.Address) bool { return b.Prefix.Addr() == a.Prefix.Addr() }) {
		d.Addresses = append(d.Addresses, a)
	}
}

// addBare gives a device an address of which nothing else is told.
func addBare(d *device.Device, n node, public bool) {
	if a := n.addr(); a.IsValid() {
		add(d, device.Address{Prefix: netip.PrefixFrom(a, a.BitLen()), Public: public})
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

func addMAC(d *device.Device, n node) {
	if mac := n.text(); mac != "" {
		d.MACs = append(d.MACs, mac)
	}
}

// bondGroups collect the MAC addresses of ports by the bond that they are in.
type bondGroups struct {
	names []string
	macs  [][]string
}

func (g *bondGroups) add(bond, mac string) {
	if bond == "" || mac == "" {
		return
	}
	i := slices.Index(g.names, bond)
	if i < 0 {
		i = len(g.names)
		g.names, g.macs = append(g.names, bond), append(g.macs, nil)
	}
	g.macs[i] = append(g.macs[i], mac)
}
