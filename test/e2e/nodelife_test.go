package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// TestNodeLife: reboots, leaves and comes back, while kubectl asks through the Elastic IP.
func TestNodeLife(t *testing.T) {
	c := lives(t, shape{controlPlanes: 3, workers: 1})
	t.Run("a reboot", func(t *testing.T) { testReboot(t, c) })
	t.Run("a leave is refused", func(t *testing.T) { testLeaveRefused(t, c) })
	t.Run("a worker leaves", func(t *testing.T) { testLeaves(t, c, c.named("w1")) })
	t.Run("the first control plane leaves", func(t *testing.T) { testLeaves(t, c, c.first()) })
}

// TestReinstalled: the first control plane is wiped and replaced by an operator, then once
// more by itself; a worker joins while it is gone for good.
func TestReinstalled(t *testing.T) {
	c := lives(t, shape{controlPlanes: 3, workers: 1, replaceAfter: "2m"})
	first := c.first()
	other := c.others(first)[0]
	t.Run("the first, by an operator", func(t *testing.T) { testReplaceByHand(t, c, first, other) })
	t.Run("and again, by itself", func(t *testing.T) { testReplaceByItself(t, c, first) })
}

// lives forms a cluster for what takes long.
func lives(t *testing.T, s shape) *formation {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("it takes minutes: make e2e ALL=1 runs this")
	}
	c := form(t, s)
	c.bootAll()
	c.awaitReady(6 * time.Minute)
	return c
}

func (c *formation) named(name string) *rig.Server {
	c.t.Helper()
	s, err := c.rig.Server(name)
	c.must(err)
	return s
}

// first is the server that made the cluster.
func (c *formation) first() *rig.Server {
	c.t.Helper()
	return c.named(c.status(c.servers[0]).Decree.LeaderName)
}

// others are the control planes without one of them.
func (c *formation) others(s *rig.Server) []*rig.Server {
	return slices.DeleteFunc(slices.Clone(c.servers), func(o *rig.Server) bool { return o.Name == s.Name || o.Name[0] != 'c' })
}

// gone goes on without a server: kubectl and the looks at etcd ask others.
func (c *formation) gone(s *rig.Server) {
	c.servers = slices.DeleteFunc(c.servers, func(o *rig.Server) bool { return o.Name == s.Name })
	c.rig.AdminOf(c.servers[0])
}

// told logs what a client saw, and demands that no more failed than may.
func (k *client) told(t *testing.T, what string, mayFail int) {
	t.Helper()
	k.stop()
	t.Logf("%s: %d requests, %d failed, at most %s from one answer to the next", what, k.asked, len(k.failed), k.longest.Round(10*time.Millisecond))
	for _, f := range k.failed {
		t.Log(f)
	}
	if len(k.failed) > mayFail || k.asked == 0 {
		t.Errorf("%d of %d requests failed, at most %d may", len(k.failed), k.asked, mayFail)
	}
}

// testReboot reboots a control plane that was cordoned. It withdraws before its API
// server ends, so that a client that comes anew for each request notices nothing.
func testReboot(t *testing.T, c *formation) {
	c.t = t
	s := c.others(c.first())[0]
	scopes, err := s.Exec(c.ctx, "sh", "-c", "systemctl show -p Before $(systemctl list-units --plain --no-legend 'cri-containerd-*.scope' | awk '{print $1}')")
	c.must(err)
	if n := strings.Count(scopes, "Before="); n < 5 || strings.Count(scopes, "muster-announce.service") != n {
		t.Errorf("%d scopes of containers on %s, each should end after the speaker:\n%s", n, s.Name, scopes)
	}
	planes := append(c.others(s), s)
	c.rig.AdminOf(c.others(s)[0])
	c.kubectl("cordon", s.Name)
	k := c.ask()
	defer k.stop()
	began := time.Now()
	c.must(s.Reboot(c.ctx))
	t.Logf("%s is back after %s", s.Name, time.Since(began).Round(100*time.Millisecond))
	c.awaitHops(3*time.Minute, s.Name+" to announce again", planes...)
	k.told(t, "a reboot of "+s.Name, 1)
	c.eventually(2*time.Minute, s.Name+" to be ready and cordoned", func() error {
		if st := c.status(s); st.Phase != member.Ready || !st.Cordoned {
			return fmt.Errorf("phase %s, cordoned %t", st.Phase, st.Cordoned)
		}
		return nil
	})
	c.kubectl("uncordon", s.Name)
}

// testLeaveRefused: with one of three off, another is not to be spared.
func testLeaveRefused(t *testing.T, c *formation) {
	c.t = t
	two := c.others(c.first())
	off, s := two[0], two[1]
	c.rig.AdminOf(s)
	c.must(off.PowerLoss(c.ctx))
	c.eventually(time.Minute, "a refusal that names "+off.Name, func() error {
		out, err := s.Exec(c.ctx, "bootstrap", "leave", "--yes", "--no-drain")
		if exitCode(err) != 77 || !strings.Contains(fmt.Sprint(err), "start first: "+off.Name) {
			return fmt.Errorf("exit code %d, %v: %s", exitCode(err), err, out)
		}
		t.Logf("refused: %v", err)
		return nil
	})
	c.must(off.Boot(c.ctx))
	c.awaitReady(3 * time.Minute)
	testEtcd(t, c, 3)
}

// testLeaves has a server leave, looks at those that stay, and brings it back as a
// new one.
func testLeaves(t *testing.T, c *formation, s *rig.Server) {
	c.t = t
	inst := c.status(s).Inst
	plan, err := s.Exec(c.ctx, "bootstrap", "leave")
	c.must(err)
	t.Logf("the plan:\n%s", plan)
	c.gone(s)
	defer func() { c.rig.AdminOf(c.servers[0]) }()
	k := c.ask()
	defer k.stop()
	began := time.Now()
	var out string
	c.eventually(time.Minute, s.Name+" to leave", func() error { // refused while an etcd does not answer in time
		out, err = s.Exec(c.ctx, "bootstrap", "leave", "--yes", "--drain-timeout", "2m")
		return err
	})
	t.Logf("%s left in %s:\n%s", s.Name, time.Since(began).Round(100*time.Millisecond), out)
	plane := s.Name[0] == 'c'
	if plane {
		c.awaitHops(5*time.Second, "the route of "+s.Name+" to be gone", c.others(s)...)
		testEtcd(t, c, 2)
	}
	testNodes(t, c)
	stays := c.others(s)[0]
	c.eventually(30*time.Second, "gossip to have told "+stays.Name, func() error {
		list, err := readStatus(c.ctx, stays)
		for _, one := range list {
			if one.Inst == inst || one.Name == s.Name {
				err = errors.Join(err, fmt.Errorf("it still lists %+v", one))
			}
		}
		return err
	})
	c.must(s.Reboot(c.ctx))
	c.eventually(time.Minute, s.Name+" to stay out", func() error {
		list, err := readStatus(c.ctx, s)
		if err == nil && (len(list) != 1 || list[0].Phase != member.Left) {
			err = fmt.Errorf("status there says %+v", list)
		}
		return err
	})
	if out, err := s.Exec(c.ctx, "systemctl", "is-active", "kubelet"); err == nil {
		t.Errorf("the kubelet of %s is %s", s.Name, out)
	}
	_, err = s.Exec(c.ctx, "bootstrap", "reset", "--yes")
	c.must(err)
	c.must(s.Reboot(c.ctx))
	c.servers = append(c.servers, s)
	c.awaitReady(4 * time.Minute)
	k.told(t, s.Name+" left and came back", 2)
	if st := c.status(s); st.Inst == inst || (st.Role == member.ControlPlane) != plane {
		t.Errorf("it came back as %+v", st.Member)
	}
	testNodes(t, c)
	testEtcd(t, c, 3)
}

// testReplaceByHand wipes the first control plane. A worker joins meanwhile.
func testReplaceByHand(t *testing.T, c *formation, first, operator *rig.Server) {
	c.t = t
	c.must(first.PowerLoss(c.ctx))
	c.gone(first)
	k := c.ask()
	defer k.stop()
	worker := addWorker(c, "w2")
	c.must(worker.Boot(c.ctx))
	c.servers = append(c.servers, worker)
	c.eventually(3*time.Minute, worker.Name+" to join while "+first.Name+" is gone", func() error { return readyNode(c, worker.Name) })
	began := time.Now()
	c.eventually(2*time.Minute, "bootstrap replace "+first.Name, func() error {
		_, err := operator.Exec(c.ctx, "bootstrap", "replace", first.Name, "--yes")
		return err
	})
	c.must(first.Reinstall())
	c.must(first.Boot(c.ctx))
	c.servers = append(c.servers, first)
	c.awaitReady(4 * time.Minute)
	t.Logf("%s, replaced by an operator, is ready %s after the order", first.Name, time.Since(began).Round(100*time.Millisecond))
	k.told(t, "the first control plane gone and replaced", 10)
	testEtcd(t, c, 3)
	testNodes(t, c)
}

// testReplaceByItself wipes a control plane, and nobody does anything.
func testReplaceByItself(t *testing.T, c *formation, s *rig.Server) {
	c.t = t
	old := c.status(s).Inst
	c.must(s.PowerLoss(c.ctx))
	off := time.Now()
	c.gone(s)
	k := c.ask()
	defer k.stop()
	c.must(s.Reinstall())
	c.must(s.Boot(c.ctx))
	c.eventually(time.Minute, s.Name+" to say what it waits for", func() error {
		list, err := readStatus(c.ctx, s) // it has no socket yet
		says := func(one member.Status) bool {
			return strings.Contains(one.Problem, "gets that place by itself when the former life (instance "+old)
		}
		if err == nil && !slices.ContainsFunc(list, says) {
			err = fmt.Errorf("status there says %+v", list)
		}
		return err
	})
	c.servers = append(c.servers, s)
	c.awaitReady(5 * time.Minute)
	t.Logf("%s, wiped, is ready by itself %s after it went off", s.Name, time.Since(off).Round(100*time.Millisecond))
	k.told(t, s.Name+" gone and replaced by itself", 10)
	if list := c.statusList(s); slices.ContainsFunc(list, func(one member.Status) bool { return one.Inst == old }) {
		t.Errorf("its former life is still there: %+v", list)
	}
	testEtcd(t, c, 3)
	testNodes(t, c)
	inits, err := s.Journal(c.ctx, layout.UnitKubeadmInit)
	c.must(err)
	if strings.Contains(inits, "Using Kubernetes version") {
		t.Errorf("%s ran kubeadm init after it was wiped:\n%s", s.Name, inits)
	}
}
