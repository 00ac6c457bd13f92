package addons

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// world is a Kubernetes that keeps objects and one text.
type world struct {
	mu      sync.Mutex
	text    string
	version int
	objects []Object
	applied []string                 // manifests, in order
	refuse  map[string]int           // manifests that are refused so many times
	unready map[string]int           // waits that are not so, so many times
	during  map[string]func()        // called when these manifests are applied
	slow    map[string]time.Duration // these manifests take so long
	unheard int                      // so many saves fail
}

func newWorld() *world {
	return &world{refuse: map[string]int{}, unready: map[string]int{}, during: map[string]func(){}, slow: map[string]time.Duration{}}
}

func (w *world) Load(context.Context) (string, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.version == 0 {
		return "", "", nil
	}
	return w.text, strconv.Itoa(w.version), nil
}

func (w *world) Save(_ context.Context, text, version string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unheard > 0 {
		w.unheard--
		return "", errors.New("connection refused")
	}
	if w.version > 0 && version != strconv.Itoa(w.version) || w.version == 0 && version != "" {
		return "", nil
	}
	w.version++
	w.text = text
	return strconv.Itoa(w.version), nil
}

// Apply takes manifests of one line an object: KIND NAME.
func (w *world) Apply(ctx context.Context, manifests []byte) ([]Object, error) {
	text := string(manifests)
	if err := sleep(ctx, w.slow[text]); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse[text] > 0 {
		w.refuse[text]--
		return nil, fmt.Errorf("no matches for kind in %q", text)
	}
	w.applied = append(w.applied, text)
	objects := parse(text)
	w.objects = unique(append(w.objects, objects...))
	if f := w.during[text]; f != nil {
		f()
	}
	return objects, nil
}

func parse(text string) (objects []Object) {
	for line := range strings.Lines(text) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		objects = append(objects, Object{APIVersion: "v1", Kind: kind, Name: name})
	}
	return objects
}

func (w *world) Await(_ context.Context, a cluster.AddonWait) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unready[a.Rollout] > 0 {
		w.unready[a.Rollout]--
		return errors.New("0 of 3 updated replicas are available")
	}
	return nil
}

func (w *world) Delete(_ context.Context, objects []Object) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects = slices.DeleteFunc(w.objects, func(o Object) bool { return slices.ContainsFunc(objects, o.same) })
	return nil
}

func (w *world) names() (names []string) {
	for _, o := range w.objects {
		names = append(names, o.Kind+" "+o.Name)
	}
	slices.Sort(names)
	return names
}

func (w *world) keeper(inst string, first bool, list ...cluster.Addon) *Keeper {
	return &Keeper{List: list, Cluster: w, Store: w, Fetch: Fetch, Inst: inst, First: first, Now: time.Now}
}

// told is what a keeper reported.
type told struct {
	mu       sync.Mutex
	list     []member.AddonStatus
	problems []string
}

func (r *told) hear(list []member.AddonStatus, problem error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = list
	if problem != nil {
		r.problems = append(r.problems, problem.Error())
	}
}

func addon(name, manifests string, waits ...string) cluster.Addon {
	a := cluster.Addon{Name: name, Inline: manifests}
	for _, w := range waits {
		a.Wait = append(a.Wait, cluster.AddonWait{Rollout: w})
	}
	return a
}

func run1(t *testing.T, ctx context.Context, k *Keeper) *told {
	t.Helper()
	var r told
	if err := k.Run(ctx, r.hear); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestInOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		list := []cluster.Addon{addon("cni", "DaemonSet cni", "daemonset/cni"), addon("lb", "Deployment lb")}
		w.unready["daemonset/cni"] = 3
		began := time.Now()
		w.during["Deployment lb"] = func() {
			if w.unready["daemonset/cni"] > 0 {
				t.Error("lb is applied before the rollout of cni")
			}
		}
		r := run1(t, t.Context(), w.keeper("a", true, list...))
		if took := time.Since(began); took != 3*look {
			t.Errorf("it took %s, expected three looks", took)
		}
		run1(t, t.Context(), w.keeper("b", false, list...))
		run1(t, t.Context(), w.keeper("a", true, list...))
		if diff := cmp.Diff([]string{"DaemonSet cni", "Deployment lb"}, w.applied); diff != "" {
			t.Errorf("applied (-want +got)\n%s", diff)
		}
		want := []member.AddonStatus{{Name: "cni", State: member.AddonApplied}, {Name: "lb", State: member.AddonApplied}}
		if diff := cmp.Diff(want, r.list); diff != "" {
			t.Errorf("told (-want +got)\n%s", diff)
		}
	})
}

// TestWhatTakesLongIsAProblem: and is tried on.
func TestWhatTakesLongIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.refuse["IPPool a"] = 20
		a := addon("pool", "IPPool a")
		a.Timeout = time.Minute
		r := run1(t, t.Context(), w.keeper("a", true, a))
		const want = `add-on pool waits for its manifests to be applied for more than 1m0s: no matches for kind in "IPPool a"`
		if len(r.problems) != 20-12 || r.problems[0] != want {
			t.Errorf("problems %q, expected 8 times %q", r.problems, want)
		}
		if diff := cmp.Diff([]string{"IPPool a"}, w.names()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestRevised: a list of a higher revision comes instead of what was applied, by who
// applied that; what it does not hold goes, and nothing else. A server that lags does
// not bring the former one back.
func TestRevised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.objects = parse("Deployment foreign")
		cni, lb, dns := addon("cni", "DaemonSet cni"), addon("lb", "Deployment lb\nService lb"), addon("dns", "Deployment dns")
		run1(t, t.Context(), w.keeper("a", true, cni, lb))
		step := func(inst string, revision uint64, took time.Duration, want []string, list ...cluster.Addon) {
			t.Helper()
			k := w.keeper(inst, false, list...)
			k.Revision = revision
			began := time.Now()
			run1(t, t.Context(), k)
			if got := time.Since(began); got != took {
				t.Errorf("revision %d on %s: after %s, expected %s", revision, inst, got, took)
			}
			if diff := cmp.Diff(want, w.names()); diff != "" {
				t.Errorf("revision %d on %s (-want +got)\n%s", revision, inst, diff)
			}
		}
		second := []string{"DaemonSet cni", "Deployment dns", "Deployment foreign"}
		step("a", 1, 0, second, cni, dns)
		step("b", 0, 0, second, cni, lb) // lags
		step("b", 1, 0, second, cni, dns)
		step("b", 2, takeOver, []string{"DaemonSet cni", "Deployment foreign", "Deployment lb", "Service lb"}, cni, lb) // a has left
		step("b", 3, 0, []string{"Deployment foreign"})
		if applied := strings.Join(w.applied, " · "); strings.Count(applied, "DaemonSet cni") != 1 {
			t.Errorf("what did not change was applied again: %s", applied)
		}
	})
}

// TestNoListWasEver: a revision without add-ons writes nothing where there were none.
func TestNoListWasEver(t *testing.T) {
	w := newWorld()
	k := w.keeper("a", true)
	k.Revision = 1
	run1(t, t.Context(), k)
	if w.version != 0 {
		t.Errorf("it wrote %s", w.text)
	}
}

// TestTakenOver: the first control plane stops for good in the middle. Another goes
// on where it was, after a while, and not before.
func TestTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		list := []cluster.Addon{addon("cni", "DaemonSet cni", "daemonset/cni"), addon("lb", "Deployment lb", "deployment/lb")}
		w.unready["deployment/lb"] = 2
		dies, kill := context.WithCancel(t.Context())
		w.during["Deployment lb"] = kill
		if err := w.keeper("a", true, list...).Run(dies, new(told).hear); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.during = nil
		began := time.Now()
		var r told
		done := make(chan error)
		go func() { done <- w.keeper("b", false, list...).Run(t.Context(), r.hear) }()
		time.Sleep(look) // virtual
		synctest.Wait()
		r.mu.Lock()
		if got := r.list[1].Detail; got != "instance a to apply the add-ons; this server goes on when that one stands still for 2m0s" {
			t.Errorf("b waits for %q", got)
		}
		r.mu.Unlock()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < takeOver || took > takeOver+5*look {
			t.Errorf("the other took over and was done after %s", took)
		}
		if diff := cmp.Diff([]string{"DaemonSet cni", "Deployment lb", "Deployment lb"}, w.applied); diff != "" {
			t.Errorf("applied (-want +got)\n%s", diff)
		}
	})
}

// TestFirstNeverBegan: the others go on without it.
func TestFirstNeverBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		began := time.Now()
		run1(t, t.Context(), w.keeper("b", false, addon("cni", "DaemonSet cni")))
		if took := time.Since(began); took != takeOver {
			t.Errorf("it began after %s, expected %s", took, takeOver)
		}
	})
}

// TestTurnLost: who was thought dead finds another at work and leaves it to it.
func TestTurnLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		list := []cluster.Addon{addon("cni", "DaemonSet cni", "daemonset/cni"), addon("lb", "Deployment lb")}
		w.during["DaemonSet cni"] = func() { // another writes between two beats
			w.during = nil
			s, err := parseState(w.text)
			if err != nil {
				t.Error(err)
			}
			s.Holder = "b"
			w.text, w.version = encodeState(t, s), w.version+1
		}
		r := run1(t, t.Context(), w.keeper("a", true, list...)) // takes over when b stands still
		if len(r.problems) == 0 || !strings.Contains(r.problems[0], "another control plane began to apply") {
			t.Errorf("problems: %q", r.problems)
		}
		if diff := cmp.Diff([]string{"DaemonSet cni", "DaemonSet cni", "Deployment lb"}, w.applied); diff != "" {
			t.Errorf("applied (-want +got)\n%s", diff)
		}
	})
}

// TestLongTryKeepsTheTurn: one try of kubectl takes longer than the others' patience,
// and some of its beats do not get through.
func TestLongTryKeepsTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		list := []cluster.Addon{addon("cni", "DaemonSet cni")}
		w.slow["DaemonSet cni"] = 3 * takeOver
		first := make(chan error)
		go func() { first <- w.keeper("a", true, list...).Run(t.Context(), new(told).hear) }()
		synctest.Wait()
		w.mu.Lock()
		w.unheard = 2
		w.mu.Unlock()
		began := time.Now()
		run1(t, t.Context(), w.keeper("b", false, list...))
		if err := <-first; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 3*takeOver || took > 3*takeOver+look {
			t.Errorf("the other was done after %s, expected what the first took", took)
		}
		if diff := cmp.Diff([]string{"DaemonSet cni"}, w.applied); diff != "" {
			t.Errorf("applied (-want +got)\n%s", diff)
		}
	})
}

// TestLostTurnEndsTheTry: what takes long ends when another has the turn, and is not
// done twice at once.
func TestLostTurnEndsTheTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		list := []cluster.Addon{addon("cni", "DaemonSet cni")}
		w.slow["DaemonSet cni"] = 3 * takeOver
		began := time.Now()
		var r told
		done := make(chan error)
		go func() { done <- w.keeper("a", true, list...).Run(t.Context(), r.hear) }()
		synctest.Wait()
		w.mu.Lock()
		s, err := parseState(w.text)
		if err != nil {
			t.Error(err)
		}
		s.Holder, s.Done = "b", true
		w.text, w.version = encodeState(t, s), w.version+1
		w.mu.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > pulse+look {
			t.Errorf("it ended after %s, expected the next beat to end it", took)
		}
		if len(w.applied) > 0 {
			t.Errorf("applied %q after its turn", w.applied)
		}
		if len(r.problems) != 1 || !strings.Contains(r.problems[0], errTurnLost.Error()) {
			t.Errorf("problems: %q", r.problems)
		}
	})
}

func encodeState(t *testing.T, s State) string {
	t.Helper()
	r := &run{Keeper: &Keeper{Store: newWorld()}}
	if err := r.save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return r.Store.(*world).text
}
