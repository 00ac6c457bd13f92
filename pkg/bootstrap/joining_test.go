package bootstrap

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// joiner adds a server with joining user-data that pins a CA.
func (w *world) joiner(name, ca string) *testServer {
	w.add(name, len(w.servers))
	s := w.named(name)
	s.joinCA = ca
	return s
}

// Servers with joining user-data neither vote nor count while the others form,
// whatever they expect themselves. Afterwards the one that pins the cluster's CA
// joins, the other waits and says so.
func TestJoiningServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.joiner("w8", w.named("cp1").caHash()).expect = 7
		w.joiner("w9", "sha256:another")
		for _, name := range []string{"cp1", "w8", "w9"} {
			w.boot(name)
		}
		pass(time.Hour)
		w.says("cp1", member.RollCall, "no leader yet: 2 of 2 votes needed, 1 here, missing: 1 that never answered")
		for _, name := range []string{"w8", "w9"} {
			w.says(name, member.RollCall, "this server joins the cluster with CA "+w.named(name).joinCA+" and waits for a server of it; check")
		}
		w.wantNoProblem(t, "cp1", "w8", "w9")

		w.boot("w1")
		w.formed(5*time.Minute, "cp1", "w1", "w8")
		pass(time.Minute)
		w.says("w9", member.RollCall, "those in sight are of another: cp1, w1, w8: CA "+w.named("cp1").caHash())
		w.wantNoProblem(t, "cp1", "w1", "w8", "w9")
		inits, joins := w.ledger()
		slices.Sort(joins)
		if !slices.Equal(inits, []string{"cp1"}) || !slices.Equal(joins, []string{"w1", "w8"}) {
			t.Errorf("kubeadm init ran on %v, join on %v", inits, joins)
		}
		if s := w.named("w9"); s.enrolled {
			t.Error("w9 enrolled with a cluster that its user-data does not pin")
		}

		w.powerOff("w8")
		w.powerOff("cp1")
		w.boot("w8") // nobody has to say again that the cluster exists
		w.formed(time.Minute, "w8")
		if _, again := w.ledger(); len(again) != 2 {
			t.Errorf("after a reboot of w8: joined %v", again)
		}
	})
}

// A joining server that may lead does not, not even alone with a cluster file
// that expects one. It becomes a control plane while fewer than K have the role.
func TestJoiningControlPlanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		first := w.joiner("cp4", w.named("cp1").caHash())
		first.expect = 1
		w.boot("cp4")
		pass(time.Hour)
		w.says("cp4", member.RollCall, "this server joins the cluster with CA "+first.joinCA)
		if first.ownCAs != 0 {
			t.Errorf("cp4 made CAs to lead with, %d times", first.ownCAs)
		}
		w.powerOff("cp4")

		for _, name := range []string{"cp1", "cp2", "w1"} {
			w.boot(name)
		}
		w.formed(5*time.Minute, "cp1", "cp2", "w1")
		// Which of the two leads is the election's business.
		first.joinCA = w.status("cp1").Decree.CAHash
		w.joiner("cp5", first.joinCA)
		want := map[string]member.Role{"cp4": member.ControlPlane, "cp5": member.Worker, "cp3": member.Worker}
		boot := func(name string) {
			w.boot(name)
			w.formed(5*time.Minute, name)
			if got := w.status(name).Role; got != want[name] {
				t.Errorf("%s is a %s, expected %s", name, got, want[name])
			}
		}
		boot("cp4")
		boot("cp5")
		// Those that joined are none of the expected ones, and do not know these.
		for on, want := range map[string]string{"cp1": "1 of 4 expected servers never answered", "w1": "1 of 4 expected servers never answered", "cp4": "", "cp5": ""} {
			list := w.named(on).server.Servers(t.Context())
			if last := list[len(list)-1]; (want == "") != (last.Name != "") || !strings.HasPrefix(last.Problem, want) {
				t.Errorf("the last line of status on %s is %+v", on, last)
			}
		}
		boot("cp3") // whose place nobody took
		if inits, joins := w.ledger(); len(inits) != 1 || len(joins) != 5 {
			t.Errorf("kubeadm init ran on %v, join on %v", inits, joins)
		}
	})
}

// wantNoProblem checks that servers have nothing to complain of.
func (w *world) wantNoProblem(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if st := w.status(name); strings.TrimSpace(st.Problem) != "" {
			t.Errorf("%s has the problem %q", name, st.Problem)
		}
	}
}

// A server that joined a cluster which is given up afterwards is named by the
// order, stands down, and goes over to the next one when its user-data says so.
func TestJoiningSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2)
		defer w.shutdown()
		for _, name := range []string{"cp1", "w1", "w2"} {
			w.boot(name)
		}
		w.formed(time.Hour, "cp1", "w1", "w2")
		late := w.joiner("w8", w.named("cp1").caHash())
		w.boot("w8")
		w.formed(time.Hour, "w8")
		w.powerOff("cp1")
		w.boot("cp2")
		pass(time.Minute)
		order := election.Supersede{Dead: w.named("cp1").state.Hardware.HW}
		if _, err := w.named("cp2").server.Supersede(t.Context(), true, order, "w1,w2,w8"); err != nil {
			t.Fatal(err)
		}
		w.formed(10*time.Minute, "cp2")
		if st := w.status("w8"); st.Phase != member.Stopped || !late.down.Load() || !strings.Contains(st.Problem, "cp2 leads epoch 1") {
			t.Errorf("w8 is in phase %s, stopped its units: %v, says %q", st.Phase, late.down.Load(), st.Problem)
		}

		w.powerOff("w8")
		late.nodeCA = "" // reset, as its sentence says
		w.boot("w8")
		pass(time.Minute)
		w.says("w8", member.RollCall, "this server joins the cluster with CA "+late.joinCA)
		w.powerOff("w8")
		late.joinCA = w.named("cp2").caHash()
		w.boot("w8")
		w.formed(10*time.Minute, "w8")
	})
}
