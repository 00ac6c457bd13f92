package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// testListeners compares the ports that userdata plan foretells, and that the
// firewall guards, with the sockets of real servers: nothing more, nothing less.
func testListeners(t *testing.T, c *formation) {
	c.t = t
	// A node is Ready before its kube-proxy is up.
	c.eventually(2*time.Minute, "servers to listen where the plan says", func() error {
		for _, s := range c.servers {
			out, err := s.Exec(c.ctx, "ss", "-Hlntup")
			if err != nil {
				return err
			}
			if err := asForetold(out, s.Addr, strings.HasPrefix(s.Name, "cp")); err != nil {
				return fmt.Errorf("%s: %w\n%s", s.Name, err, out)
			}
		}
		return nil
	})
}

// asForetold compares what ss prints with the plan.
func asForetold(out string, private netip.Addr, controlPlane bool) error {
	ports := cluster.Ports{Gossip: 9760, Agents: 9761, Enrolment: 9762, Directory: 9763}
	programs := []string{"bootstrap", "etcd", "kubelet", "kube-apiserver", "kube-controller", "kube-scheduler", "kube-proxy"} // others are the distribution's, or a CNI's
	var found []cluster.Listener
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 7 || !strings.Contains(fields[6], `"`) {
			continue
		}
		program := strings.Split(fields[6], `"`)[1]
		if !slices.Contains(programs, program) {
			continue
		}
		addr, err := netip.ParseAddrPort(strings.Replace(fields[4], "*:", "0.0.0.0:", 1))
		if err != nil {
			return err
		}
		where := "at " + addr.Addr().String()
		switch {
		case addr.Addr().IsLoopback():
			where = cluster.AtLoopback
		case addr.Addr().IsUnspecified():
			where = cluster.AtEvery
		case addr.Addr() == private:
			where = cluster.AtPrivate
		}
		l := cluster.Listener{PortRange: cluster.PortRange{First: addr.Port(), Last: addr.Port()}, Protocol: fields[0], At: where, Program: program}
		if !foretold(ports, l) {
			return fmt.Errorf("%s listens at %s (%s), which no plan foretells", program, fields[4], fields[0])
		}
		found = append(found, l)
	}
	for _, l := range ports.Listeners() {
		if l.PortRange == cluster.NodePorts || l.ControlPlanes && !controlPlane {
			continue
		}
		if !slices.ContainsFunc(found, func(f cluster.Listener) bool {
			return l.First <= f.First && f.First <= l.Last && f.Protocol == l.Protocol && f.At == l.At
		}) {
			return fmt.Errorf("nothing listens at %s port %d, where the plan has %s", l.At, l.First, l.Program)
		}
	}
	return nil
}

// foretold says that a socket is one of the plan's. etcd is on loopback besides.
func foretold(ports cluster.Ports, found cluster.Listener) bool {
	return slices.ContainsFunc(ports.Listeners(), func(l cluster.Listener) bool {
		return l.First <= found.First && found.First <= l.Last && l.Protocol == found.Protocol &&
			(l.At == found.At || l.Program == "etcd" && found.At == cluster.AtLoopback)
	})
}
