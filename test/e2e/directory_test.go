package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// All copies of the directory are deleted on a formed cluster: one control plane
// makes the next generation from what Kubernetes knows, the others join it, every
// node stays Ready, and a further server can join.
func TestDirectoryIsLost(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "all" {
		t.Skip("the patience with a lost directory is five minutes: make e2e ALL=1 runs this")
	}
	c := form(t, shape{controlPlanes: 3})
	c.bootAll()
	c.awaitReady(6 * time.Minute)
	c.awaitGeneration("0", time.Minute)
	before := c.members()

	c.each(func(ctx context.Context, s *rig.Server) error {
		_, err := s.Exec(ctx, "systemctl", "stop", "muster-directory")
		return err
	})
	c.each(func(ctx context.Context, s *rig.Server) error {
		_, err := s.Exec(ctx, "rm", "-rf", "/var/lib/muster/directory")
		return err
	})
	lost := time.Now()
	c.eventually(5*time.Minute, "status to say that the directory is lost", func() error {
		if st := c.status(c.servers[0]); !strings.Contains(st.Problem, "the directory of this cluster is lost on all control planes") {
			return fmt.Errorf("phase %s, problem %q", st.Phase, st.Problem)
		}
		return nil
	})
	c.awaitGeneration("1", 8*time.Minute)
	t.Logf("generation 1 stands %s after the loss", time.Since(lost).Round(time.Second))
	for _, s := range c.servers {
		c.eventually(2*time.Minute, s.Name+" to hold generation 1", func() error {
			out, err := s.Exec(c.ctx, "cat", "/var/lib/muster/directory/e0-g1/formed.json")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if st := c.status(s); st.Phase != member.Ready || st.Problem != "" {
				return fmt.Errorf("phase %s, problem %q", st.Phase, st.Problem)
			}
			return nil
		})
	}
	if after := c.members(); !slices.Equal(before, after) {
		t.Errorf("members after the loss %q, before it %q", after, before)
	}
	made := 0
	for _, s := range c.servers {
		out, err := s.Exec(c.ctx, "sh", "-c", "ls /var/lib/muster/directory-e0-g1.made 2>/dev/null || true")
		c.must(err)
		if strings.TrimSpace(out) != "" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("generation 1 was made on %d servers, expected one", made)
	}
	testNodes(t, c)
	c.addWorker("w1")
}

// awaitGeneration waits until the Lease says a generation that answers.
func (c *formation) awaitGeneration(want string, limit time.Duration) {
	c.t.Helper()
	c.eventually(limit, "generation "+want+" of the directory in the Lease", func() error {
		got, err := c.rig.Kubectl(c.ctx, "-n", "kube-system", "get", "lease", "muster-directory", "-o",
			`jsonpath={.metadata.annotations.muster\.dev/generation} {.metadata.annotations.muster\.dev/beat}`)
		if err != nil {
			return err
		}
		if generation, beat, _ := strings.Cut(strings.TrimSpace(got), " "); generation != want || beat == "0" {
			return fmt.Errorf("the Lease says generation and renewals %q", got)
		}
		return nil
	})
}

// members are names, roles and instances as status lists them, in order.
func (c *formation) members() []string {
	c.t.Helper()
	var out []string
	for _, one := range c.statusList(c.servers[0]) {
		out = append(out, fmt.Sprintf("%s %s %s", one.Name, one.Role, one.Inst))
	}
	slices.Sort(out)
	return out
}

// addWorker boots one server more with joining user-data.
func (c *formation) addWorker(name string) {
	c.t.Helper()
	file, err := os.ReadFile(filepath.Join(c.rig.Dir(), "cluster.yaml"))
	c.must(err)
	data, err := c.rig.Render(c.ctx, binary(c.t, "userdata"), file, "--join", "--ca", c.status(c.servers[0]).Decree.CAHash)
	c.must(err)
	s, err := c.rig.Add(rig.ServerOptions{Name: name, Tags: []string{"muster-role=worker"}, UserData: data})
	c.must(err)
	c.servers = append(c.servers, s)
	c.must(s.Boot(c.ctx))
	c.awaitReady(4 * time.Minute)
	testNodes(c.t, c)
}
