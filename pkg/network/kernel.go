package network

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

// dumpAttempts bounds how often a listing is repeated that the kernel says
// changed while it was read.
const dumpAttempts = 5

// dump repeats a listing until it is consistent.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range dumpAttempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return out, nil
}

// kernelLoopback is lo of this network namespace.
type kernelLoopback struct{}

func (kernelLoopback) ListAddresses() ([]address, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	list, err := dump("addresses of lo", func() ([]netlink.Addr, error) { return netlink.AddrList(lo, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []address
	for _, a := range list {
		p, ok := prefixOf(a.IPNet)
		if !ok {
			continue
		}
		out = append(out, address{Prefix: p, Label: a.Label, Host: p.Addr().Is4() && a.Scope == int(netlink.SCOPE_HOST)})
	}
	return out, nil
}

func (kernelLoopback) AddAddress(a address) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	add := &netlink.Addr{IPNet: ipNet(a.Prefix), Label: a.Label}
	if a.Host {
		add.Scope = int(netlink.SCOPE_HOST)
	}
	if a.Prefix.Addr().Is6() {
		// IPv6 has no such scope; an address that is never preferred is not
		// chosen as a source. Nobody on lo could hold a duplicate.
		add.Flags = unix.IFA_F_NODAD
		add.ValidLft, add.PreferedLft = math.MaxUint32, 0
	}
	if err := netlink.AddrAdd(lo, add); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (kernelLoopback) DeleteAddress(p netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.AddrDel(lo, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}

// kernelTable is the main routing table of this network namespace.
type kernelTable struct{}

func (kernelTable) ListRoutes() ([]route, error) {
	var out []route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := dump("routes", func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			dst, ok := prefixOf(r.Dst)
			if !ok || !dst.IsSingleIP() {
				continue
			}
			via, _ := netip.AddrFromSlice(r.Gw)
			src, _ := netip.AddrFromSlice(r.Src)
			out = append(out, route{
				Route:    plan.Route{Dst: dst, Via: via.Unmap(), Src: src.Unmap()},
				Protocol: int(r.Protocol),
				Metric:   r.Priority,
				Link:     r.LinkIndex,
				Onlink:   r.Flags&int(netlink.FLAG_ONLINK) != 0,
				Multi:    len(r.MultiPath) > 0,
			})
		}
	}
	return out, nil
}

func (kernelTable) ReplaceRoute(r route) error { return netlink.RouteReplace(netlinkRoute(r)) }

func (kernelTable) DeleteRoute(r route) error {
	if err := netlink.RouteDel(netlinkRoute(r)); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func (kernelTable) Egress(src, via netip.Addr) (int, bool, error) {
	list, err := dump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, false, err
	}
	link := 0
	for _, a := range list {
		if p, ok := prefixOf(a.IPNet); ok && p.Addr() == src {
			link = a.LinkIndex
			break
		}
	}
	if link == 0 {
		return 0, false, fmt.Errorf("the source %s is on no interface: the network service has not set it yet, or the metadata names another address", src)
	}
	for _, a := range list {
		if a.LinkIndex != link {
			continue
		}
		for _, n := range []*net.IPNet{a.IPNet, a.Peer} {
			if p, ok := prefixOf(n); ok && p.Masked().Contains(via) {
				return link, false, nil
			}
		}
	}
	return link, !via.IsLinkLocalUnicast(), nil
}

func netlinkRoute(r route) *netlink.Route {
	out := &netlink.Route{
		Dst: ipNet(r.Dst), Gw: r.Via.AsSlice(), Src: r.Src.AsSlice(),
		LinkIndex: r.Link, Protocol: netlink.RouteProtocol(r.Protocol), Priority: r.Metric,
		Table: unix.RT_TABLE_MAIN,
	}
	if r.Onlink {
		out.Flags = int(netlink.FLAG_ONLINK)
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf turns an *net.IPNet into a prefix that keeps the host bits; false
// for nil, which netlink uses for the default route.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	bits, _ := n.Mask.Size()
	if len(n.Mask) == net.IPv4len {
		a = a.Unmap()
	}
	p := netip.PrefixFrom(a, bits)
	return p, p.IsValid()
}
