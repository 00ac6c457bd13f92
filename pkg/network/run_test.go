package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

// countWrites counts what changes lo or the routes of w until the returned
// function is called: writes of the fake, events of the kernel.
func countWrites(t *testing.T, w world) func() int {
	t.Helper()
	if f, ok := w.lo.(*fakeKernel); ok {
		before := f.writes
		return func() int { return f.writes - before }
	}
	settle(t)
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	must(t, err)
	return func() int {
		defer s.Close()
		// Events are queued before the write that causes them returns, but for an
		// IPv6 address that was not there.
		must(t, s.SetReceiveTimeout(&unix.Timeval{Usec: 1000}))
		n := 0
		for {
			messages, _, err := s.Receive()
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			must(t, err)
			n += len(messages)
		}
	}
}

// start runs the reconciler until the test ends.
func start(t *testing.T, r *Reconciler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want the context's error", err)
		}
	})
}

// within polls a condition that another process (the kernel, the loop) brings about.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begin) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-tick.C
	}
	return time.Since(begin)
}

func TestRunHeals(t *testing.T) {
	w := kernelWorld(t)
	r := w.reconciler(t)
	start(t, r)
	r.Set(planned)
	// What others added is as it was through all of it.
	theirs := address{Prefix: prefix("198.51.100.7/32"), Label: "lo"}
	must(t, w.lo.AddAddress(theirs))
	up := mustLink(t, "up0")
	theirRoute := route{Route: plan.Route{Dst: prefix("192.0.2.7/32"), Via: tor.Via}, Protocol: bootProt, Link: up.Attrs().Index}
	must(t, w.table.ReplaceRoute(theirRoute))
	ours := func() bool {
		return cmp.Equal(w.onLo(t), []address{ourEIP, theirs, ourEIP6}, netipValues) &&
			cmp.Equal(w.routes(t), []route{ourTor, ourTor6}, netipValues)
	}
	whole := func() bool {
		list, err := w.table.ListRoutes()
		must(t, err)
		return ours() && slices.Contains(list, theirRoute)
	}
	const soon = time.Second
	within(t, soon, "the plan is carried out", whole)
	for _, harm := range []struct {
		name string
		do   func()
	}{
		{"Elastic IP deleted", func() { must(t, w.lo.DeleteAddress(eip)) }},
		{"IPv6 Elastic IP deleted", func() { must(t, w.lo.DeleteAddress(eip6)) }},
		{"route deleted", func() { must(t, w.table.DeleteRoute(ourTor)) }},
		{"IPv6 route deleted", func() { must(t, w.table.DeleteRoute(ourTor6)) }},
		{"link down and up", func() {
			must(t, netlink.LinkSetDown(up))
			must(t, netlink.LinkSetUp(up))
			setLinkAddresses(t) // the kernel drops global IPv6 addresses
			must(t, w.table.ReplaceRoute(theirRoute))
		}},
		{"private address deleted and set again", func() {
			must(t, netlink.AddrDel(up, &netlink.Addr{IPNet: ipNet(prefix("10.99.14.9/31"))}))
			setLinkAddresses(t)
			must(t, w.table.ReplaceRoute(theirRoute))
		}},
	} {
		harm.do()
		t.Logf("%s: healed after %v", harm.name, within(t, soon, harm.name+", then healed", whole))
	}
}

// TestRunQuiet: a converged reconciler answers its own events with nothing.
func TestRunQuiet(t *testing.T) {
	w := kernelWorld(t)
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), planned))
	count := countWrites(t, w)
	start(t, r)
	r.Set(planned)
	// Long enough for the pass of Set and for many more if the first caused events.
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	<-timer.C
	if n := count(); n != 0 {
		t.Errorf("%d netlink events from a converged reconciler, want 0", n)
	}
}

func TestRemoveAddressDestroysConnections(t *testing.T) {
	w := kernelWorld(t)
	r := w.reconciler(t)
	must(t, r.Apply(t.Context(), planned))
	settle(t)
	for _, p := range []netip.Prefix{eip, eip6} {
		t.Run(p.String(), func(t *testing.T) {
			// A dual-stack listener, as the API server's: its side of an IPv4
			// connection is an IPv6 socket.
			l, err := net.Listen("tcp", ":0")
			must(t, err)
			defer l.Close()
			_, port, err := net.SplitHostPort(l.Addr().String())
			must(t, err)
			client, err := net.Dial("tcp", net.JoinHostPort(p.Addr().String(), port))
			must(t, err)
			defer client.Close()
			server, err := l.Accept()
			must(t, err)
			defer server.Close()
			must(t, r.RemoveAddress(t.Context(), p))
			for _, c := range []net.Conn{client, server} {
				must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
				_, err := c.Read(make([]byte, 1))
				if errors.Is(err, os.ErrDeadlineExceeded) {
					if _, derr := r.lo.DestroySockets(p.Addr()); errors.Is(derr, unix.EOPNOTSUPP) || errors.Is(derr, unix.ENOENT) {
						t.Skipf("this kernel cannot destroy sockets: %v", derr)
					}
				}
				if !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("read on %s: %v, want an aborted connection", c.LocalAddr(), err)
				}
			}
		})
	}
}

func TestRunTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fakeWorld(t)
		k := w.lo.(*fakeKernel)
		r := w.reconciler(t)
		watching := make(chan func(), 1)
		broken := make(chan error)
		r.watch = func(ctx context.Context, changed func()) error {
			watching <- changed
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-broken:
				return err
			}
		}
		start(t, r)
		changed := <-watching
		r.Set(plan.Network{Addresses: []netip.Prefix{eip}})
		synctest.Wait()
		w.expect(t, []address{ourEIP}, nil)

		at := time.Now()
		lose := func() { must(t, k.DeleteAddress(eip)) }
		healed := func() time.Duration {
			t.Helper()
			for len(w.onLo(t)) == 0 {
				if time.Since(at) > time.Minute {
					t.Fatal("not healed in a minute")
				}
				time.Sleep(10 * time.Millisecond) // virtual time
				synctest.Wait()
			}
			return time.Since(at)
		}
		lose()
		changed()
		if d := healed(); d != coalesce {
			t.Errorf("healed %v after the event, want %v", d, coalesce)
		}
		at = time.Now()
		lose()
		if d := healed(); d != resync {
			t.Errorf("without an event healed after %v, want %v", d, resync)
		}
		at = time.Now()
		lose()
		broken <- errors.New("socket gone")
		<-watching
		if d := healed(); d != resubscribe+coalesce {
			t.Errorf("healed %v after the socket failed, want %v", d, resubscribe+coalesce)
		}
		at = time.Now()
		k.mu.Lock()
		k.fail = unix.EPERM
		k.mu.Unlock()
		lose()
		changed()
		time.Sleep(coalesce + retryMin/2)
		k.mu.Lock()
		k.fail = nil
		k.mu.Unlock()
		if d := healed(); d != coalesce+retryMin {
			t.Errorf("after a failed pass healed in %v, want %v", d, coalesce+retryMin)
		}
	})
}

func TestNothingWithoutOrder(t *testing.T) {
	w := fakeWorld(t)
	must(t, w.lo.AddAddress(ourEIP))
	r := w.reconciler(t)
	must(t, r.lockedPass(t.Context()))
	w.expect(t, []address{ourEIP}, nil)
}

func TestRPFilterSentence(t *testing.T) {
	for _, tc := range []struct {
		effective    int
		defaultRoute bool
		warn         bool
	}{{0, false, false}, {1, false, true}, {2, false, false}, {1, true, false}} {
		s := rpFilterSentence("bond1", tc.effective, tc.defaultRoute)
		if (s != "") != tc.warn || tc.warn && !strings.Contains(s, "net.ipv4.conf.bond1.rp_filter") {
			t.Errorf("rp_filter %d, default route there %t: %q, want a warning: %t", tc.effective, tc.defaultRoute, s, tc.warn)
		}
	}
}

func TestRPFilterWarning(t *testing.T) {
	kernelWorld(t)
	file := "/proc/sys/net/ipv4/conf/up0/rp_filter"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("no reverse path filter setting here: %v", err)
	}
	must(t, os.WriteFile(file, []byte("1"), 0o644))
	defer func() { must(t, os.WriteFile(file, before, 0o644)) }()
	got, err := RPFilterWarning(ip("10.99.14.9"))
	must(t, err)
	if !strings.Contains(got, "up0") {
		t.Errorf("strict filter on a link without the default route: %q, want a warning about up0", got)
	}
	must(t, netlink.RouteAdd(&netlink.Route{Gw: ip("10.99.14.8").AsSlice()}))
	got, err = RPFilterWarning(ip("10.99.14.9"))
	must(t, err)
	if got != "" {
		t.Errorf("strict filter on the default route's link: %q, want no warning", got)
	}
}

func TestClaimsUnreadable(t *testing.T) {
	w := fakeWorld(t)
	r := w.reconciler(t)
	must(t, os.WriteFile(r.claims.file, []byte("{"), 0o600))
	must(t, w.lo.AddAddress(ourEIP6))
	must(t, r.Apply(t.Context(), plan.Network{}))
	w.expect(t, []address{ourEIP6}, nil)
}
