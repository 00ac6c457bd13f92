package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// patience is when a cluster that can form must have formed. One takes 5 s; with a fifth
// of all frames lost on a machine at load 50 it took more than two minutes.
const patience = 4 * time.Minute

// shared is the one lab of this process.
var shared struct {
	once sync.Once
	lab  *Lab
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.lab != nil {
		if err := shared.lab.Close(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// trial is one cluster under faults.
type trial struct {
	*Lab
	*testing.T
	ctx    context.Context
	seed   uint64
	random *rand.Rand
	plan   Plan
	data   []byte // user-data
	by     map[string]*Server
	store  metadata.Store // of the metadata service, where the plan has one
	// superseded are instances that an operator gave up.
	superseded []string
	// lawless marks a run outside of what the fence promises: there the verdict must
	// be that it was broken.
	lawless bool
}

// begin makes the servers of a plan with the names, all off, and has the run judged
// at its end, whatever it asserts itself.
func begin(t *testing.T, expect, controlPlanes int, names ...string) *trial {
	t.Helper()
	return beginWith(t, newSeed(t), expect, controlPlanes, names...)
}

func beginWith(t *testing.T, seed uint64, expect, controlPlanes int, names ...string) *trial {
	t.Helper()
	plan, err := NewPlan(expect, controlPlanes, names...)
	if err != nil {
		t.Fatal(err)
	}
	return beginPlan(t, seed, plan)
}

// beginPlan is begin for a plan that was changed.
func beginPlan(t *testing.T, seed uint64, plan Plan) *trial {
	t.Helper()
	l := theLab(t)
	// A run is a minute or less; what is above is for the verdict.
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	r := &trial{Lab: l, T: t, ctx: ctx, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), plan: plan, by: map[string]*Server{}}
	t.Cleanup(r.end)
	t.Logf("seed %d", seed)
	var err error
	if r.data, err = r.plan.Render(); err != nil {
		t.Fatal(err)
	}
	for i, name := range plan.Names {
		r.add(name, i+1, r.data)
	}
	if plan.Metadata != "" {
		r.store = r.metadataStore()
		r.tell(r.store)
	}
	return r
}

// theLab skips where light servers cannot be, or are not asked for.
func theLab(t *testing.T) *Lab {
	t.Helper()
	if os.Getenv("MUSTER_FAULTS") == "" {
		t.Skip("MUSTER_FAULTS is not set: make faults runs the agent under faults")
	}
	if os.Geteuid() != 0 {
		t.Skip("light servers need root")
	}
	shared.once.Do(func() {
		cache, err := images.DefaultCache(os.Getenv("MUSTER_CACHE"))
		if err != nil {
			shared.err = err
			return
		}
		shared.lab, shared.err = New(context.Background(), Options{Cache: cache, Agent: os.Getenv("MUSTER_AGENT"), Seed: newSeed(t), Log: os.Stderr})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.lab
}

// variation skips, in a short run, what another scenario shows in the main.
func variation(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a variation; run without -short")
	}
}

// newSeed is that of MUSTER_FAULTS_SEED, or random.
func newSeed(t *testing.T) uint64 {
	text := os.Getenv("MUSTER_FAULTS_SEED")
	if text == "" {
		return rand.Uint64() >> 16
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("MUSTER_FAULTS_SEED: %v", err)
	}
	return seed
}

func (r *trial) add(name string, index int, data []byte) *Server {
	r.Helper()
	s, err := r.Add(name, index, data)
	if err != nil {
		r.Fatal(err)
	}
	r.by[name] = s
	return s
}

// end judges the ledger, keeps the logs of a failure, and takes the servers away.
func (r *trial) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	lines, err := r.Ledger()
	if err != nil {
		r.Error(err)
	}
	err = Judge(lines, r.superseded...)
	switch {
	case r.lawless && err == nil:
		r.Error("two first control planes were expected here, and the ledger does not show them")
	case r.lawless:
		r.Logf("as expected: %v", err)
	case err != nil:
		r.Error(err)
	}
	for _, s := range r.servers() {
		if out, err := s.Journal(ctx, "--output=cat", "--grep=WARNING: DATA RACE"); err == nil && out != "" {
			r.Errorf("the race detector speaks on %s", s.Name)
		}
	}
	if r.Failed() {
		logs := r.path("logs", strings.ReplaceAll(r.Name(), "/", "-"))
		if err := r.CollectLogs(ctx, logs); err != nil {
			r.Error(err)
		}
		r.Logf("seed %d failed; journals, consoles and the ledger are in %s", r.seed, logs)
	}
	if err := r.Clear(ctx); err != nil {
		r.Error(err)
	}
}

// must fails the trial on an error.
func (r *trial) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// on switches servers on, one after the other without a pause; none named: all.
func (r *trial) on(names ...string) {
	r.Helper()
	if len(names) == 0 {
		names = r.plan.Names
	}
	for _, name := range names {
		r.must(r.by[name].On(r.ctx))
	}
}

// servers are those of the names; none named: all of the plan.
func (r *trial) those(names ...string) []*Server {
	if len(names) == 0 {
		names = r.plan.Names
	}
	var out []*Server
	for _, name := range names {
		out = append(out, r.by[name])
	}
	return out
}

// formed waits until the servers have formed one cluster and checks who joined it.
func (r *trial) formed(names ...string) {
	r.Helper()
	ctx, cancel := context.WithTimeoutCause(r.ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	_, err := AwaitFormed(ctx, r.those(names...), len(r.those(names...)))
	r.must(err)
	lines, err := r.Ledger()
	r.must(err)
	in := strings.Join(Joined(lines), " ")
	for _, s := range r.those(names...) {
		if !strings.Contains(" "+in+" ", " "+s.Name+" ") {
			r.Errorf("%s calls itself ready, but the ledger knows neither of an init nor of a join there: %s", s.Name, in)
		}
	}
}

// surplus waits until as many servers have joined as the plan expects, and each of
// the rest waits and says what for; one of the cluster names them.
func (r *trial) surplus(names ...string) (rest []*Server) {
	r.Helper()
	ctx, cancel := context.WithTimeoutCause(r.ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	rest, err := AwaitFormed(ctx, r.those(names...), r.plan.Expect)
	r.must(err)
	for _, s := range rest {
		r.said(s.Name, "is one more", "bootstrap approve")
		r.said("cp1", s.Name, "one server more than this cluster expects")
	}
	lines, err := r.Ledger()
	r.must(err)
	if in := Joined(lines); len(in) != r.plan.Expect {
		r.Errorf("%d servers are expected, and these joined: %v", r.plan.Expect, in)
	}
	return rest
}

// operate runs a command of an operator on a server.
func (r *trial) operate(name string, argv ...string) string {
	r.Helper()
	out, err := r.by[name].Exec(r.ctx, argv...)
	r.must(err)
	r.Logf("%s# %s\n%s", name, strings.Join(argv, " "), out)
	return out
}

// until waits for a fact that a server's agent tells.
func (r *trial) until(name, what string, fact func(member.Status) bool) member.Status {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	var last member.Status
	var lastErr error
	err := machine.Poll(ctx, what, func() bool {
		status, err := r.by[name].Status(ctx)
		lastErr = err
		if err == nil {
			last = status
		}
		return err == nil && fact(status)
	})
	if err != nil {
		r.Fatalf("%s does not come to this: %s; it says %+v (%v)", name, what, last, lastErr)
	}
	return last
}

// said waits until a server's status holds each of the words, in what it waits for
// or what its problem is.
func (r *trial) said(name string, words ...string) {
	r.Helper()
	r.until(name, "its status names "+strings.Join(words, ", "), func(s member.Status) bool {
		for _, w := range words {
			if !strings.Contains(s.Waiting+"\n"+s.Problem, w) {
				return false
			}
		}
		return true
	})
}

// calm watches for a while that kubeadm init has run no more often than it has now.
func (r *trial) calm(d time.Duration) {
	r.Helper()
	before, err := r.Ledger()
	r.must(err)
	r.pause(d)
	after, err := r.Ledger()
	r.must(err)
	if len(after) != len(before) {
		r.Fatalf("the ledger grew while nothing could be decided: %+v", after[len(before):])
	}
}

// began waits until kubeadm init has begun and returns the server it runs on.
func (r *trial) began() string {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	var on string
	err := machine.Poll(ctx, "kubeadm init has begun", func() bool {
		lines, err := r.Ledger()
		if err == nil && len(lines) > 0 {
			on = lines[0].Server
		}
		return on != ""
	})
	if err != nil {
		r.Fatalf("kubeadm init did not begin within %v:\n%s", patience, report(r.those(), ask(r.ctx, r.those())))
	}
	return on
}

// pause lets time pass: the length of a fault.
func (r *trial) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.ctx.Done():
	case <-t.C:
	}
}

// between is a random length of time.
func (r *trial) between(low, high time.Duration) time.Duration {
	return low + time.Duration(r.random.Int64N(int64(high-low)))
}

// journalHas says whether a server's journal holds a text.
func (r *trial) journalHas(name, text string) bool {
	r.Helper()
	out, err := r.by[name].Journal(r.ctx, "--output=cat", "--unit=muster.service")
	r.must(err)
	return strings.Contains(out, text)
}
