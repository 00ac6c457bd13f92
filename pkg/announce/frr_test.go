package announce

import (
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// FRR needs to be told that it may take routes of another AS without a policy.
const frrConfig = `
router bgp 65530
 bgp router-id 169.254.255.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 3 9
 neighbor servers peer-group
 neighbor servers remote-as 65000
 neighbor servers password s3cret
 neighbor servers ebgp-multihop 5
 neighbor servers6 peer-group
 neighbor servers6 remote-as 65000
 neighbor servers6 password s3cret
 neighbor servers6 ebgp-multihop 5
 bgp listen range 10.70.0.0/16 peer-group servers
 bgp listen range fd70::/16 peer-group servers6
 address-family ipv4 unicast
  neighbor servers activate
  maximum-paths 8
 exit-address-family
 address-family ipv6 unicast
  neighbor servers6 activate
  maximum-paths 8
 exit-address-family
`

func startFRR(t *testing.T) *rack {
	t.Helper()
	const daemons = "/usr/lib/frr/"
	r := newRack(t, daemons+"bgpd", "frr")
	// A short path: names of unix sockets have 108 bytes.
	dir, err := os.MkdirTemp("", "frr")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(in("zebra.conf"), nil, 0o600))
	must(t, os.WriteFile(in("bgpd.conf"), []byte(frrConfig), 0o600))
	// Both drop their privileges to the user of the package.
	owner, err := user.Lookup("frr")
	must(t, err)
	uid, err := strconv.Atoi(owner.Uid)
	must(t, err)
	for _, path := range []string{dir, in("zebra.conf"), in("bgpd.conf")} {
		must(t, os.Chown(path, uid, -1))
	}
	for _, name := range []string{"zebra", "bgpd"} {
		args := []string{"-f", in(name + ".conf"), "-i", in(name + ".pid"), "-z", in("zserv.api"), "--vty_socket", dir, "-P", "0", "--log", "stdout"}
		r.daemon(daemons+name, args...)
		r.within(10*time.Second, name+" answers", func() bool {
			_, err := os.Stat(in(name + ".vty"))
			return err == nil
		})
	}
	r.dump = func() string {
		out, err := exec.Command("vtysh", "--vty_socket", dir, "-c", "show bgp summary", "-c", "show bgp ipv4", "-c", "show bgp ipv6").CombinedOutput()
		if err != nil {
			return err.Error()
		}
		return string(out)
	}
	return r
}

// TestAnnounceToFRR: another router's implementation takes the same from us, and
// loses it as fast.
func TestAnnounceToFRR(t *testing.T) {
	r := startFRR(t)
	config := func(n int) serverConfig {
		c := serverConfig{Device: serverDevice(n, "s3cret"), EIPs: []netip.Prefix{eip, eip6}}
		// This rack has one router, in both families.
		c.Device.BGPNeighbors = append(c.Device.BGPNeighbors[:1:1], c.Device.BGPNeighbors[2])
		return c
	}
	one, two := startServer(t, "one", config(1)), startServer(t, "two", config(2))
	strange := config(3)
	for i := range strange.Device.BGPNeighbors {
		strange.Device.BGPNeighbors[i].CustomerAS = 65009
	}
	three := startServer(t, "three", strange)
	has := func(v4, v6 string) func() bool {
		return func() bool { return strings.Join(r.hops(eip), " ") == v4 && strings.Join(r.hops(eip6), " ") == v6 }
	}
	all, second := has("10.70.1.1 10.70.2.1", "fd70:1::1 fd70:2::1"), has("10.70.2.1", "fd70:2::1")
	r.within(20*time.Second, "two servers announce", all)
	one.tell("api kill")
	r.within(3*time.Second, "API server killed: withdrawn", second)
	one.tell("api start")
	r.within(3*time.Second, "back", all)
	must(t, one.cmd.Process.Signal(syscall.SIGKILL))
	r.within(time.Second, "speaker killed: gone", second)
	r.within(20*time.Second, "another AS has its name", func() bool {
		for _, p := range three.status().Peers {
			if !strings.Contains(p.Reason, "AS mismatch: "+p.Address.String()+" knows this server by another AS number than 65009") {
				return false
			}
		}
		return true
	})
	must(t, two.cmd.Process.Signal(syscall.SIGTERM))
	r.within(time.Second, "speaker terminated: withdrawn", has("", ""))
}
