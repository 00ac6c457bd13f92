package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// still is a machine on which nothing happens.
type still struct{ bootstrap.Network }

func (still) Addresses() ([]netip.Prefix, error) { return nil, nil }
func (still) Device(ctx context.Context, _ func(error)) (device.Device, error) {
	<-ctx.Done()
	return device.Device{}, ctx.Err()
}

// quietServer answers as an agent does that still waits for its metadata.
func quietServer(t *testing.T) *bootstrap.Server {
	t.Helper()
	a := bootstrap.New(bootstrap.Machine{Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now, Network: still{}, Metadata: still{}})
	servers, done := make(chan *bootstrap.Server, 1), make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		done <- a.Run(ctx, func(ctx context.Context, s *bootstrap.Server) error {
			servers <- s
			<-ctx.Done()
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	return <-servers
}

// connected is a server of the test, on an address of its own below 127.0.0.0/8.
type connected struct {
	inst    string
	revoked string // the file
	at      netip.Addr
	trust   *trust
	fabric  bootstrap.Fabric
}

func connectAt(t *testing.T, c cluster.Cluster, address, inst string) connected {
	t.Helper()
	out := connected{inst: inst, at: netip.MustParseAddr(address), revoked: filepath.Join(t.TempDir(), "revoked.json")}
	self := bootstrap.Self{Inst: inst, HW: id("b"), Node: plan.Node{Name: "n", Private: out.at}}
	ctx, stop := context.WithCancel(context.Background())
	var err error
	out.trust, out.fabric, err = connect(ctx, t.TempDir(), out.revoked, c, newArtefacts(c, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler), self, quietServer(t))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- out.fabric.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", address, err)
		}
	})
	return out
}

// sees waits until the peers of a server are as wanted.
func (c connected) sees(t *testing.T, what string, good func([]bootstrap.Peer) bool) {
	t.Helper()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	for !good(c.fabric.Gossip.Peers()) {
		select {
		case <-c.fabric.Gossip.Changes():
		case <-patience.C:
			t.Fatalf("%s does not see %s, but %+v", c.at, what, c.fabric.Gossip.Peers())
		}
	}
}

func at(inst, address string) func([]bootstrap.Peer) bool {
	return func(peers []bootstrap.Peer) bool {
		return slices.ContainsFunc(peers, func(p bootstrap.Peer) bool {
			return p.Inst == inst && p.Address == netip.MustParseAddr(address)
		})
	}
}

// freePorts are ports that nobody has now.
func freePorts(t *testing.T) cluster.Ports {
	t.Helper()
	var ports [3]uint16
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	return cluster.Ports{Gossip: ports[0], Agents: ports[1], Enrolment: ports[2]}
}

// TestConnect: servers find each other through the addresses of discovery and
// answer on the enrolment port; flags travel. A copy of one server's disk is
// seen by the two that are meant, and by nobody else taken for its own.
func TestConnect(t *testing.T) {
	c := cluster.Cluster{Spec: cluster.Spec{ID: trustSpec, Ports: freePorts(t)}}
	for _, a := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		c.Spec.Discovery = append(c.Spec.Discovery, cluster.Discovery{Static: []netip.Addr{netip.MustParseAddr(a)}})
	}
	var err error
	if c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64))); err != nil {
		t.Fatal(err)
	}
	one, two := connectAt(t, c, "127.0.0.2", id("1")), connectAt(t, c, "127.0.0.3", id("2"))
	one.sees(t, "the other", at(id("2"), "127.0.0.3"))
	two.sees(t, "the other", at(id("1"), "127.0.0.2"))
	if found := one.fabric.Search.Report(); len(found.Ways) != 1 || found.Ways[0].Name != "static" || len(found.Found) != 2 || found.Found[0].Address != two.at {
		t.Errorf("discovery reports %+v", found)
	}
	status, err := one.fabric.Calls.Status(t.Context(), agent.Peer{Inst: id("2"), Address: two.at})
	if err != nil || status.Phase != member.Metadata {
		t.Errorf("status of the other: %+v, %v", status, err)
	}
	if _, _, err := one.fabric.Calls.Fence(t.Context(), agent.Peer{Inst: id("2"), Address: two.at}, []byte("{}")); err == nil ||
		!strings.Contains(err.Error(), agent.ErrNotReady.Error()) {
		t.Errorf("a vote of a server whose fence is not there: %v", err)
	}
	two.fabric.Gossip.SetFlags(bootstrap.Flags{Eligible: true, Sealed: true, Joining: true})
	one.sees(t, "the flags", func(peers []bootstrap.Peer) bool {
		return slices.ContainsFunc(peers, func(p bootstrap.Peer) bool {
			return p.Inst == id("2") && p.Flags == bootstrap.Flags{Eligible: true, Sealed: true, Joining: true}
		})
	})

	twin := connectAt(t, c, "127.0.0.4", id("2"))
	twin.sees(t, "the server that it is a copy of", at(id("2"), "127.0.0.3"))
	two.sees(t, "its copy", at(id("2"), "127.0.0.4"))
	for _, p := range one.fabric.Gossip.Peers() {
		if p.Inst == id("1") && p.Address != one.at {
			t.Errorf("a third server takes the copy for its own: %+v", p)
		}
	}
}

// TestConnectPortTaken: what is open already is closed again, and the error says
// which field moves the port.
func TestConnectPortTaken(t *testing.T) {
	c := cluster.Cluster{Spec: cluster.Spec{ID: trustSpec, Ports: freePorts(t)}}
	var err error
	if c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64))); err != nil {
		t.Fatal(err)
	}
	self := bootstrap.Self{Inst: id("1"), HW: id("b"), Node: plan.Node{Name: "n", Private: netip.MustParseAddr("127.0.0.2")}}
	for field, port := range map[string]uint16{"agents": c.Spec.Ports.Agents, "enrolment": c.Spec.Ports.Enrolment} {
		taken, err := net.Listen("tcp", netip.AddrPortFrom(self.Node.Private, port).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = connect(t.Context(), t.TempDir(), "", c, newArtefacts(c, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler), self, nil)
		if err == nil || !strings.Contains(err.Error(), "spec.ports."+field+" moves it") {
			t.Errorf("port of %s taken: %v", field, err)
		}
		if err := taken.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
