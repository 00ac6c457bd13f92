package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetworkdDropIn returns the path and the content of the one file that
// systemd-networkd needs where it is active: without it networkd deletes routes
// and rules that it did not make, whatever their protocol, each time it
// restarts, and distribution upgrades restart it. Versions that do not know a
// key ignore it: ManageForeignRoutes since 246, ManageForeignRoutingPolicyRules
// since 249, ManageForeignNextHops since 256. It counts from networkd's next
// start; restarting networkd for it would do the harm it prevents.
func NetworkdDropIn() (path string, content []byte) {
	return "/etc/systemd/networkd.conf.d/90-muster.conf", []byte(`# Written by muster: its routes to the top-of-rack routers survive a restart of systemd-networkd.
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
ManageForeignNextHops=no
`)
}

// RPFilterWarning returns a sentence for people when strict reverse path
// filtering would drop traffic for an Elastic IP, and "" when not. That is so
// when the interface that holds private, where the routers deliver it, filters
// strictly and the default route, the way back to the clients, leaves by another.
func RPFilterWarning(private netip.Addr) (string, error) {
	index, _, err := kernelTable{}.Egress(private, private)
	if err != nil {
		return "", fmt.Errorf("check reverse path filtering: %w", err)
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", fmt.Errorf("check reverse path filtering: interface %d of %s: %w", index, private, err)
	}
	name := link.Attrs().Name
	all, errAll := rpFilter("all")
	own, errOwn := rpFilter(name)
	if err := errors.Join(errAll, errOwn); err != nil {
		return "", err
	}
	routes, err := dump("routes", func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return "", err
	}
	var defaults []int
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); !ok || p.Bits() == 0 {
			defaults = append(defaults, r.LinkIndex)
			for _, hop := range r.MultiPath {
				defaults = append(defaults, hop.LinkIndex)
			}
		}
	}
	return rpFilterSentence(name, max(all, own), slices.Contains(defaults, index)), nil
}

// rpFilterSentence decides on the effective value (the larger of "all" and the
// interface's own): 1 is strict, 0 and 2 let the packets pass.
func rpFilterSentence(link string, effective int, defaultRoute bool) string {
	if effective != 1 || defaultRoute {
		return ""
	}
	return fmt.Sprintf("rp_filter is 1 (strict) on %s and the default route leaves by another interface: the kernel drops what comes for an Elastic IP there; set net.ipv4.conf.all.rp_filter and net.ipv4.conf.%s.rp_filter to 2 in /etc/sysctl.d", link, link)
}

// rpFilter reads one value from /proc/sys/net/ipv4/conf.
func rpFilter(name string) (int, error) {
	path := filepath.Join("/proc/sys/net/ipv4/conf", name, "rp_filter")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("check reverse path filtering: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("check reverse path filtering: %s holds %q, expected a number: %w", path, b, err)
	}
	return v, nil
}
