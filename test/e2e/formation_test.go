package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/machine"
)

// formation is one cluster under test.
type formation struct {
	t       *testing.T // of the part that runs now
	ctx     context.Context
	rig     *rig.Rig
	servers []*rig.Server // cp1, cp2, …, w1, w2, …
	decided bool          // the times of GO were told
}

// shape is what form makes.
type shape struct {
	controlPlanes, workers int
	// discovery is how many servers spec.discovery lists; 0: as the rig does.
	discovery int
	// ways are elements of spec.discovery in place of that list, in YAML.
	ways string
	// apiToken is that of discovery by packetAPI, if there is one.
	apiToken string
	// fetch has the servers fetch the agent by muster-fetch; else it is baked into
	// their image.
	fetch bool
	// public gives every server a public address.
	public bool
	stack  rig.Stack
	// platform and platforms are as in rig.Cluster.
	platform  string
	platforms []string
	// replaceAfter is spec.servers.replace.after.
	replaceAfter string
	// addons is spec.addons, in YAML's flow style.
	addons string
	// electors is how many servers vote, cp1 first; 0: all.
	electors int
}

func (s shape) String() string {
	text := fmt.Sprintf("%d+%d", s.controlPlanes, s.workers)
	if s.fetch {
		text += " fetching the agent"
	}
	if s.stack != rig.IPv4 {
		text += " " + string(s.stack)
	}
	return text
}

// form makes the servers, switched off, with the same rendered user-data.
func form(t *testing.T, s shape) *formation {
	t.Helper()
	image := testImage(t)
	spec := rig.Cluster{Servers: s.controlPlanes + s.workers, ControlPlanes: s.controlPlanes, Public: s.public, Stack: s.stack, Ways: s.ways, Platform: s.platform, Platforms: s.platforms, Addons: s.addons, ReplaceAfter: s.replaceAfter, Electors: s.electors}
	for i := range s.discovery {
		spec.Discovery = append(spec.Discovery, rig.ServerAddr(i+1))
	}
	agent := binary(t, "bootstrap")
	if s.fetch {
		image.Lower = image.Lower[1:] // the topmost layer is what bootstrap bake laid in
		data, err := os.ReadFile(agent)
		if err != nil {
			t.Fatal(err)
		}
		spec.AgentSHA256 = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	c := begin(t, image)
	if s.fetch {
		c.must(os.Link(agent, filepath.Join(c.rig.Files(), "bootstrap")))
	}
	if s.apiToken != "" {
		c.must(os.WriteFile(filepath.Join(c.rig.Dir(), "rig.api-token"), []byte(s.apiToken+"\n"), 0o600))
	}
	var err error
	c.servers, err = c.rig.AddCluster(c.ctx, binary(t, "userdata"), spec)
	c.must(err)
	return c
}

// begin makes a rig without servers.
func begin(t *testing.T, image rig.Image) *formation {
	t.Helper()
	limit := 25 * time.Minute
	if end, ok := t.Deadline(); ok { // what go test kills leaves its servers behind
		const clearing = 20 * time.Second
		limit = min(limit, time.Until(end)-clearing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	dir := filepath.Join(t.TempDir(), "rig")
	r, err := rig.New(ctx, rig.Options{Name: fmt.Sprintf("e2e%d", os.Getpid()), Dir: dir, Image: image})
	if err != nil {
		t.Fatal(err)
	}
	c := &formation{t: t, ctx: ctx, rig: r}
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
		}
		if err := rig.Destroy(context.WithoutCancel(ctx), dir, nil); err != nil {
			t.Error(err)
		}
	})
	return c
}

// testImage is what the servers boot; make e2e built it.
func testImage(t *testing.T) rig.Image {
	t.Helper()
	if os.Getenv("MUSTER_E2E") == "" {
		t.Skip("MUSTER_E2E is not set: make e2e runs the tests with real servers")
	}
	var image rig.Image
	data, err := os.ReadFile(os.Getenv("MUSTER_IMAGE"))
	if err == nil {
		err = json.Unmarshal(data, &image)
	}
	if err != nil {
		t.Fatalf("MUSTER_IMAGE must name the file that make e2e writes: %v", err)
	}
	return image
}

// binary is a program of this tree.
func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("make build makes the program: %v", err)
	}
	return path
}

func (c *formation) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// each does something to all servers at once.
func (c *formation) each(do func(context.Context, *rig.Server) error) {
	c.t.Helper()
	all, ctx := errgroup.WithContext(c.ctx)
	for _, s := range c.servers {
		all.Go(func() error { return do(ctx, s) })
	}
	c.must(all.Wait())
}

func (c *formation) bootAll() {
	c.t.Helper()
	c.each(func(ctx context.Context, s *rig.Server) error { return s.Boot(ctx) })
}

// pause waits between two looks.
func (c *formation) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.ctx.Done():
	case <-timer.C:
	}
}

// eventually looks until there is no error, at most for limit.
func (c *formation) eventually(limit time.Duration, what string, look func() error) {
	c.t.Helper()
	if err := c.within(limit, look); err != nil {
		c.t.Fatalf("waited %s for %s: %v", limit, what, err)
	}
}

// within looks until it is as expected, or returns the last error.
func (c *formation) within(limit time.Duration, look func() error) error {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		began := time.Now()
		err := look()
		if err == nil || time.Now().After(deadline) || c.ctx.Err() != nil {
			return err
		}
		c.pause(machine.Rest(time.Since(began), 100*time.Millisecond))
	}
}

// statusList is bootstrap status -o json on one server.
func (c *formation) statusList(s *rig.Server) []member.Status {
	c.t.Helper()
	list, err := readStatus(c.ctx, s)
	c.must(err)
	return list
}

func readStatus(ctx context.Context, s *rig.Server) ([]member.Status, error) {
	out, err := s.Exec(ctx, "bootstrap", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Servers []member.Status }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	return list.Servers, nil
}

// status is what a server says of itself.
func (c *formation) status(s *rig.Server) member.Status {
	c.t.Helper()
	for _, one := range c.statusList(s) {
		if one.Name == s.Name {
			return one
		}
	}
	c.t.Fatalf("status on %s does not list it", s.Name)
	return member.Status{}
}

// awaitReady waits until every server calls itself ready and Kubernetes agrees.
func (c *formation) awaitReady(limit time.Duration) {
	c.t.Helper()
	began := time.Now()
	for _, s := range c.servers {
		c.eventually(limit-time.Since(began), s.Name+" to be ready", func() error {
			list, err := readStatus(c.ctx, s)
			if err != nil {
				return err
			}
			for _, one := range list {
				// Of a former life there is a row without the time of an answer.
				if one.Name == s.Name && one.Phase == member.Ready && !one.Time.IsZero() {
					return nil
				}
			}
			return fmt.Errorf("bootstrap status there says %+v", list)
		})
	}
	c.t.Logf("all %d servers ready after %s", len(c.servers), time.Since(began).Round(100*time.Millisecond))
	if c.decided {
		return
	}
	if d, ok := c.decision(); ok {
		c.decided = true
		c.t.Logf("%s", d)
	}
}

// awaitPhase returns the first server of a role that is in a phase.
func (c *formation) awaitPhase(phase, role string, limit time.Duration) *rig.Server {
	c.t.Helper()
	var found *rig.Server
	c.eventually(limit, "a server in phase "+phase, func() error {
		for _, s := range c.servers {
			list, err := readStatus(c.ctx, s)
			if err != nil {
				continue // not up yet
			}
			for _, one := range list {
				if one.Name == s.Name && string(one.Phase) == phase && string(one.Role) == role {
					found = s
					return nil
				}
			}
		}
		return fmt.Errorf("none is")
	})
	return found
}

// kubectl asks through the Elastic IP, from behind the routers.
func (c *formation) kubectl(args ...string) string {
	c.t.Helper()
	var out string
	c.eventually(time.Minute, "kubectl "+strings.Join(args, " "), func() (err error) {
		out, err = c.rig.Kubectl(c.ctx, args...)
		return err
	})
	return out
}

func (c *formation) execJSON(t *testing.T, s *rig.Server, into any, argv ...string) {
	t.Helper()
	out, err := s.Exec(c.ctx, argv...)
	if err == nil {
		err = json.Unmarshal([]byte(out), into)
	}
	if err != nil {
		t.Fatalf("%s on %s: %v", strings.Join(argv, " "), s.Name, err)
	}
}

// explain shows what a person would look at after a failure.
func (c *formation) explain(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Minute)
	defer cancel()
	for _, s := range c.rig.Servers() {
		if !s.Running() {
			t.Logf("%s is off", s.Name)
			continue
		}
		for _, argv := range [][]string{
			{"bootstrap", "status"},
			{"systemctl", "--no-pager", "--failed"},
			{"kubectl", "--request-timeout=5s", "get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"},
			{"journalctl", "--no-pager", "-o", "cat", "-n", "60", "-u", "muster", "-u", "muster-fetch", "-u", "kubeadm-init", "-u", "kubeadm-join", "-u", "muster-directory", "-u", "muster-announce"},
		} {
			out, err := s.Exec(ctx, argv...)
			t.Logf("%s: %s (%v)\n%s", s.Name, strings.Join(argv, " "), err, out)
		}
	}
}
