package bootstrap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/plan"
)

// awaitProblem waits until a server says what it waits for.
func (w *world) awaitProblem(name, text string) {
	w.until(time.Minute, name+" to say "+text, func() error {
		if st := w.named(name).agent().board.read(); !strings.Contains(st.Problem, text) {
			return fmt.Errorf("it says %+v", st)
		}
		return nil
	})
}

// A server that was installed anew has its former place after ten minutes without
// anybody's order, not earlier: the first control plane, another, a worker.
func TestReplacesItself(t *testing.T) {
	for _, c := range []struct {
		who  string
		pick func(w *world, name string) bool
	}{
		{"the first control plane", func(w *world, name string) bool { return name == w.inits[0] }},
		{"another control plane", func(w *world, name string) bool { return name[0] == 'c' && name != w.inits[0] }},
		{"a worker", func(_ *world, name string) bool { return name == "w1" }},
	} {
		t.Run(c.who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, all := formedWorld(t, 3, 1)
				defer w.shutdown()
				name := all[slices.IndexFunc(all, func(n string) bool { return c.pick(w, n) })]
				w.powerOff(name)
				off := time.Now()
				w.reborn(name)
				w.boot(name)
				w.awaitProblem(name, "gets that place by itself when the former life")
				time.Sleep(plan.ReplaceAfter - time.Since(off) - 10*time.Second) // virtual
				if got := w.departedNow(); len(got) > 0 {
					t.Fatalf("%q left before its time", got)
				}
				w.formed(3*time.Minute, all...)
				took := time.Since(off)
				if took < plan.ReplaceAfter || took > plan.ReplaceAfter+time.Minute {
					t.Errorf("it is back after %s, expected soon after %s", took, plan.ReplaceAfter)
				}
				want := []string{"node " + name}
				if name[0] == 'c' {
					want = []string{"etcd of " + name, "node " + name}
				}
				if diff := cmp.Diff(want, w.departedNow()); diff != "" {
					t.Errorf("what left (-want +got)\n%s", diff)
				}
				if planes, workers := w.roles(); planes != 3 || workers != 1 || w.holder != "" {
					t.Errorf("%d control planes and %d workers, expected 3 and 1; the turn to join is with %q", planes, workers, w.holder)
				}
			})
		})
	}
}

// While another member of etcd is off it waits and says for whom, and while the
// operator decides, for him.
func TestReplacesItselfLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := formedWorld(t, 5, 0)
		defer w.shutdown()
		w.powerOff("cp2")
		w.powerOff("cp3")
		w.reborn("cp2")
		w.boot("cp2")
		time.Sleep(plan.ReplaceAfter) // virtual
		w.awaitProblem("cp2", "all other members of etcd are healthy; not yet: cp3")
		time.Sleep(10 * time.Minute) // virtual
		if got := w.departedNow(); len(got) > 0 {
			t.Fatalf("%q left while cp3 is off", got)
		}
		w.boot("cp3")
		w.formed(2*time.Minute, all...)
	})
}

// Two machines with one hardware id: the one that lives keeps its place.
func TestReplacesNobodyInSight(t *testing.T) {
	var x absences
	began := time.Now()
	at := func(minutes int, insts ...string) {
		var peers []Peer
		for _, inst := range insts {
			peers = append(peers, Peer{Inst: inst})
		}
		x.see(peers, began.Add(time.Duration(minutes)*time.Minute))
	}
	at(0, "a")
	at(5, "a", "b")
	at(6, "a")
	at(7)
	at(8, "a")
	for _, c := range []struct {
		inst    string
		silent  time.Duration
		inSight bool
	}{
		{"a", 0, true},                 // it was away for a minute
		{"b", 14 * time.Minute, false}, // since the sixth
		{"c", 20 * time.Minute, false}, // never seen: since the agent began
	} {
		silent, inSight := x.of(c.inst, began.Add(20*time.Minute))
		if silent != c.silent || inSight != c.inSight {
			t.Errorf("%s: silent for %s, in sight %t; expected %s, %t", c.inst, silent, inSight, c.silent, c.inSight)
		}
	}
}
