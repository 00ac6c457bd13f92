package metadata

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Neighbour is the MAC address of an address on one of this machine's networks, as
// the kernel knows it; "" when it knows none.
func Neighbour(from netip.Addr) string {
	list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return ""
	}
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == from && len(n.HardwareAddr) > 0 {
			return n.HardwareAddr.String()
		}
	}
	return ""
}
