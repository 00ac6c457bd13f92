package announce

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// FRR needs to be told that it may take routes of another AS without a policy.
const frrConfig = `
router bgp %d
 bgp router-id %s
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

// frr is one router.
type frr struct {
	dir   string
	enter []string // the start of a command line in its network namespace
}

// startFRR starts zebra and bgpd.
func (r *rack) startFRR(as int, id string, enter ...string) frr {
	t := r.t
	t.Helper()
	const daemons = "/usr/lib/frr/"
	// A short path: names of unix sockets have 108 bytes.
	dir, err := os.MkdirTemp("", "frr")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(in("zebra.conf"), nil, 0o600))
	must(t, os.WriteFile(in("bgpd.conf"), fmt.Appendf(nil, frrConfig, as, id), 0o600))
	// Both drop their privileges to the user of the package.
	owner, err := user.Lookup("frr")
	must(t, err)
	uid, err := strconv.Atoi(owner.Uid)
	must(t, err)
	for _, path := range []string{dir, in("zebra.conf"), in("bgpd.conf")} {
		must(t, os.Chown(path, uid, -1))
	}
	for _, name := range []string{"zebra", "bgpd"} {
		argv := append(slices.Clone(enter), daemons+name, "-f", in(name+".conf"), "-i", in(name+".pid"), "-z", in("zserv.api"), "--vty_socket", dir, "-P", "0", "--log", "stdout")
		r.daemon(argv[0], argv[1:]...)
		r.within(10*time.Second, name+" answers", func() bool {
			_, err := os.Stat(in(name + ".vty"))
			return err == nil
		})
	}
	return frr{dir, enter}
}

func (f frr) show(commands ...string) string {
	argv := append(slices.Clone(f.enter), "vtysh", "--vty_socket", f.dir)
	for _, c := range commands {
		argv = append(argv, "-c", "show "+c)
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return err.Error() + string(out)
	}
	return string(out)
}

// hops are the next hops of the paths that the router uses, sorted.
func (f frr) hops(p netip.Prefix) string {
	family := "ipv4"
	if p.Addr().Is6() {
		family = "ipv6"
	}
	var route struct {
		Paths []struct {
			Valid    bool
			Nexthops []struct{ IP string }
		}
	}
	if json.Unmarshal([]byte(f.show("bgp "+family+" unicast "+p.String()+" json")), &route) != nil {
		return "no JSON"
	}
	var hops []string
	for _, path := range route.Paths {
		for _, n := range path.Nexthops {
			if path.Valid {
				hops = append(hops, n.IP)
			}
		}
	}
	slices.Sort(hops)
	return strings.Join(hops, " ")
}

// secondBox is a network namespace of the second router's own behind the first, which
// forwards; it returns how to run a program there.
func (r *rack) secondBox() []string {
	r.t.Helper()
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	must(r.t, holder.Start())
	r.t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	pid := strconv.Itoa(holder.Process.Pid)
	enter := []string{"nsenter", "--net=/proc/" + pid + "/ns/net"}
	run := func(stdin string, argv ...string) {
		r.t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	run("addr del 169.254.255.2/32 dev lo\naddr del fc00::f/128 dev lo\nlink add box0 type veth peer name box1 netns "+pid+`
addr add 192.0.2.0/31 dev box0
addr add fd00:b0::/127 dev box0 nodad
link set box0 up
route add 169.254.255.2/32 via 192.0.2.1
route add fc00::f/128 via fd00:b0::1
`, "ip", "-batch", "-")
	r.t.Cleanup(func() { run("", "ip", "link", "del", "box0") })
	run("", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	run(`link set lo up
addr add 169.254.255.2/32 dev lo
addr add fc00::f/128 dev lo
addr add 192.0.2.1/31 dev box1
addr add fd00:b0::1/127 dev box1 nodad
link set box1 up
route add 10.70.0.0/16 via 192.0.2.0
route add fd70::/16 via fd00:b0::
`, append(enter, "ip", "-batch", "-")...)
	return enter
}

// TestAnnounceToFRR: another router's implementation takes the same from us, and
// loses it as fast. The two are boxes of their own, one behind the other.
func TestAnnounceToFRR(t *testing.T) {
	r := newRack(t, "/usr/lib/frr/bgpd", "frr")
	box := r.secondBox()
	config := func(n int) serverConfig {
		return serverConfig{Device: serverDevice(n, "s3cret"), EIPs: []netip.Prefix{eip, eip6}}
	}
	one, two := startServer(t, "one", config(1)), startServer(t, "two", config(2))
	strange := config(3)
	for i := range strange.Device.BGPNeighbors {
		strange.Device.BGPNeighbors[i].CustomerAS = 65009
	}
	three := startServer(t, "three", strange)
	// After the links are there: now and then zebra misses the address of one that comes
	// while it starts, and never takes routes over it.
	first, second := r.startFRR(65530, "169.254.255.1"), r.startFRR(65531, "169.254.255.2", box...)
	r.dump = func() string {
		return first.show("bgp summary", "bgp ipv4", "bgp ipv6") + second.show("bgp summary", "bgp ipv4", "bgp ipv6")
	}
	has := func(v4, v6 string) func() bool {
		return func() bool {
			return strings.Join(r.hops(eip), " ") == v4 && strings.Join(r.hops(eip6), " ") == v6 && second.hops(eip) == v4 && second.hops(eip6) == v6
		}
	}
	all, others := has("10.70.1.1 10.70.2.1", "fd70:1::1 fd70:2::1"), has("10.70.2.1", "fd70:2::1")
	r.within(20*time.Second, "two servers announce to both", all)
	one.tell("api kill")
	r.within(3*time.Second, "API server killed: withdrawn", others)
	one.tell("api start")
	r.within(3*time.Second, "back", all)
	must(t, one.cmd.Process.Signal(syscall.SIGKILL))
	r.within(time.Second, "speaker killed: gone", others)
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
