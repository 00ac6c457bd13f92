package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
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

var elasticIP = netip.PrefixFrom(rig.ElasticIP, 32)

// awaitHops waits until exactly these servers are the next hops of the Elastic IP.
func (c *formation) awaitHops(limit time.Duration, what string, servers ...*rig.Server) time.Duration {
	c.t.Helper()
	began := time.Now()
	var want []netip.Addr
	for _, s := range servers {
		want = append(want, s.Addr)
	}
	slices.SortFunc(want, netip.Addr.Compare)
	c.eventually(limit, what, func() error {
		hops, err := c.rig.ToR().NextHops(c.ctx, elasticIP)
		if err == nil && !slices.Equal(hops, want) {
			err = fmt.Errorf("next hops are %v, expected %v", hops, want)
		}
		return err
	})
	return time.Since(began)
}

// testBesideDead kills the API server of the first control plane for good, which is
// withdrawn within the budget of 3 s. The last of the five servers, a control plane,
// boots and joins meanwhile; its discovery and its endpoint lead it to the one that
// lives, and never to itself.
func testBesideDead(t *testing.T, c *formation) {
	c.t = t
	all := c.rig.Servers()
	dead, alive, joiner := all[0], all[1], all[2]
	const manifest, aside = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-apiserver.yaml"
	pid, err := dead.Exec(c.ctx, "pgrep", "-x", "kube-apiserver")
	c.must(err)
	_, err = dead.Exec(c.ctx, "mv", manifest, aside)
	c.must(err)
	_, err = dead.Exec(c.ctx, "kill", "-KILL", strings.TrimSpace(pid))
	c.must(err)
	took := c.awaitHops(10*time.Second, "the route of "+dead.Name+" to go", alive)
	t.Logf("API server of %s killed: route gone after %s", dead.Name, took.Round(10*time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("the route went after %s, the budget is 3 s", took)
	}
	c.kubectl("get", "--raw", "/readyz") // through the other

	c.must(joiner.Boot(c.ctx))
	watching := watchEndpoint(c, joiner)
	c.eventually(4*time.Minute, joiner.Name+" to be ready", func() error {
		list, err := readStatus(c.ctx, joiner)
		if err != nil {
			return err
		}
		for _, one := range list {
			if one.Name == joiner.Name && one.Phase == member.Ready && one.Role == member.ControlPlane {
				return nil
			}
		}
		return fmt.Errorf("bootstrap status there says %+v", list)
	})
	c.awaitHops(time.Minute, joiner.Name+" to announce", alive, joiner)
	if out, err := dead.Exec(c.ctx, "pgrep", "-x", "kube-apiserver"); err == nil {
		t.Errorf("the API server of %s runs (%s): %s did not join beside a dead one", dead.Name, out, joiner.Name)
	}
	neverItself(c, joiner, watching())

	_, err = dead.Exec(c.ctx, "mv", aside, manifest)
	c.must(err)
	c.servers = all
	c.awaitHops(3*time.Minute, "the route of "+dead.Name+" to come back", all[:3]...)
	c.awaitReady(time.Minute)
	for _, s := range c.servers {
		if list := c.statusList(s); len(list) != len(all) {
			t.Errorf("all are here, status on %s lists %+v", s.Name, list)
		}
	}
}

// connection is one to the endpoint, as a server saw it at some time.
type connection struct {
	at    time.Time
	local netip.AddrPort
}

// watchEndpoint notes the connections that a server makes to the Elastic IP, ten times
// a second; the returned function ends it.
func watchEndpoint(c *formation, s *rig.Server) func() []connection {
	c.t.Helper()
	const enough = "/run/watched"
	argv, err := s.Command([]string{"sh", "-c", "while [ ! -e " + enough + " ]; do ss -Htn state all dst " + rig.ElasticIP.String() +
		" | while read -r _ _ _ local _; do echo $(date +%s%N) $local; done; sleep 0.1; done"})
	c.must(err)
	cmd := exec.CommandContext(c.ctx, argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	c.must(err)
	c.must(cmd.Start())
	var seen []connection
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var nanos int64
			var local string
			if _, err := fmt.Sscan(lines.Text(), &nanos, &local); err != nil {
				c.t.Errorf("a line of the watch on %s: %q: %v", s.Name, lines.Text(), err)
				continue
			}
			if a, err := netip.ParseAddrPort(local); err == nil {
				seen = append(seen, connection{time.Unix(0, nanos), a})
			}
		}
	}()
	return func() []connection {
		_, err := s.Exec(c.ctx, "touch", enough)
		c.must(err)
		<-done
		c.must(cmd.Wait())
		return seen
	}
}

// neverItself: the Elastic IP came on lo after the server's own API server was healthy,
// and what it sent to the endpoint before went out to another.
func neverItself(c *formation, s *rig.Server, seen []connection) {
	c.t.Helper()
	var healthy, added time.Time
	for _, l := range c.lines(s) {
		if healthy.IsZero() && l.text == `"API server" healthy=true` {
			healthy = l.at
		}
		if added.IsZero() && strings.HasPrefix(l.text, `"address added to lo" address=`+elasticIP.String()) {
			added = l.at
		}
	}
	if healthy.IsZero() || added.IsZero() || added.Before(healthy) {
		c.t.Errorf("%s: API server healthy at %v, Elastic IP on lo at %v, expected after that", s.Name, healthy, added)
	}
	before := map[netip.AddrPort]bool{}
	for _, one := range seen {
		if !one.at.Before(added) {
			continue
		}
		before[one.local] = true
		if one.local.Addr() != s.Addr && one.local.Addr() != s.Public {
			c.t.Errorf("%s: connection to the endpoint from %s before its API server was healthy", s.Name, one.local)
		}
	}
	if len(before) == 0 {
		c.t.Errorf("%s made no connection to the endpoint while it joined: nothing was looked at", s.Name)
	}
	c.t.Logf("%s made %d connections to the endpoint while it joined, none to itself", s.Name, len(before))
}

// testSpread opens many connections through the routers and tells by the certificate
// that serves each who answered.
func testSpread(t *testing.T, c *formation) {
	c.t = t
	const connections = 60 // that one of three gets none by chance: 1 in 10^10
	names := map[[sha256.Size]byte]string{}
	for _, s := range c.servers[:3] {
		data, err := s.ReadFile(c.ctx, layout.KubernetesPKI+"/apiserver.crt")
		c.must(err)
		block, _ := pem.Decode(data)
		names[sha256.Sum256(block.Bytes)] = s.Name
	}
	out, err := c.rig.ToR().Exec(c.ctx, "curl", "-sk", "--http1.1", "-H", "Connection: close", "-m", "10", "-o", "/dev/null", "-w", "%{certs}",
		fmt.Sprintf("https://%s:6443/version?[1-%d]", rig.ElasticIP, connections))
	c.must(err)
	served := map[string]int{}
	for rest := []byte(out); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		served[names[sha256.Sum256(block.Bytes)]]++
	}
	t.Logf("%d connections: %v", connections, served)
	sum := 0
	for _, s := range c.servers[:3] {
		if sum += served[s.Name]; served[s.Name] == 0 {
			t.Errorf("%s served none of %d connections", s.Name, connections)
		}
	}
	if sum != connections {
		t.Errorf("the control planes served %d of %d connections: %v", sum, connections, served)
	}
}

// client asks through the Elastic IP, one request after the other, until it is stopped.
type client struct {
	mu      sync.Mutex
	asked   int
	failed  []string
	longest time.Duration // between two answers
	last    time.Time
	stop    func()
}

// ask starts kubectl in the routers' network. Its kubeconfig is a copy: that of the
// server is off with the server.
func (c *formation) ask() *client {
	c.t.Helper()
	conf, err := c.rig.AdminConf()
	c.must(err)
	data, err := os.ReadFile(conf)
	c.must(err)
	copied := filepath.Join(c.rig.Dir(), "client.conf")
	c.must(os.WriteFile(copied, data, 0o600))
	argv, err := c.rig.KubectlCommand("get", "--raw", "/api/v1/namespaces/kube-system", "--kubeconfig="+copied, "--request-timeout=2s")
	c.must(err)
	ctx, cancel := context.WithCancel(c.ctx)
	k := &client{last: time.Now()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
			if ctx.Err() == nil {
				k.note(out, err)
			}
			c.pause(300 * time.Millisecond) // a kubectl is a tenth of a second of processor
		}
	}()
	k.stop = func() { cancel(); <-done }
	return k
}

func (k *client) note(out []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	if err != nil {
		k.failed = append(k.failed, fmt.Sprintf("%s %v: %s", time.Now().Format(time.TimeOnly), err, strings.TrimSpace(string(out))))
		return
	}
	k.longest, k.last = max(k.longest, time.Since(k.last)), time.Now()
}

// answers counts what was answered.
func (k *client) answers() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked - len(k.failed)
}

// testOneAfterTheOther takes the power from one control plane after the other; the
// third is for ALL=1. kubectl goes on through the Elastic IP, and a worker joins while
// the first is off.
func testOneAfterTheOther(t *testing.T, c *formation) {
	c.t = t
	planes := c.servers[:3]
	worker := addWorker(c, "w3")
	k := c.ask()
	defer k.stop()
	victims := planes[:2]
	if os.Getenv("MUSTER_E2E") == "all" {
		victims = planes
	}
	for i, s := range victims {
		others := slices.DeleteFunc(slices.Clone(planes), func(o *rig.Server) bool { return o == s })
		c.must(s.PowerLoss(c.ctx))
		c.awaitHops(15*time.Second, "the route of "+s.Name+", which is off, to go", others...)
		if i == 0 {
			c.must(worker.Boot(c.ctx))
			c.servers = append(c.servers, worker)
			c.eventually(3*time.Minute, worker.Name+" to join while "+s.Name+" is off", func() error { return readyNode(c, worker.Name) })
		}
		seen := k.answers()
		const enough = 10
		c.eventually(time.Minute, "answers while "+s.Name+" is off", func() error {
			if n := k.answers() - seen; n < enough {
				return fmt.Errorf("%d of %d", n, enough)
			}
			return nil
		})
		c.must(s.Boot(c.ctx))
		c.awaitHops(3*time.Minute, s.Name+" to announce again", planes...)
		c.awaitReady(2 * time.Minute)
	}
	k.stop()
	t.Logf("%d control planes off one after the other: %d requests, %d failed, at most %s from one answer to the next", len(victims), k.asked, len(k.failed), k.longest.Round(10*time.Millisecond))
	for _, f := range k.failed {
		t.Log(f)
	}
	// What a router may take to notice a server that fell silent, and a second.
	if limit := 10 * time.Second; k.longest > limit {
		t.Errorf("no answer for %s, expected at most %s", k.longest, limit)
	}
	testNodes(t, c)
	testEtcd(t, c, 3)
	testOneInit(t, c)
}

// addWorker makes a server with joining user-data, switched off.
func addWorker(c *formation, name string) *rig.Server {
	c.t.Helper()
	file, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	data, err := c.rig.Render(c.ctx, binary(c.t, "userdata"), file, "--join", "--ca", c.status(c.servers[0]).Decree.CAHash)
	c.must(err)
	s, err := c.rig.Add(rig.ServerOptions{Name: name, Tags: []string{"muster-role=worker"}, UserData: data, Public: c.servers[0].Public.IsValid()})
	c.must(err)
	return s
}

func readyNode(c *formation, name string) error {
	nodes, err := c.rig.Nodes(c.ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(nodes, func(n rig.Node) bool { return n.Name == name && n.Ready }) {
		return fmt.Errorf("it is not among the ready ones of %+v", nodes)
	}
	return nil
}
