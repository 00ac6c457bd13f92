package bootstrap

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// The GO holder says why it has no role: its directory does not start.
func TestDirectoryThatDoesNotStartIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		w.named("cp1").directoryFails = true
		w.boot("cp1")
		pass(time.Minute)
		st := w.named("cp1").agent().board.read()
		if st.Phase != member.Enrolling || !strings.Contains(st.Problem, "muster-directory.service ended with 78") {
			t.Errorf("phase %s, problem %q; expected the directory's", st.Phase, st.Problem)
		}
		w.mu.Lock()
		w.named("cp1").directoryFails = false
		w.mu.Unlock()
		w.formed(5*time.Minute, "cp1")
	})
}

// A leader whose directory was lost after the cluster was sealed finds it again
// at the other control planes; before, there is nobody to ask.
func TestLeaderRejoinsTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		all := []string{"cp1", "cp2", "cp3"}
		for _, name := range all {
			w.boot(name)
		}
		w.formed(5*time.Minute, all...)
		leader := w.named(w.inits[0])
		if len(leader.directoryPeers) > 0 {
			t.Errorf("the first directory was started with peers %v", leader.directoryPeers)
		}
		w.powerOff(leader.name)
		leader.directoryPeers = nil
		w.boot(leader.name)
		w.formed(time.Minute, all...)
		var want []netip.Addr
		for _, name := range all {
			if name != leader.name {
				want = append(want, w.named(name).address)
			}
		}
		slices.SortFunc(leader.directoryPeers, netip.Addr.Compare)
		if !slices.Equal(leader.directoryPeers, want) {
			t.Errorf("started with peers %v, expected %v", leader.directoryPeers, want)
		}
	})
}

// A control plane that gossip sees is asked before a leader that is gone: each
// attempt there costs seconds, and status has only two.
func TestControlPlanesInSightAreAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		defer w.shutdown()
		all := []string{"cp1", "cp2", "cp3", "w1"}
		for _, name := range all {
			w.boot(name)
		}
		w.formed(5*time.Minute, all...)
		leader, a := w.named(w.inits[0]), w.named("w1").agent()
		if got := a.controlPlanes(a.fence.read()); len(got) != 3 || got[0].Inst != leader.inst {
			t.Errorf("all are there: asks %v, expected the leader first", got)
		}
		w.powerOff(leader.name)
		if got := a.controlPlanes(a.fence.read()); len(got) != 3 || got[2].Inst != leader.inst {
			t.Errorf("the leader is gone: asks %v, expected it last", got)
		}
	})
}

// A turn to join that cannot be given back is taken over by the directory; the
// server that joined does not wait for that.
func TestJoinedWithoutGivingTheTurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0)
		defer w.shutdown()
		w.releaseFails = true
		w.boot("cp1")
		w.boot("cp2")
		w.formed(10*time.Minute, "cp1", "cp2")
	})
}
