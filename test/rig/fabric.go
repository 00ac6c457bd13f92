package rig

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// The fabric: a top-of-rack namespace with two routers on its lo, and a /31 to
// each server, nothing shared on layer 2. Addresses and AS numbers are those of
// the Packet shape; the ranges are ours.
const (
	ServerAS = 65000
	RouterAS = 65530
	md5      = "rig-tor"
)

// Addresses of the fabric.
var (
	Routers      = []netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}
	MetadataAddr = netip.MustParseAddr("169.254.169.254")
	MetadataURL  = "http://" + MetadataAddr.String()
	ServerRange  = netip.MustParsePrefix("10.66.0.0/16")  // private addresses
	PublicRange  = netip.MustParsePrefix("198.18.0.0/16") // of servers that have a public address too
	PodRange     = netip.MustParsePrefix("10.244.0.0/16") // server i has 10.244.i.0/24
	ServiceRange = netip.MustParsePrefix("10.96.0.0/16")
	ElasticIP    = netip.MustParseAddr("147.75.194.92")
)

// link is the /31 of server index, 1 to 250: gateway even, server odd.
func link(index int) (gateway, server netip.Addr) {
	n := index * 2
	return netip.AddrFrom4([4]byte{10, 66, byte(n >> 8), byte(n)}), netip.AddrFrom4([4]byte{10, 66, byte(n >> 8), byte(n + 1)})
}

// publicLink is the second /31 of server index, for servers with a public address.
func publicLink(index int) (gateway, server netip.Addr) {
	n := index * 2
	return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n + 1)})
}

// ServerAddr is the private address of the server at a place of the fabric.
func ServerAddr(index int) netip.Addr {
	_, server := link(index)
	return server
}

// podRange is what the CNI of server index hands out.
func podRange(index int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(index), 0}), 24)
}

//go:embed bird.conf
var birdConf string

var birdTemplate = template.Must(template.New("bird.conf").Parse(birdConf))

// RouterNamespace is the path of the network namespace of the routers, where whatever
// the fabric offers is.
func (r *Rig) RouterNamespace() string { return machine.NetnsPath(r.torName()) }

func (r *Rig) torName() string         { return r.state.Name + "-tor" }
func (r *Rig) torFile(n string) string { return filepath.Join(r.dir, "tor", n) }

func sortAddrs(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// torUp makes the namespace and starts what lives in it.
func (r *Rig) torUp(ctx context.Context) error {
	tor := r.torName()
	if err := errors.Join(os.MkdirAll(r.torFile(""), 0o755), os.MkdirAll(r.Files(), 0o755), os.MkdirAll(r.metadata.Dir, 0o700)); err != nil {
		return fmt.Errorf("top of rack: %w", err)
	}
	commands := [][]string{{"ip", "netns", "add", tor}, {"ip", "-n", tor, "link", "set", "lo", "up"}}
	for _, a := range append([]netip.Addr{MetadataAddr}, Routers...) {
		commands = append(commands, []string{"ip", "-n", tor, "addr", "add", a.String() + "/32", "dev", "lo"})
	}
	for _, a := range append([]netip.Addr{MetadataAddr6}, Routers6...) {
		commands = append(commands, []string{"ip", "-n", tor, "addr", "add", a.String() + "/128", "dev", "lo", "nodad"})
	}
	commands = append(commands, machine.InNetns(tor, "sysctl", "-qw",
		"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
		// A flow keeps its next hop (addresses, protocol, ports). With policy 1 a repeated
		// SYN may jump to a live hop, which flatters.
		"net.ipv4.fib_multipath_hash_policy=3", "net.ipv4.fib_multipath_hash_fields=55",
		"net.ipv6.conf.all.forwarding=1", "net.ipv6.fib_multipath_hash_policy=3", "net.ipv6.fib_multipath_hash_fields=55"))
	for _, argv := range commands {
		if _, err := machine.Output(ctx, argv...); err != nil {
			return fmt.Errorf("top of rack: %w", err)
		}
	}
	if err := r.startBIRD(ctx); err != nil {
		return err
	}
	return r.startMetadata(ctx)
}

func (r *Rig) writeBIRD() error {
	var conf strings.Builder
	err := birdTemplate.Execute(&conf, map[string]any{
		"Log": r.torFile("bird.log"), "Routers": Routers, "ServerAS": ServerAS, "RouterAS": RouterAS, "Servers": ServerRange, "Routers6": Routers6, "Servers6": ServerRange6, "Password": md5,
	})
	if err == nil {
		err = os.WriteFile(r.torFile("bird.conf"), []byte(conf.String()), 0o600)
	}
	if err != nil {
		return fmt.Errorf("configuring BIRD: %w", err)
	}
	return nil
}

func (r *Rig) startBIRD(ctx context.Context) error {
	if err := r.writeBIRD(); err != nil {
		return err
	}
	bird, err := machine.Spawn(r.torFile("bird.out"), machine.InNetns(r.torName(), "bird", "-f", "-c", r.torFile("bird.conf"), "-s", r.torFile("bird.ctl"), "-P", r.torFile("bird.pid"))...)
	if err != nil {
		return err
	}
	if err := r.update(func(s *state) { s.BIRD = bird }); err != nil {
		return err
	}
	return r.up(ctx, "BIRD", bird, "bird.out", func() bool {
		_, err := machine.Output(ctx, "birdc", "-r", "-s", r.torFile("bird.ctl"), "show", "status")
		return err == nil
	})
}

func (r *Rig) startMetadata(ctx context.Context) error {
	argv := machine.InNetns(r.torName(), r.daemon(), "metadata", ":80", r.metadata.Dir, r.Files())
	service, err := machine.Spawn(r.torFile("metadata.out"), argv...)
	if err != nil {
		return err
	}
	if err := r.update(func(s *state) { s.Metadata = service }); err != nil {
		return err
	}
	return r.up(ctx, "metadata service", service, "metadata.out", func() bool {
		_, err := os.Stat(filepath.Join(r.metadata.Dir, metadata.Ready))
		return err == nil
	})
}

// up waits until a program of the ToR serves, or says what it said.
func (r *Rig) up(ctx context.Context, name string, p machine.Process, log string, serves func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := machine.Poll(ctx, name+" serves", func() bool { return !p.Alive() || serves() })
	if err == nil && p.Alive() {
		return nil
	}
	said, _ := os.ReadFile(r.torFile(log)) // what is not there says nothing
	return errors.Join(err, fmt.Errorf("%s in %s does not serve; it says %q", name, r.torName(), said))
}

func (r *Rig) torDown(ctx context.Context) error {
	errs := []error{r.state.BIRD.End(ctx), r.state.Metadata.End(ctx)}
	if _, err := os.Stat(machine.NetnsPath(r.torName())); err == nil {
		_, err := machine.Output(ctx, "ip", "netns", "del", r.torName())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ToR is the fabric seen from outside the servers.
type ToR struct{ rig *Rig }

// ToR returns the top of rack.
func (r *Rig) ToR() ToR { return ToR{rig: r} }

// Netns is the name of the ToR's network namespace.
func (t ToR) Netns() string { return t.rig.torName() }

// Exec runs a program of this machine in the ToR's network and returns what it
// prints.
func (t ToR) Exec(ctx context.Context, argv ...string) (string, error) {
	return machine.Output(ctx, machine.InNetns(t.rig.torName(), argv...)...)
}

// NextHops returns where the ToR's kernel sends packets for exactly this prefix,
// sorted; none when it has no such route.
func (t ToR) NextHops(ctx context.Context, prefix netip.Prefix) ([]netip.Addr, error) {
	out, err := machine.Output(ctx, "ip", "-j", "-n", t.rig.torName(), family(prefix.Addr()), "route", "show", prefix.String())
	if err != nil {
		return nil, err
	}
	return nextHops(out)
}

// RouterNextHops is NextHops as one of the two routers (0 or 1) learned it by BGP.
func (t ToR) RouterNextHops(ctx context.Context, router int, prefix netip.Prefix) ([]netip.Addr, error) {
	out, err := machine.Output(ctx, "birdc", "-r", "-s", t.rig.torFile("bird.ctl"), "show", "route", prefix.String(), "table", table(router, prefix))
	if err != nil {
		// birdc ends with 1 and "Network not found" when there is none.
		if strings.Contains(out, "not found") || strings.Contains(out, "not in table") {
			return nil, nil
		}
		return nil, err
	}
	var hops []netip.Addr
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "via" {
			hop, err := netip.ParseAddr(f[1])
			if err != nil {
				return nil, fmt.Errorf("birdc: %q: %w", line, err)
			}
			hops = append(hops, hop)
		}
	}
	return sortAddrs(hops), nil
}

func nextHops(out string) ([]netip.Addr, error) {
	var routes []struct {
		Gateway  string
		Nexthops []struct{ Gateway string }
	}
	if strings.TrimSpace(out) == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		return nil, fmt.Errorf("ip -j route: %w: %q", err, out)
	}
	var hops []netip.Addr
	for _, route := range routes {
		gateways := []string{route.Gateway}
		for _, h := range route.Nexthops {
			gateways = append(gateways, h.Gateway)
		}
		for _, g := range gateways {
			if g == "" {
				continue
			}
			hop, err := netip.ParseAddr(g)
			if err != nil {
				return nil, fmt.Errorf("ip -j route: %w", err)
			}
			hops = append(hops, hop)
		}
	}
	return sortAddrs(hops), nil
}
