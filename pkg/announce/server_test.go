package announce

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
)

// Elastic IPs of the tests.
var (
	eip  = netip.MustParsePrefix("147.75.40.8/32")
	eip6 = netip.MustParsePrefix("2604:1380:40::8/128")
)

// serverConfig is server.json in a server's directory.
type serverConfig struct {
	Device   device.Device  `json:"device"`
	NoRoutes bool           `json:"noRoutes,omitempty"` // leave out the routes to the routers
	Public   bool           `json:"public,omitempty"`   // a default route over a public link that leads nowhere
	EIPs     []netip.Prefix `json:"eips"`
}

// serverMain is a server: its own namespace with the private link up0, an API
// server that does as it is told, and the speaker as the command runs it. It
// reads commands from standard input and answers each with a line.
func serverMain(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", filepath.Base(dir))
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() || in.Text() != "boot" {
		return fmt.Errorf("first command %q, expected boot", in.Text())
	}
	var c serverConfig
	b, err := os.ReadFile(filepath.Join(dir, "server.json"))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return err
	}
	if err := setUpLinks(c); err != nil {
		return err
	}
	private, _ := c.Device.Private(4)
	if err := makeAuthority(dir, private.Prefix.Addr()); err != nil {
		return err
	}
	api := &apiProcess{dir: dir, listen: netip.AddrPortFrom(private.Prefix.Addr(), plan.APIServerPort)}
	if err := api.start(); err != nil {
		return err
	}
	if err := writePlan(c, dir); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	reload := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{PlanFile: filepath.Join(dir, "announce.json"), Socket: filepath.Join(dir, "announce.sock"),
			Reload: reload, Log: log, Notify: func(state string) { log.Info("sd_notify", "state", state) }})
	}()
	fmt.Println("ok")
	go func() {
		for in.Scan() {
			if err := command(in.Text(), c, dir, api, reload); err != nil {
				fmt.Println(err)
			} else {
				fmt.Println("ok")
			}
		}
	}()
	return <-ended
}

// command carries out one line.
func command(line string, c serverConfig, dir string, api *apiProcess, reload chan<- struct{}) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "api":
		return api.command(rest)
	case "silence": // carrier and processes stay; nothing gets out any more
		up, err := netlink.LinkByName("up0")
		if err != nil {
			return err
		}
		for _, a := range c.Device.Addresses {
			if err := netlink.AddrDel(up, &netlink.Addr{IPNet: ipNet(a.Prefix)}); err != nil {
				return err
			}
		}
		return nil
	case "lo+", "lo-":
		p, err := netip.ParsePrefix(rest)
		if err != nil {
			return err
		}
		return changeLo(p, word == "lo+")
	case "plan", "write": // a plan with other Elastic IPs; then read again, or not
		c.EIPs = nil
		for word := range strings.FieldsSeq(rest) {
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return err
			}
			c.EIPs = append(c.EIPs, p)
		}
		if err := writePlan(c, dir); err != nil {
			return err
		}
		if word == "plan" {
			reload <- struct{}{}
		}
		return nil
	}
	return fmt.Errorf("unknown command %q", line)
}

func setUpLinks(c serverConfig) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	up, err := netlink.LinkByName("up0")
	if err != nil {
		return err
	}
	errs := []error{netlink.LinkSetUp(lo), netlink.LinkSetUp(up)}
	for _, a := range c.Device.Addresses {
		add := &netlink.Addr{IPNet: ipNet(a.Prefix), Flags: unix.IFA_F_NODAD, ValidLft: math.MaxUint32, PreferedLft: math.MaxUint32}
		errs = append(errs, netlink.AddrAdd(up, add))
	}
	if !c.NoRoutes {
		for _, r := range plan.ToRRoutes(c.Device) {
			errs = append(errs, netlink.RouteAdd(&netlink.Route{Dst: ipNet(r.Dst), Gw: r.Via.AsSlice(), Src: r.Src.AsSlice(), LinkIndex: up.Attrs().Index}))
		}
	}
	if c.Public {
		errs = append(errs, setUpPublic())
	}
	return errors.Join(errs...)
}

// setUpPublic makes the default route of a server with a public link: 147.75.9.1
// behind 147.75.9.0, which nobody is.
func setUpPublic() error {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pub0"}, PeerName: "pub1"}); err != nil {
		return err
	}
	pub, err := netlink.LinkByName("pub0")
	if err != nil {
		return err
	}
	other, err := netlink.LinkByName("pub1")
	if err != nil {
		return err
	}
	gateway := net.IPv4(147, 75, 9, 0)
	return errors.Join(netlink.LinkSetUp(pub), netlink.LinkSetUp(other),
		netlink.AddrAdd(pub, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("147.75.9.1/31"))}),
		netlink.NeighAdd(&netlink.Neigh{LinkIndex: pub.Attrs().Index, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}),
		netlink.RouteAdd(&netlink.Route{Gw: gateway, LinkIndex: pub.Attrs().Index}))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func changeLo(p netip.Prefix, add bool) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is4() {
		a.Scope = int(netlink.SCOPE_HOST)
	}
	if add {
		return netlink.AddrAdd(lo, a)
	}
	return netlink.AddrDel(lo, a)
}

// writePlan writes what the agent would.
func writePlan(c serverConfig, dir string) error {
	spec := cluster.Spec{}
	for _, p := range c.EIPs {
		spec.Network.ElasticIPs = append(spec.Network.ElasticIPs, cluster.ElasticIP{Address: p, On: "control-planes"})
	}
	a := plan.AnnouncementFor(spec, c.Device, filepath.Base(dir))
	a.HealthCA = filepath.Join(dir, "ca.crt")
	b, err := MarshalPlan(a)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "announce.json"), b, 0o600)
}

// testServer is a server seen from a test.
type testServer struct {
	*Client
	t    *testing.T
	cmd  *exec.Cmd
	tell func(line string)
	wait func() error
}

// startServer boots a server behind a link of its own and puts its Elastic IPs
// on lo.
func startServer(t *testing.T, name string, c serverConfig) *testServer {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	must(t, os.Mkdir(dir, 0o700))
	b, err := json.Marshal(c)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "server.json"), b, 0o600))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asServer+"="+dir)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	s := &testServer{Client: NewClient(filepath.Join(dir, "announce.sock")), t: t, cmd: cmd, wait: sync.OnceValue(cmd.Wait)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // may have ended
		_ = s.wait()
		if link, err := netlink.LinkByName(name); err == nil {
			_ = netlink.LinkDel(link) // the kernel takes it away too, some time later
		}
	})
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "up0",
		PeerNamespace: netlink.NsPid(cmd.Process.Pid)}))
	link, err := netlink.LinkByName(name)
	must(t, err)
	for _, a := range c.Device.Addresses {
		bits := a.Prefix.Bits()
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a.Gateway, bits)), Flags: unix.IFA_F_NODAD}))
	}
	must(t, netlink.LinkSetUp(link))
	answers := bufio.NewScanner(stdout)
	s.tell = func(line string) {
		t.Helper()
		if _, err := fmt.Fprintln(stdin, line); err != nil {
			t.Fatalf("%s: tell %q: %v", name, line, err)
		}
		if !answers.Scan() || answers.Text() != "ok" {
			t.Fatalf("%s: %q answered %q", name, line, answers.Text())
		}
	}
	s.tell("boot")
	for _, p := range c.EIPs {
		s.tell("lo+ " + p.String())
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
