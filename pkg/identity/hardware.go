package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/device"
)

// ReadHardware reads the DMI product UUID and the permanent MAC addresses of the
// Ethernet links from a file system rooted at / (os.Root.FS or os.DirFS). A
// missing UUID is no error: not every machine has one.
func ReadHardware(root fs.FS) (device.Hardware, error) {
	var h device.Hardware
	uuid, err := fs.ReadFile(root, "sys/class/dmi/id/product_uuid")
	switch {
	case err == nil:
		h.UUID = strings.TrimSpace(string(uuid))
	case !errors.Is(err, fs.ErrNotExist):
		return h, fmt.Errorf("reading the DMI product UUID: %w", err)
	}
	links, err := fs.ReadDir(root, "sys/class/net")
	if err != nil {
		return h, fmt.Errorf("listing network links: %w", err)
	}
	var others []string
	for _, link := range links {
		switch mac, port := permanentMAC(root, path.Join("sys/class/net", link.Name())); {
		case mac == "":
		case port:
			h.MACs = append(h.MACs, mac)
		default:
			others = append(others, mac)
		}
	}
	if len(h.MACs) == 0 { // else they are the links of pods, which come and go
		h.MACs = others
	}
	slices.Sort(h.MACs)
	h.MACs = slices.Compact(h.MACs)
	return h, nil
}

// Values of addr_assign_type.
// Source: Linux, Documentation/ABI/testing/sysfs-class-net.
const (
	assignedPermanent = "0"
	assignedSet       = "3" // by whoever made or configured the link
)

// bmcDrivers are those of the USB link by which a server talks to its own BMC. Its
// address is the same on whole series (b0:3a:f2:b6:05:9f on many of Supermicro's)
// or new at each boot, so it tells no server from another.
var bmcDrivers = []string{"cdc_eem", "cdc_ether", "cdc_ncm", "cdc_subset", "rndis_host"}

// calicoMAC is on the host's end of every pod's link under Calico.
const calicoMAC = "ee:ee:ee:ee:ee:ee"

// permanentMAC returns the address that a link keeps over reboots and whether the
// link is a port of this machine, or "".
//
// A bond member shows the bond's address as its own; its permanent one stands in
// bonding_slave. A server that is a container or a network namespace has nothing
// but a veth: that counts when somebody gave it its address on purpose, while the
// random ones of container runtimes, ports of bridges, and tunnels do not.
func permanentMAC(root fs.FS, link string) (mac string, port bool) {
	const ethernet = "1" // ARPHRD_ETHER
	if attribute(root, link, "type") != ethernet {
		return "", false
	}
	// Bridges, bonds, VLANs, tunnels and macvlans say what they are; ports do not.
	if strings.Contains(attribute(root, link, "uevent"), "DEVTYPE=") {
		return "", false
	}
	if mac := attribute(root, link, "bonding_slave/perm_hwaddr"); mac != "" {
		return mac, true
	}
	_, err := fs.Stat(root, path.Join(link, "device"))
	port = err == nil
	if _, err := fs.Stat(root, path.Join(link, "brport")); err == nil && !port {
		return "", false
	}
	for _, field := range strings.Fields(attribute(root, link, "device/uevent")) {
		if driver, ok := strings.CutPrefix(field, "DRIVER="); ok && slices.Contains(bmcDrivers, driver) {
			return "", false
		}
	}
	// A virtual function of a network card is handed to pods and machines.
	if _, err := fs.Stat(root, path.Join(link, "device/physfn")); err == nil {
		return "", false
	}
	mac = attribute(root, link, "address")
	assigned := attribute(root, link, "addr_assign_type")
	if mac == calicoMAC || (assigned != assignedPermanent && assigned != assignedSet) {
		return "", false
	}
	return mac, port
}

// attribute returns a file of a link without the newline, "" where there is none
// or the link is just going away.
func attribute(root fs.FS, link, name string) string {
	b, err := fs.ReadFile(root, path.Join(link, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
