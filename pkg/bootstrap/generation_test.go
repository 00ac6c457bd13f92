package bootstrap

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// formBook boots servers until all are ready, and until the Lease and the records are
// kept.
func (w *world) formBook(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.boot(name)
	}
	w.formed(10*time.Minute, names...)
	w.until(2*time.Minute, "the Lease and all records", func() error {
		if w.book.version == 0 || len(w.book.mirror) != len(names) {
			return fmt.Errorf("version %d of the Lease, %d records", w.book.version, len(w.book.mirror))
		}
		return nil
	})
}

// until looks in virtual time until there is no error.
func (w *world) until(limit time.Duration, what string, look func() error) {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) { // virtual: synctest
		w.mu.Lock()
		err := look()
		w.mu.Unlock()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			w.t.Fatalf("after %s still waiting for %s: %v", limit, what, err)
		}
	}
}

// answering waits until a generation answers on these servers.
func (w *world) answering(limit time.Duration, generation uint64, names ...string) {
	w.t.Helper()
	w.until(limit, fmt.Sprintf("generation %d on %v", generation, names), func() error {
		for _, name := range names {
			if a := w.named(name).agent(); !a.directory.Load() || a.running.Load() != generation {
				return fmt.Errorf("%s runs generation %d, answering: %t", name, a.running.Load(), a.directory.Load())
			}
		}
		return nil
	})
}

// problemOf is what status on a server says is wrong.
func (w *world) problemOf(name string) string {
	return w.named(name).server.Status(w.t.Context()).Problem
}

func TestLeaseOfAFormedCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		all := []string{"cp1", "cp2", "cp3", "w1"}
		w.formBook(all...)
		l := w.book.lease
		if want := (plan.Lease{CAHash: w.named("cp1").caHash(), Holder: l.Holder, Beat: l.Beat, Version: l.Version}); l != want || l.Beat == 0 {
			t.Errorf("the Lease is %+v, expected generation 0 of this cluster, renewed", l)
		}
		for _, name := range all {
			s := w.named(name)
			got := w.book.mirror[s.inst]
			if got.Name != name || got.Key != s.key || got.Address != s.address || (got.Role == member.ControlPlane) != (name[0] == 'c') {
				t.Errorf("record of %s: %+v", name, got)
			}
		}
		// Its holder goes for good: another one renews it, in the same generation.
		holder := ""
		for _, s := range w.servers {
			if s.inst == l.Holder {
				holder = s.name
			}
		}
		w.powerOff(holder)
		w.until(5*time.Minute, "another holder", func() error {
			if now := w.book.lease; now.Holder == l.Holder || now.Generation != 0 || now.Beat <= l.Beat {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
	})
}

// All copies of the directory are lost. One control plane, whichever is first at
// the Lease, makes the next generation; the others join it; nobody stops being
// Ready; a further server can join, and no control plane is one too many.
func TestLostDirectoryIsMadeAgainOnce(t *testing.T) {
	for _, shape := range []struct{ controlPlanes, workers int }{{1, 1}, {2, 1}, {3, 1}} {
		t.Run(fmt.Sprintf("%d+%d", shape.controlPlanes, shape.workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lostDirectoryIsMadeAgain(t, shape.controlPlanes, shape.workers) })
		})
	}
}

func lostDirectoryIsMadeAgain(t *testing.T, controlPlanes, workers int) {
	w := newWorld(t, controlPlanes, workers)
	defer w.shutdown()
	var planes, all []string
	for i := range controlPlanes {
		planes = append(planes, fmt.Sprintf("cp%d", i+1))
	}
	all = append(slices.Clone(planes), "w1")
	w.formBook(all...)
	before := slices.Clone(w.rows)
	lost := time.Now()
	w.loseDirectory()
	w.named("cp1").skew.Store(int64(48 * time.Hour)) // a clock that is set hurries nobody
	w.until(time.Minute+probeDirectoryEvery, "status to say that the directory does not answer", func() error {
		for _, name := range planes {
			if text := w.named(name).agent().lost.Load(); text == nil || !strings.Contains(*text, "counts as lost only when none renews the Lease") {
				return fmt.Errorf("%s says %v", name, text)
			}
		}
		return nil
	})
	w.until(4*time.Minute, "status to say that it is lost", func() error {
		if text := w.named("cp1").agent().lost.Load(); text == nil || !strings.Contains(*text, "is lost on all control planes") {
			return fmt.Errorf("%v", text)
		}
		return nil
	})
	if got := w.problemOf("cp1"); !strings.Contains(got, "one of them makes generation 1 from what Kubernetes knows") {
		t.Errorf("status says %q", got)
	}
	w.answering(10*time.Minute, 1, planes...)
	if took := time.Since(lost); took < plan.LeasePatience {
		t.Errorf("a new generation after %s, expected patience for %s", took, plan.LeasePatience)
	}
	if len(w.book.made) != 1 {
		t.Errorf("made: %v, expected one generation by one server", w.book.made)
	}
	w.formed(time.Second, all...) // nobody stopped being Ready
	compareRows(t, before, w.rows)
	synctest.Wait()
	if got := w.problemOf("cp1"); strings.Contains(got, "directory") {
		t.Errorf("status still says %q", got)
	}
	// A server with a control plane's name comes late and is approved: all places
	// are taken.
	w.mu.Lock()
	w.approved[fmt.Sprintf("%032x", 900)] = true
	w.add(fmt.Sprintf("cp%d", controlPlanes+1), controlPlanes+workers)
	w.mu.Unlock()
	late := fmt.Sprintf("cp%d", controlPlanes+1)
	w.named(late).state = w.named("w1").state
	w.named(late).state.Inst, w.named(late).state.Hardware.HW = w.named(late).inst, fmt.Sprintf("%032x", 900)
	w.boot(late)
	w.formed(5*time.Minute, late)
	if role := w.named(late).agent().board.read().Role; role != member.Worker {
		t.Errorf("the late server is a %s, expected a worker: all places are taken", role)
	}
}

// compareRows holds the rows of the new generation to those of the old one.
func compareRows(t *testing.T, before, after []member.Member) {
	t.Helper()
	key := func(rows []member.Member) []string {
		var out []string
		for _, m := range rows {
			out = append(out, fmt.Sprint(m.Inst, m.HW, m.Name, m.Address, m.Role))
		}
		slices.Sort(out)
		return out
	}
	if got, want := key(after), key(before); !slices.Equal(got, want) {
		t.Errorf("rows after the loss:\n%s\nbefore it:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Servers that reboot while the directory is lost are Ready without it.
func TestRebootWithoutTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.formBook("cp1", "w1")
		w.loseDirectory()
		for _, name := range []string{"w1", "cp1"} {
			w.powerOff(name)
			w.boot(name)
		}
		w.formed(time.Minute, "cp1", "w1")
		if got := w.book.lease.Generation; got != 0 || !w.book.lost {
			t.Errorf("generation %d, lost: %t; expected that nothing was made yet", got, w.book.lost)
		}
	})
}

// A control plane that was off comes back with the older generation, and drops it
// when it reads the Lease.
func TestOldMemberDropsItsGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		w.formBook("cp1", "cp2", "cp3")
		w.powerOff("cp3")
		w.loseDirectory()
		w.answering(10*time.Minute, 1, "cp1", "cp2")
		w.boot("cp3")
		w.answering(2*time.Minute, 1, "cp3")
		w.formed(time.Minute, "cp3")
		if len(w.book.made) != 1 {
			t.Errorf("made: %v, expected generation 1 once", w.book.made)
		}
	})
}

// The winner of a generation dies before it made it: after the same patience
// another takes the next one, and the winner drops its own when it comes back.
func TestWinnerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		w.formBook("cp1", "cp2", "cp3")
		for _, s := range w.servers {
			s.directoryFails = true
		}
		w.loseDirectory()
		winner := ""
		w.until(10*time.Minute, "a winner", func() error {
			for _, s := range w.servers {
				if w.book.lease.Mine(s.inst) {
					winner = s.name
					return nil
				}
			}
			return fmt.Errorf("%+v", w.book.lease)
		})
		w.powerOff(winner)
		w.mu.Lock()
		w.book.made, w.book.lost = nil, true // what it was about to make
		for _, s := range w.servers {
			s.directoryFails = false
		}
		w.mu.Unlock()
		var rest []string
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			if name != winner {
				rest = append(rest, name)
			}
		}
		w.answering(15*time.Minute, 2, rest...)
		w.boot(winner)
		w.answering(3*time.Minute, 2, winner)
		if len(w.book.made) != 1 {
			t.Errorf("made: %v, expected generation 2 once", w.book.made)
		}
	})
}

// A directory that answers nowhere, on servers whose API servers do not either, is
// not taken for lost: nobody could write the Lease, and nobody is hurried.
func TestNoGenerationWithoutKubernetes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		w.formBook("cp1", "cp2")
		w.loseDirectory()
		for _, s := range w.servers {
			s.setHealthy(false)
		}
		time.Sleep(time.Hour) // virtual: synctest
		if w.book.lease.Generation != 0 {
			t.Errorf("the Lease is %+v, expected generation 0", w.book.lease)
		}
		if got := w.problemOf("cp1"); !strings.Contains(got, "does not say which generation of it stands") {
			t.Errorf("status says %q", got)
		}
		for _, s := range w.servers {
			s.setHealthy(true)
		}
		back := time.Now()
		w.answering(10*time.Minute, 1, "cp1", "cp2")
		if took := time.Since(back); took < plan.LeasePatience {
			t.Errorf("taken %s after Kubernetes came back, expected patience for %s", took, plan.LeasePatience)
		}
	})
}

// A control plane that was removed, and whose Kubernetes nobody stopped, makes no
// directory.
func TestRemovedServerTakesNoGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		w.formBook("cp1", "cp2")
		gone := w.named("cp2")
		w.mu.Lock()
		w.rows = slices.DeleteFunc(w.rows, func(m member.Member) bool { return m.Inst == gone.inst })
		w.removed, w.book.mirror[gone.inst] = gone.inst, member.Record{Inst: gone.inst, Name: "cp2", Removed: true}
		w.mu.Unlock()
		w.powerOff("cp1")
		w.loseDirectory()
		w.until(10*time.Minute, "status to say why", func() error {
			if text := gone.agent().lost.Load(); text == nil || !strings.Contains(*text, "was removed from the cluster") {
				return fmt.Errorf("%v", text)
			}
			return nil
		})
		if w.book.lease.Generation != 0 {
			t.Errorf("the Lease is %+v, expected generation 0", w.book.lease)
		}
		w.boot("cp1")
		w.answering(10*time.Minute, 1, "cp1")
	})
}

// A directory of an older generation, even with a majority of its own, gives nobody
// the keys of the CAs and lets nobody into Kubernetes; what it gave its word for is restored in the one that stands.
func TestOlderGenerationLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.formBook("cp1", "w1")
		cp, guest := w.named("cp1"), agent.Caller{Inst: fmt.Sprintf("%032x", 77), HW: fmt.Sprintf("%032x", 78)}
		if _, err := cp.server.ClaimRole(t.Context(), guest, agent.RoleRequest{Name: "guest", Address: netip.MustParseAddr("10.0.0.77"), Joining: true}); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.book.lease.Generation = 1
		at := slices.IndexFunc(w.rows, func(m member.Member) bool { return m.Inst == guest.Inst })
		w.rows[at].Role = member.ControlPlane
		w.mu.Unlock()
		if reply, err := cp.server.Authorities(t.Context(), guest, agent.AuthoritiesRequest{}); err == nil || reply.Sealed != nil || !strings.Contains(err.Error(), "drops generation 0 of the directory for generation 1") {
			t.Errorf("CA keys by an older generation: %v", err)
		}
		if _, err := cp.server.JoinMaterial(t.Context(), guest); err == nil || !strings.Contains(err.Error(), "drops generation 0 of the directory for generation 1") {
			t.Errorf("join material from an older generation: %v", err)
		}
		if _, ok := w.book.mirror[guest.Inst]; ok {
			t.Error("the refused server has a record")
		}
	})
}

// What only Kubernetes knows comes into the directory, and who was removed goes
// from the records.
func TestMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		w.formBook("cp1")
		stray := member.Record{Inst: fmt.Sprintf("%032x", 77), HW: fmt.Sprintf("%032x", 78), Name: "stray", Address: netip.MustParseAddr("10.0.0.77"), Role: member.Worker}
		w.mu.Lock()
		w.book.mirror[stray.Inst] = stray
		w.mu.Unlock()
		w.until(time.Minute, "the stray member's row", func() error {
			if len(w.rows) != 2 {
				return fmt.Errorf("%v", w.rows)
			}
			return nil
		})
		w.mu.Lock()
		w.rows, w.removed = w.rows[:1], stray.Inst
		w.mu.Unlock()
		w.until(time.Minute, "the removed member's record to go", func() error {
			if len(w.book.mirror) != 1 || len(w.rows) != 1 {
				return fmt.Errorf("records %v, rows %v", w.book.mirror, w.rows)
			}
			return nil
		})
	})
}

// A server on its way into the cluster, whose row went with the directory, claims
// it again and goes on.
func TestJoinInFlightSurvivesTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1)
		defer w.shutdown()
		w.holder = "another" // nobody gives the turn back, so cp2 waits for it
		for _, name := range []string{"cp1", "cp2", "w1"} {
			w.boot(name)
		}
		w.until(5*time.Minute, "a control plane that waits for its turn", func() error {
			if w.book.version == 0 || len(w.rows) < 3 || len(w.joins) < 1 {
				return fmt.Errorf("rows %v, joins %v", w.rows, w.joins)
			}
			return nil
		})
		waiting := "cp2"
		if w.inits[0] == waiting {
			waiting = "cp1"
		}
		w.loseDirectory()
		w.mu.Lock()
		delete(w.book.mirror, w.named(waiting).inst) // its row was never told to Kubernetes
		w.mu.Unlock()
		w.formed(15*time.Minute, "cp1", "cp2", "w1")
		w.answering(2*time.Minute, 1, "cp1", "cp2")
		if role := w.named(waiting).agent().board.read().Role; role != member.ControlPlane {
			t.Errorf("%s is a %s, expected a control plane as before", waiting, role)
		}
	})
}

// A control plane whose turn was taken over while its join failed asks for it again
// before the next attempt.
func TestLostTurnIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		for _, s := range w.servers {
			s.joinFails = 1
		}
		w.boot("cp1")
		w.boot("cp2")
		w.until(5*time.Minute, "the turn to be another's", func() error {
			if w.holder != "another" {
				return fmt.Errorf("it is the turn of %q", w.holder)
			}
			return nil
		})
		time.Sleep(10 * time.Minute) // virtual: synctest; attempts are made, and none runs kubeadm
		if _, joins := w.ledger(); len(joins) != 0 {
			t.Errorf("joined out of turn: %v", joins)
		}
		w.mu.Lock()
		w.holder = ""
		w.mu.Unlock()
		w.formed(2*time.Minute, "cp1", "cp2")
	})
}
