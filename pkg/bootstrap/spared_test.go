package bootstrap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// threeOf grows a cluster to three control planes by an apply.
func threeOf(t *testing.T) *world {
	w := newGrowing(t)
	if _, err := w.apply("cp1", true, nil, "controlPlanes: 1", "controlPlanes: 3"); err != nil {
		t.Fatal(err)
	}
	pass(time.Minute)
	for _, name := range []string{"cp2", "cp3"} {
		w.add(name, len(w.servers))
		w.named(name).joinCA = w.named("cp1").caHash()
		w.boot(name)
		w.formed(10*time.Minute, "cp1", name)
	}
	pass(time.Minute)
	return w
}

// TestShrink: an apply with fewer control planes has the others leave by themselves, the
// last by name first, one after the other, each when its pods are gone.
func TestShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeOf(t)
		defer w.shutdown()
		w.mu.Lock()
		w.graves.pods = map[string][]plan.Pod{"cp3": {{Namespace: "default", Name: "web", Owner: "ReplicaSet"}}, "cp2": {{Namespace: "default", Name: "held", Owner: "ReplicaSet"}}}
		w.mu.Unlock()
		r, err := w.apply("cp2", true, nil) // cp2 is not spared for being the one that is asked
		next := strings.Join(r.Next, "\n")
		if err != nil || r.Was != 1 || r.Is != 2 || !strings.Contains(next, "one after the other leave: cp3, cp2.") {
			t.Fatalf("%+v, %v", r, err)
		}
		w.awaitLeft("cp3")
		pass(time.Minute)
		const why = "revision 2 of the spec has controlPlanes: 1, and this one is more; its pods go first: default/held: "
		if got := w.status("cp2"); !strings.HasPrefix(got.Spared, why) || got.Phase != member.Ready {
			t.Errorf("cp2 is %s and says %q, expected to wait for its pod", got.Phase, got.Spared)
		}
		w.mu.Lock()
		delete(w.graves.pods, "cp2")
		w.mu.Unlock()
		w.awaitLeft("cp2")
		pass(10 * time.Minute)
		w.formed(time.Minute, "cp1")
		var order []string
		for _, what := range w.departedNow() {
			if !strings.HasPrefix(what, "cordon ") {
				order = append(order, what)
			}
		}
		want := []string{}
		for _, name := range []string{"cp3", "cp2"} {
			want = append(want, "etcd of "+name, "kubeadm reset of "+name, "node "+name)
		}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("what left (-want +got):\n%s", diff)
		}
	})
}

// TestShrinkIsTakenBack: while a control plane that is off keeps the others from
// leaving, nothing leaves; and what was to leave stays when the number is raised again.
func TestShrinkIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeOf(t)
		defer w.shutdown()
		w.mu.Lock()
		w.graves.pods = map[string][]plan.Pod{"cp3": {{Namespace: "default", Name: "held", Owner: "ReplicaSet"}}}
		w.mu.Unlock()
		if _, err := w.apply("cp1", true, nil); err != nil {
			t.Fatal(err)
		}
		w.until(2*time.Minute, "cp3 to drain", func() error {
			if !slices.Contains(w.graves.departed, "cordon cp3") { // the world is locked
				return fmt.Errorf("%q", w.graves.departed)
			}
			return nil
		})
		if _, err := w.apply("cp1", true, nil, "controlPlanes: 1", "controlPlanes: 3"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		w.mu.Lock()
		w.graves.pods = nil
		w.mu.Unlock()
		pass(10 * time.Minute)
		w.formed(time.Minute, "cp1", "cp2", "cp3")
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			if got := w.status(name).Spared; got != "" {
				t.Errorf("%s says %q", name, got)
			}
		}
	})
}

// TestOtherNumbersSpareNobody: a server that came with another number in its file, before
// anything was applied, leaves nothing.
func TestOtherNumbersSpareNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := formedWorld(t, 3, 0)
		defer w.shutdown()
		w.powerOff("cp3")
		w.mu.Lock()
		c := w.cluster
		c.Spec.Servers.ControlPlanes = 1
		w.cluster = c
		w.mu.Unlock()
		w.boot("cp3")
		pass(10 * time.Minute)
		w.formed(time.Minute, all...)
	})
}
