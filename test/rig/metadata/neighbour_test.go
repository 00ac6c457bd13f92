package metadata

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNeighbour looks into the table of a real kernel, in a network namespace that
// ends with its thread.
func TestNeighbour(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	done := make(chan string, 2)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread has another network
		mac, err := net.ParseMAC("40:a6:b7:00:00:01")
		if err == nil {
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lab0"}, PeerName: "lab1"})
		}
		link, linkErr := netlink.LinkByName("lab0")
		if err != nil || linkErr != nil {
			t.Errorf("making a network: %v, %v", err, linkErr)
			return
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Error(err)
		}
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP("10.99.14.9"), HardwareAddr: mac, State: netlink.NUD_PERMANENT}); err != nil {
			t.Error(err)
		}
		done <- Neighbour(netip.MustParseAddr("10.99.14.9"))
		done <- Neighbour(netip.MustParseAddr("10.99.14.10"))
	}()
	if known, unknown := <-done, <-done; known != "40:a6:b7:00:00:01" || unknown != "" {
		t.Errorf("the one that is there has %q, one that is not %q", known, unknown)
	}
}
