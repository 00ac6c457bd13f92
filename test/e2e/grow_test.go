package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// TestGrow: a cluster of one server becomes one of three control planes and two workers,
// by `bootstrap apply` and joining user-data of the same file. kubectl goes on through
// the Elastic IP all the time, and the agents' restarts move no route.
func TestGrow(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("forms a cluster and lets four servers join: make e2e ALL=1")
	}
	c := form(t, shape{controlPlanes: 1})
	c.bootAll()
	c.awaitReady(4 * time.Minute)
	first := c.servers[0]
	c.awaitHops(time.Minute, first.Name+" to announce", first)
	k := c.ask()
	defer k.stop()

	path := filepath.Join(c.rig.Dir(), "cluster.yaml")
	founding, err := os.ReadFile(path)
	c.must(err)
	grown := replaced(t, string(founding), "controlPlanes: 1", "controlPlanes: 3")
	listed := replaced(t, grown, "\n  kubernetes:", "\n  addons: [{name: grown, inline: \"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: grown, namespace: default}\\n\"}]\n  kubernetes:")
	// The first control plane writes the spec into the directory a few seconds later.
	c.eventually(time.Minute, "the directory to have the spec", func() error {
		_, err := c.tryApply(first, founding)
		return err
	})
	if r := c.apply(first, founding); r.Effect != "" || r.Done {
		t.Errorf("the file that it formed with: %+v", r)
	}
	if r := c.apply(first, []byte(listed)); r.Was != 0 || r.Is != 1 || r.Done || len(r.Next) != 1 || !strings.Contains(r.Next[0], "1 of 3 control planes are there: boot 2 servers") {
		t.Errorf("looked at: %+v", r)
	}
	applied := time.Now()
	if r := c.apply(first, []byte(listed), "--revision", "0", "--yes"); r.Is != 1 || !r.Done {
		t.Fatalf("applied: %+v", r)
	}
	c.awaitRevision(time.Minute, 1)
	t.Logf("%s runs by revision 1 after %s", first.Name, time.Since(applied).Round(100*time.Millisecond))
	c.eventually(time.Minute, "the add-on of revision 1", func() error { return c.has("configmap/grown", true) })
	c.awaitHops(time.Second, "the route as before", first)

	began := time.Now()
	c.join(listed, "cp2", "cp3", "w1", "w2")
	c.awaitReady(6 * time.Minute)
	t.Logf("1+0 became 3+2 in %s from the first power-on", time.Since(began).Round(100*time.Millisecond))
	testNodes(t, c)
	testEtcd(t, c, 3)
	testNextHops(t, c, 3)
	testOneInit(t, c)
	c.awaitRevision(time.Minute, 1)

	// The add-ons' list without the one that was, for all of them.
	if r := c.apply(c.servers[1], []byte(grown), "--yes"); r.Was != 1 || r.Is != 2 || !r.Done {
		t.Errorf("applied on another control plane: %+v", r)
	}
	c.awaitRevision(time.Minute, 2)
	c.eventually(time.Minute, "the add-on to go", func() error { return c.has("configmap/grown", false) })
	c.awaitReady(time.Minute)
	testNextHops(t, c, 3)

	k.stop()
	t.Logf("%d requests meanwhile, %d failed, at most %s from one answer to the next", k.asked, len(k.failed), k.longest.Round(10*time.Millisecond))
	for _, f := range k.failed {
		t.Log(f)
	}
	// While etcd goes from one member to two it elects, and what was asked waits.
	if limit := 10 * time.Second; k.longest > limit {
		t.Errorf("no answer for %s, expected at most %s", k.longest, limit)
	}
	t.Run("and shrinks", func(t *testing.T) { testShrinks(t, c, replaced(t, grown, "controlPlanes: 3", "controlPlanes: 1")) })
}

// testShrinks applies a file with one control plane: the other two leave by themselves,
// the last by name first, and kubectl goes on through the Elastic IP.
func testShrinks(t *testing.T, c *formation, file string) {
	c.t = t
	first, last, middle := c.servers[0], c.named("cp3"), c.named("cp2")
	if r := c.apply(first, []byte(file)); len(r.Next) == 0 || !strings.Contains(r.Next[0], "one after the other leave: cp3, cp2.") {
		t.Errorf("looked at: %+v", r)
	}
	k := c.ask()
	defer k.stop()
	began := time.Now()
	if r := c.apply(first, []byte(file), "--yes"); r.Is != 3 || !r.Done {
		t.Fatalf("applied: %+v", r)
	}
	for _, s := range []*rig.Server{last, middle} {
		c.eventually(4*time.Minute, s.Name+" to have left", func() error {
			list, err := readStatus(c.ctx, s)
			if err == nil && (len(list) != 1 || list[0].Phase != member.Left) {
				err = fmt.Errorf("status there says %+v", list)
			}
			return err
		})
		t.Logf("%s has left %s after the apply", s.Name, time.Since(began).Round(100*time.Millisecond))
		c.gone(s)
		if s == last && c.status(middle).Phase == member.Left {
			t.Errorf("%s left before %s", middle.Name, last.Name)
		}
	}
	c.awaitHops(5*time.Second, "the routes of those that left to be gone", first)
	testEtcd(t, c, 1)
	testNodes(t, c)
	c.awaitReady(time.Minute)
	k.told(t, "from three control planes to one", 2)
}

func replaced(t *testing.T, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("the cluster file lacks %q", old)
	}
	return strings.Replace(text, old, with, 1)
}

// revision is what bootstrap apply -o json prints.
type revision struct {
	Was, Is uint64
	Effect  string
	Next    []string
	Done    bool
}

// apply gives a control plane a cluster file.
func (c *formation) apply(s *rig.Server, file []byte, flags ...string) revision {
	c.t.Helper()
	r, err := c.tryApply(s, file, flags...)
	c.must(err)
	return r
}

func (c *formation) tryApply(s *rig.Server, file []byte, flags ...string) (r revision, err error) {
	argv, err := s.Command(append([]string{"bootstrap", "apply", "-f", "-", "-o", "json"}, flags...))
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(c.ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(string(file))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		err = fmt.Errorf("bootstrap apply on %s: %w: %s", s.Name, err, said.String())
	}
	return r, err
}

// awaitRevision waits until every server runs by a revision of the spec.
func (c *formation) awaitRevision(limit time.Duration, want uint64) {
	c.t.Helper()
	for _, s := range c.servers {
		c.eventually(limit, fmt.Sprintf("%s to run by revision %d", s.Name, want), func() error {
			list, err := readStatus(c.ctx, s)
			if err != nil {
				return err
			}
			for _, one := range list {
				if one.Name == s.Name && one.Spec.Revision == want && one.Phase == member.Ready {
					return nil
				}
			}
			return fmt.Errorf("bootstrap status there says %+v", list)
		})
	}
}

// has says when an object of the namespace default is not there as expected.
func (c *formation) has(object string, want bool) error {
	out, err := c.rig.Kubectl(c.ctx, "get", "--ignore-not-found", "-o", "name", object)
	if err == nil && (strings.TrimSpace(out) != "") != want {
		err = fmt.Errorf("kubectl get %s says %q", object, out)
	}
	return err
}

// join boots servers with joining user-data of a file.
func (c *formation) join(file string, names ...string) {
	c.t.Helper()
	data, err := c.rig.Render(c.ctx, binary(c.t, "userdata"), []byte(file), "--join", "--ca", c.status(c.servers[0]).Decree.CAHash)
	c.must(err)
	for _, name := range names {
		role := "worker"
		if strings.HasPrefix(name, "cp") {
			role = "control-plane"
		}
		s, err := c.rig.Add(rig.ServerOptions{Name: name, Tags: []string{"muster-role=" + role}, UserData: data})
		c.must(err)
		c.must(s.Boot(c.ctx))
		c.servers = append(c.servers, s)
	}
}
