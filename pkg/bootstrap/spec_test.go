package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// versioned is a ConfigMap with its version.
type versioned struct {
	data    map[string]string
	version int
}

func (f fakeDirectory) Spec(_ context.Context, known int64) (*member.Spec, error) {
	w, end, err := f.open()
	defer end()
	if err != nil || w.book.spec == nil {
		return nil, err
	}
	s := *w.book.spec
	if int64(s.Revision) == known {
		s.Text = ""
	}
	return &s, nil
}

func (f fakeDirectory) WriteSpec(_ context.Context, spec member.Spec, expected uint64) error {
	w, end, err := f.open()
	defer end()
	if err == nil && (w.book.spec == nil || w.book.spec.Revision != expected) {
		err = fmt.Errorf("somebody else was faster: %w", agent.ErrRefused)
	}
	if err == nil {
		w.book.spec = &spec
	}
	return err
}

func (f fakeDirectory) RestoreSpec(_ context.Context, spec member.Spec) error {
	w, end, err := f.open()
	defer end()
	if err == nil && (w.book.spec == nil || w.book.spec.Revision < spec.Revision) {
		w.book.spec = &spec
	}
	return err
}

func (f fakeAuthority) ConfigMap(ctx context.Context, name string) (map[string]string, string, error) {
	if err := f.s.Healthy(ctx); err != nil {
		return nil, "", err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	m, found := w.book.configMaps[name]
	if !found {
		return nil, "", nil
	}
	return m.data, strconv.Itoa(m.version), nil
}

func (f fakeAuthority) WriteConfigMap(ctx context.Context, name string, data map[string]string, version string) (string, error) {
	_, now, err := f.ConfigMap(ctx, name)
	if err != nil || now != version {
		return "", err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.book.configMaps == nil {
		w.book.configMaps = map[string]versioned{}
	}
	next := w.book.configMaps[name].version + 1
	w.book.configMaps[name] = versioned{data, next}
	return strconv.Itoa(next), nil
}

// fakeRevisions is one server's disk; own is its cluster file.
type fakeRevisions struct {
	s   *testServer
	own cluster.Cluster
}

func (f fakeRevisions) Running() (member.Spec, error) {
	f.s.world.mu.Lock()
	defer f.s.world.mu.Unlock()
	return f.s.kept, nil
}

func (f fakeRevisions) Check(text string) error {
	_, problems := cluster.ParseSpec("spec", []byte(text), cluster.Beside{})
	return cluster.Err(problems)
}

func (f fakeRevisions) Keep(spec member.Spec) (bool, error) {
	if err := f.Check(spec.Text); err != nil {
		return false, err
	}
	before := f.s.follows(f.own)
	f.s.world.mu.Lock()
	f.s.kept = spec
	f.s.world.mu.Unlock()
	return len(change.Between(before, f.s.follows(f.own))) > 0, nil
}

// follows is the cluster file that an agent of this server runs by.
func (s *testServer) follows(own cluster.Cluster) cluster.Cluster {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if s.kept.Revision == 0 {
		return own
	}
	spec, _ := cluster.ParseSpec("spec", []byte(s.kept.Text), cluster.Beside{})
	return change.Follow(own, spec)
}

// growing is the file of a cluster that forms with one server.
const growing = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: lab}
spec:
  id: 0123456789abcdef0123456789abcdef
  platform: packet
  metadata: {url: "http://10.0.0.254"}
  servers: {expect: 1, controlPlanes: 1, eligible: {hostname: "cp*"}}
  time: {require: sync}
  discovery: [{static: [10.0.0.1]}]
  kubernetes: {version: v1.37.0, endpoint: "203.0.113.10:6443"}
  network: {elasticIPs: [{address: 203.0.113.10/32, on: control-planes}]}
`

// newGrowing is a world with one control plane that has formed, a while ago.
func newGrowing(t *testing.T) *world {
	t.Helper()
	w := newFormed(t)
	pass(time.Minute)
	return w
}

// newFormed is the same in the moment in which it is ready.
func newFormed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 1, 0)
	c, err := parseSpec("growing", growing)
	if err != nil {
		t.Fatal(err)
	}
	w.cluster = c
	w.shelf = &shelf{running: map[string]string{}, last: map[string]Exchange{}, trials: map[string]chan struct{}{}, fetched: map[string]bool{}}
	s := w.named("cp1")
	s.state, _, _ = election.Settle(nil, election.FromSpec(c.Spec), s.state.Hardware, s.inst)
	w.boot("cp1")
	w.formed(2*time.Minute, "cp1")
	return w
}

// apply asks a server for a changed file.
func (w *world) apply(name string, yes bool, expected *uint64, changes ...string) (Revision, error) {
	w.t.Helper()
	text := growing
	for i := 0; i < len(changes); i += 2 {
		changed := strings.Replace(text, changes[i], changes[i+1], 1)
		if changed == text {
			w.t.Fatalf("%q is not in the file", changes[i])
		}
		text = changed
	}
	c, err := parseSpec("changed", text)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := specOf(0, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.named(name).server.Apply(w.t.Context(), yes, s.Text, expected)
}

// TestGrow: a cluster of one becomes one of three, and of five, by an apply and servers with
// joining user-data; workers that are there stay workers, and all run by the new revision.
func TestGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		join := func(names ...string) {
			for _, name := range names {
				w.add(name, len(w.servers))
				w.named(name).joinCA = w.named("cp1").caHash()
				w.boot(name)
				w.formed(10*time.Minute, "cp1", name)
			}
		}
		join("cp2") // one more than K: a worker
		grow := []string{"controlPlanes: 1", "controlPlanes: 3"}
		r, err := w.apply("cp1", false, nil, grow...)
		if err != nil || r.Was != 0 || r.Is != 1 || r.Effect != change.Apply || !strings.Contains(strings.Join(r.Next, " "), "1 of 3 control planes are there: boot 2 servers") {
			t.Fatalf("looked at: %+v, %v", r, err)
		}
		if again, err := w.apply("cp1", true, nil, grow...); err != nil || cmp.Diff(r, again) != "" {
			t.Fatalf("applied: %+v, %v", again, err)
		}
		pass(time.Minute)
		w.formed(time.Minute, "cp1", "cp2")
		join("cp3", "cp4", "cp5")
		pass(time.Minute)
		w.formed(time.Minute, "cp1", "cp2", "cp3", "cp4", "cp5")
		want := map[string]string{"cp1": "control-plane 1", "cp2": "worker 1", "cp3": "control-plane 1", "cp4": "control-plane 1", "cp5": "worker 1"}
		got := map[string]string{}
		for _, s := range w.named("cp2").server.Servers(t.Context()) {
			got[s.Name] = fmt.Sprintf("%s %d", s.Role, s.Spec.Revision)
			if s.Spec.Lag != "" || s.Spec.Newest != 1 {
				t.Errorf("%s: %+v", s.Name, s.Spec)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("roles and revisions (-want +got)\n%s", diff)
		}
		if starts := w.named("cp1").starts; starts != 2 {
			t.Errorf("the agent of cp1 began %d times, expected again for the new revision", starts)
		}
		w.mu.Lock()
		shown := w.book.configMaps[specMap].data
		w.mu.Unlock()
		if shown["revision"] != "1" || !strings.Contains(shown["cluster.yaml"], "controlPlanes: 3") || len(shown) != 2 {
			t.Errorf("in Kubernetes: %v", shown)
		}
		if r, err := w.apply("cp1", true, nil, "controlPlanes: 1", "controlPlanes: 5"); err != nil || r.Is != 2 {
			t.Errorf("from three to five: %+v, %v", r, err)
		}
		pass(time.Minute)
		join("cp6", "cp7", "cp8")
		for name, want := range map[string]member.Role{"cp2": member.Worker, "cp6": member.ControlPlane, "cp7": member.ControlPlane, "cp8": member.Worker} {
			if got := w.status(name); got.Role != want || got.Spec.Revision != 2 {
				t.Errorf("%s is a %s by revision %d, expected a %s", name, got.Role, got.Spec.Revision, want)
			}
		}
	})
}

// TestApplyRightAfterReady: the directory has the spec as soon as the first server is
// ready, not some seconds later.
func TestApplyRightAfterReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFormed(t)
		defer w.shutdown()
		if r, err := w.apply("cp1", false, nil, "controlPlanes: 1", "controlPlanes: 3"); err != nil || r.Was != 0 || r.Is != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestApplyWaitsForATrial: an agent on trial is not started again for a revision: the
// trial counts the starts.
func TestApplyWaitsForATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		cp1 := w.named("cp1")
		trial := func(on bool) {
			w.pin(func(p *shelf) { p.last["cp1"], p.stuck = Exchange{To: "new", UnderWay: on}, true })
		}
		trial(true)
		before := cp1.starts
		if r, err := w.apply("cp1", true, nil, "  network: {", "  network: {firewall: {mode: \"on\"}, "); err != nil || r.Is != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		pass(time.Minute)
		if lag := w.status("cp1").Spec.Lag; cp1.starts != before || lag != "revision 1 of the spec waits for the trial of this server's new agent, minutes at most" {
			t.Errorf("started %d times, expected %d; says %q", cp1.starts, before, lag)
		}
		trial(false)
		pass(30 * time.Second)
		if got := cp1.agent().Cluster.Spec.Network.Firewall.Mode; cp1.starts != before+1 || got != "on" {
			t.Errorf("started %d times, expected %d; the firewall is %q", cp1.starts, before+1, got)
		}
	})
}

// TestApplyIsConditional: nothing to do, somebody else in between, a change that no
// running cluster takes.
func TestApplyIsConditional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		revision := func(n uint64) *uint64 { return &n }
		if r, err := w.apply("cp1", true, nil); err != nil || r.Was != 0 || r.Is != 0 || r.Effect != "" || len(r.Changes) != 0 {
			t.Errorf("nothing differs: %+v, %v", r, err)
		}
		r, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.1", "expect: 1", "expect: 5", "id: 0123", "id: 1123")
		if err != nil || !strings.HasPrefix(r.Refused, "2 of 3 changes cannot be made in a cluster that runs") || r.Is != 0 {
			t.Errorf("refused: %+v, %v", r, err)
		}
		firewall := []string{"  network: {", "  network: {firewall: {mode: \"on\"}, "}
		if _, err := w.apply("cp1", true, revision(0), firewall...); err != nil {
			t.Error(err)
		}
		if _, err := w.apply("cp1", true, revision(0), "v1.37.0", "v1.37.1"); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "revision 0 of the spec was expected, the cluster has 1") {
			t.Errorf("somebody else was faster: %v", err)
		}
		pass(30 * time.Second)
		if got := w.named("cp1").agent().Cluster.Spec.Network.Firewall.Mode; got != "on" {
			t.Errorf("the firewall is %q, expected what was applied", got)
		}
		// What only later servers have starts no agent again.
		before := w.named("cp1").starts
		if r, err := w.apply("cp1", true, revision(1), append(firewall, "v1.37.0", "v1.37.1")...); err != nil || r.Is != 2 || r.Effect != change.Later {
			t.Errorf("%+v, %v", r, err)
		}
		pass(30 * time.Second)
		s := w.status("cp1")
		if s.Spec.Revision != 2 || w.named("cp1").starts != before {
			t.Errorf("%+v after %d starts more", s.Spec, w.named("cp1").starts-before)
		}
	})
}

// TestSpecOutlivesTheDirectory: a directory that is made again gets the revision from
// a server that keeps it, and nothing is applied before.
func TestSpecOutlivesTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		if _, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.1"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		w.mu.Lock()
		applied := *w.book.spec
		w.book.spec = nil
		w.mu.Unlock()
		if _, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.2"); !errors.Is(err, agent.ErrNotReady) {
			t.Errorf("applied to a directory without a spec: %v", err)
		}
		pass(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if diff := cmp.Diff(&applied, w.book.spec); diff != "" {
			t.Errorf("brought back (-want +got)\n%s", diff)
		}
	})
}

// TestLagIsExplained: a server that cannot run by the newest revision says why.
func TestLagIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		w.mu.Lock()
		w.book.spec = &member.Spec{Revision: 4, ControlPlanes: 1, Text: "kind: Another"}
		w.mu.Unlock()
		pass(time.Minute)
		for _, s := range w.named("cp1").server.Servers(t.Context()) {
			if s.Spec.Revision != 0 || s.Spec.Newest != 4 || !strings.HasPrefix(s.Spec.Lag, "revision 4 of the spec cannot be run by here: ") {
				t.Errorf("%+v", s.Spec)
			}
		}
	})
}
