package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// Another agent is pinned while a cluster runs: the servers exchange theirs one at a
// time, and neither the routers nor Kubernetes notice. A power loss brings the new one
// back. One that does not do is tried by one server, which goes back, and by no other.
func TestAgentIsUpgraded(t *testing.T) {
	c := lives(t, shape{controlPlanes: 3})
	testNextHops(t, c, 3)

	good, err := os.ReadFile(binary(t, "bootstrap"))
	c.must(err)
	good = append(good, "\nanother build of the agent\n"...) // a program with words behind it runs as before
	speakers := c.speakers()
	notices := c.watch()
	sum := c.pinAgent("bootstrap-next", good)
	c.eventually(5*time.Minute, "all servers to run the new agent", func() error { return c.agentsAre(sum, "") })
	c.awaitReady(time.Minute)
	notices.none(t)
	if got := c.speakers(); got != speakers {
		t.Errorf("the speakers were %s and are %s", speakers, got)
	}
	c.agentInPlace(sum)

	victim := c.servers[1]
	c.must(victim.PowerLoss(c.ctx))
	c.must(victim.Boot(c.ctx))
	c.awaitReady(2 * time.Minute)
	c.agentInPlace(sum)
	if err := c.agentsAre(sum, ""); err != nil {
		t.Error(err)
	}
	testNextHops(t, c, 3)

	// It does what units ask of it, and no more.
	speakers, notices = c.speakers(), c.watch()
	bad := c.pinAgent("bootstrap-bad", []byte("#!/bin/sh\n[ \"$1\" = fence ] && exit 0\necho this build is broken >&2\nexit 1\n"))
	c.eventually(3*time.Minute, "one server to go back, and the others to leave it", func() error { return c.agentsAre(sum, bad) })
	c.awaitReady(time.Minute)
	notices.none(t)
	if got := c.speakers(); got != speakers {
		t.Errorf("the speakers were %s and are %s", speakers, got)
	}
	c.agentInPlace(sum)
	tried := 0
	for _, s := range c.servers {
		st := c.status(s)
		t.Logf("%s: %s", s.Name, st.Problem)
		if !strings.Contains(st.Problem, "this build is broken") {
			t.Errorf("%s does not say why: %q", s.Name, st.Problem)
		}
		if st.Agent.State == member.AgentReturned {
			tried++
		}
	}
	if tried != 1 {
		t.Errorf("%d servers tried the bad agent", tried)
	}
	testNodes(t, c)
	testEtcd(t, c, 3)
	testNextHops(t, c, 3)
}

// pinAgent puts an agent where servers fetch it, pins it in the cluster file, applies
// that, and returns its sha256.
func (c *formation) pinAgent(name string, program []byte) string {
	c.t.Helper()
	c.must(os.WriteFile(filepath.Join(c.rig.Files(), name), program, 0o755))
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	founding, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	pin := fmt.Sprintf("\nspec:\n  agent: {urls: [\"%s/files/%s\"], sha256: {amd64: %s}}\n", rig.MetadataURL, name, sum)
	if r := c.apply(c.servers[0], []byte(replaced(c.t, string(founding), "\nspec:\n", pin)), "--yes"); !r.Done {
		c.t.Fatalf("applied: %+v", r)
	}
	return sum
}

// agentsAre says whether every server runs an agent, has nothing of an exchange under
// way, and holds back from another one, if there is one.
func (c *formation) agentsAre(sum, held string) error {
	for _, s := range c.servers {
		list, err := readStatus(c.ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		for _, one := range list {
			a := one.Agent
			done := held == "" && a.State == "" || held != "" && a.Pinned == held && (a.State == member.AgentReturned || a.State == member.AgentHeld)
			if a.SHA256 != sum || !done || one.Phase != member.Ready {
				return fmt.Errorf("%s says of %s: phase %s, agent %+v", s.Name, one.Name, one.Phase, a)
			}
		}
	}
	return nil
}

// agentInPlace checks that what starts at the next boot is what muster-fetch accepts.
// Of what was fetched nothing else is left.
func (c *formation) agentInPlace(sum string) {
	c.t.Helper()
	for _, s := range c.servers {
		out, err := s.Exec(c.ctx, "sh", "-c", "sha256sum "+layout.Local.Agent()+"; cat "+layout.FetchEnv+"; ls "+layout.Agents)
		c.must(err)
		if !strings.HasPrefix(out, sum+" ") || !strings.Contains(out, "MUSTER_SHA256_amd64='"+sum+"'") {
			c.t.Errorf("on %s the agent and its pin are, expected %s:\n%s", s.Name, sum, out)
		}
	}
}

// speakers are the processes of the BGP speakers, API servers and etcds.
func (c *formation) speakers() string {
	c.t.Helper()
	var all []string
	for _, s := range c.servers {
		out, err := s.Exec(c.ctx, "sh", "-c", "systemctl show -P MainPID muster-announce kubelet containerd; pgrep -x kube-apiserver; pgrep -x etcd")
		c.must(err)
		all = append(all, s.Name+" "+strings.Join(strings.Fields(out), " "))
	}
	return strings.Join(all, "; ")
}

// notices are what somebody outside would notice.
type notices struct {
	stop func()
	done chan struct{}

	mu    sync.Mutex
	seen  []string
	looks int
	most  int // servers on trial at once
}

// watch looks at the routers' next hops, the API through the Elastic IP, and how many
// agents are on trial, until none is called.
func (c *formation) watch() *notices {
	c.t.Helper()
	eip := netip.PrefixFrom(rig.ElasticIP, 32)
	before, err := c.rig.ToR().NextHops(c.ctx, eip)
	c.must(err)
	ctx, stop := context.WithCancel(c.ctx)
	n := &notices{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		for ctx.Err() == nil {
			hops, err := c.rig.ToR().NextHops(ctx, eip)
			if err == nil && !slices.Equal(hops, before) {
				err = fmt.Errorf("the next hops were %v and are %v", before, hops)
			}
			if err == nil {
				_, err = c.rig.Kubectl(ctx, "get", "--raw", "/readyz")
			}
			n.note(ctx, err, c.trials(ctx))
			c.pause(200 * time.Millisecond)
		}
	}()
	c.t.Cleanup(func() { stop(); <-n.done })
	return n
}

// trials counts the orders that are under way on the servers' disks.
func (c *formation) trials(ctx context.Context) (n int) {
	for _, s := range c.servers {
		out, err := s.Exec(ctx, "cat", layout.Upgrade)
		if err == nil && !strings.Contains(out, `"stage":"kept"`) && !strings.Contains(out, `"stage":"returned"`) {
			n++
		}
	}
	return n
}

func (n *notices) note(ctx context.Context, err error, trials int) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	n.most = max(n.most, trials)
	if err != nil {
		n.seen = append(n.seen, err.Error())
	}
}

// none ends the watch and complains of what was seen.
func (n *notices) none(t *testing.T) {
	t.Helper()
	n.stop()
	<-n.done
	t.Logf("%d looks at routes and API, at most %d servers on trial at once", n.looks, n.most)
	if len(n.seen) > 0 || n.looks < 10 || n.most > 1 {
		t.Errorf("%d looks, %d on trial at once, expected at most 1; noticed:\n%s", n.looks, n.most, strings.Join(n.seen, "\n"))
	}
}
