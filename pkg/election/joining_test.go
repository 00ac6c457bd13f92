package election

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestJoining: a server with joining user-data never votes or counts, believes
// the CA that it carries and no other.
func TestJoining(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	late := testConfig(3, cluster.QuorumSafe)
	late.Joining, late.JoinCA = true, "sha256:ca-inst001"
	stray := late
	stray.JoinCA = "sha256:another"
	w.add(late)
	w.add(stray)
	w.bootAll()
	w.servers[2].up = false
	w.meet(w.servers[0], w.servers[1], w.servers[3], w.servers[4])
	w.run(time.Hour)
	w.wantPhases("forming forming off forming forming")
	if d := w.servers[0].core.Decree(); d.Votes != 2 {
		t.Errorf("%d votes are counted, expected 2", d.Votes)
	}
	if got := w.servers[0].core.Explain(); !strings.Contains(got, "missing: 1 that never answered (") {
		t.Errorf("servers that join are missed: %q", got)
	}
	again := testConfig(5, cluster.QuorumMajority) // a server that joins may be told other numbers
	again.Joining, again.JoinCA = true, late.JoinCA
	w.servers[3].up, w.servers[3].cfg = false, again
	w.bootUp(w.servers[3])
	if got := w.servers[3].core.Explain(); !strings.HasPrefix(got, "this server joins the cluster with CA") {
		t.Errorf("with other numbers: %q", got)
	}
	w.bootUp(w.servers[2])
	w.meet(w.servers...)
	w.run(time.Minute)
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.wantPhases("sealed sealed sealed sealed forming")
	if got := w.servers[4].core.Explain(); !strings.Contains(got, "this server joins the cluster with CA sha256:another and waits for a server of it; those in sight are of another: cp0, cp1, cp2, cp3: CA sha256:ca-inst001;") {
		t.Errorf("Explain = %q", got)
	}
	for _, i := range []int{0, 3} {
		if got := w.servers[i].core.Problems(); got != nil {
			t.Errorf("Problems of server %d = %q", i, got)
		}
	}
	if d := w.servers[3].core.Decree(); d.Leader.Name != "cp0" {
		t.Errorf("the joiner knows the leader as %q", d.Leader.Name)
	}
}

// TestJoiningSuperseded: a server that joined a cluster learns that it was
// superseded, and does not go over to another CA than the one that it pins.
func TestJoiningSuperseded(t *testing.T) {
	w := newWorld(t, 3, cluster.QuorumSafe)
	late := testConfig(3, cluster.QuorumSafe)
	late.Joining, late.JoinCA = true, "sha256:ca-inst001"
	w.add(late)
	w.bootAll()
	w.meet(w.servers...)
	w.run(time.Minute)
	w.step(w.servers[0], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.wantPhases("sealed sealed sealed sealed")
	w.servers[0].up = false
	w.meet(w.servers[1:]...)
	w.step(w.servers[1], Supersede{Dead: w.servers[0].hw, LoseCluster: true})
	w.run(time.Minute)
	w.wantPhases("off go go go")
	joiner := w.servers[3].core
	if void := joiner.State().VoidCAs(); !slices.Contains(void, late.JoinCA) {
		t.Errorf("void are %q", void)
	}
	w.step(w.servers[1], InitDone{Endpoint: "e:6443"})
	w.run(time.Minute)
	w.wantPhases("off sealed sealed go")
	if got := w.servers[3].core.Explain(); !strings.Contains(got, "those in sight are of another: cp1, cp2: CA sha256:ca-inst002") {
		t.Errorf("Explain = %q", got)
	}
}
