package faults

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/mustermetal/muster/test/faults/fabric"
	"github.com/mustermetal/muster/test/rig/machine"
)

// startBalancer puts a load balancer on the fabric: the endpoint of the clusters. It
// leads each connection to the first server that takes one at the API server's port.
func (l *Lab) startBalancer(ctx context.Context) error {
	ns := balancerNamespace
	if err := plug(ctx, ns, balancer, netip.PrefixFrom(balancerIP, subnet.Bits()), ""); err != nil {
		return err
	}
	l.ends = append(l.ends, func() error {
		_, err := machine.Output(context.WithoutCancel(ctx), "ip", "netns", "del", ns)
		return err
	})
	if err := l.Switch.Attach(balancer, port(balancer)); err != nil {
		return err
	}
	var listener net.Listener
	err := fabric.In(machine.NetnsPath(ns), func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(balancerIP, apiPort).String())
		return err
	})
	if err != nil {
		return fmt.Errorf("load balancer: %w", err)
	}
	l.ends = append(l.ends, listener.Close)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go l.lead(machine.NetnsPath(ns), c)
		}
	}()
	return nil
}

const apiPort = 6443

// balancerNamespace is where the load balancer is, and what else the fabric offers.
const balancerNamespace = prefix + "-" + balancer

// lead copies a connection to a server that takes it, or ends it.
func (l *Lab) lead(ns string, from net.Conn) {
	defer from.Close()
	var to net.Conn
	for _, s := range l.servers() {
		err := fabric.In(ns, func() (err error) {
			to, err = net.DialTimeout("tcp4", netip.AddrPortFrom(s.Address, apiPort).String(), 500*time.Millisecond)
			return err
		})
		if err == nil {
			break
		}
	}
	if to == nil {
		return
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	for _, pipe := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(pipe[0], pipe[1]) // either side may hang up
			done <- struct{}{}
		}()
	}
	<-done
}

// port is the switch's end of a server's link.
func port(name string) string { return "p-" + name }

// plug makes a network namespace with lo and eth0, whose other end lies in the hub.
// hardware, when given, is the permanent address of a port that leads nowhere: an
// identity that two servers can share without confusing the switch.
func plug(ctx context.Context, ns, name string, address netip.Prefix, hardware string) error {
	if _, err := machine.Output(ctx, "ip", "netns", "add", ns); err != nil {
		return err
	}
	hubLines := fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s up\n", port(name), ns, port(name))
	lines := fmt.Sprintf("link set lo up\naddr add %s dev eth0\nlink set eth0 up\n", address)
	if hardware != "" {
		lines += fmt.Sprintf("link add id0 address %s type veth peer name id1\n", hardware)
	}
	for _, batch := range []struct{ ns, lines string }{{hub, hubLines}, {ns, lines}} {
		if err := ipBatch(ctx, batch.ns, batch.lines); err != nil {
			return fmt.Errorf("plugging %s in: %w", name, err)
		}
	}
	return fabric.Plain(machine.NetnsPath(ns), "eth0")
}

func ipBatch(ctx context.Context, ns, lines string) error {
	_, err := machine.OutputOf(ctx, strings.NewReader(lines), "ip", "-n", ns, "-batch", "-")
	return err
}
