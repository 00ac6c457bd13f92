package directory

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
)

// voters returns the addresses of the database's voters.
func voters(t *testing.T, h *host) []string {
	t.Helper()
	nodes, err := h.client.Nodes(deadline(t))
	if err != nil {
		t.Fatalf("Nodes: %v", err)
	}
	var out []string
	for _, n := range nodes {
		if n.Role == "voter" {
			out = append(out, n.Address)
		}
	}
	return out
}

// names returns the members' names in one string.
func names(t *testing.T, h *host) string {
	t.Helper()
	members, err := h.client.Members(deadline(t))
	if err != nil {
		t.Fatalf("Members: %v", err)
	}
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

func TestEveryRestartFindsTheRows(t *testing.T) {
	testRestart(t, form(t, 3))
}

// The same over IPv6: dqlite keeps the addresses of nodes as text, with brackets.
func TestEveryRestartFindsTheRowsIPv6(t *testing.T) {
	hosts := newHostsAt(t, 3, func(int) netip.Addr { return netip.IPv6Loopback() })
	testRestart(t, formOf(t, hosts))
	if got := voters(t, hosts[0]); len(got) != 3 || !strings.HasPrefix(got[0], "[::1]:") {
		t.Errorf("the voters are %v", got)
	}
}

func testRestart(t *testing.T, hosts []*host) {
	t.Helper()
	cancelAll(hosts)
	for _, h := range hosts { // all off, then all on: nobody is asked for a right
		h.stop(t)
	}
	hosts[0].config.Right = nil
	for _, h := range hosts {
		h.begin(t)
	}
	for _, h := range hosts {
		h.awaitReady(t)
		if got := names(t, h); got != "server01 server02 server03" {
			t.Errorf("members at %s after the restart: %s", h.config.Address, got)
		}
	}
}

// A node that waits for the others is not damaged, however often it was ended
// while it did: three power cuts in a row must not make all nodes throw their
// files away and wait for each other.
func TestWaitingIsNoFailedStart(t *testing.T) {
	hosts := form(t, 3)
	cancelAll(hosts)
	for _, h := range hosts {
		h.stop(t)
	}
	h := hosts[1]
	starts := filepath.Join(h.config.Dir, startsFile)
	if err := os.WriteFile(starts, []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.beginAndSay(t, "waiting since")
	if data, err := os.ReadFile(starts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("failed starts while it waits: %q, %v; expected none", data, err)
	}
	h.stop(t)
}

// The stuck state "wiped joiner at the same address": go-dqlite refuses it for ever
// («server address already in use»), the cure is that the leader removes the former
// node first.
func TestWipedJoinerComesBack(t *testing.T) {
	hosts := form(t, 3)
	hosts[2].stop(t)
	if err := os.RemoveAll(filepath.Join(hosts[2].dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(hosts[2].dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	hosts[2].run(t)
	if got := voters(t, hosts[2]); len(got) != 3 {
		t.Errorf("voters after the wiped node came back: %v, want 3", got)
	}
}

// A first node that lost its files must come back as a joiner, whatever its
// election state says: made anew, it would be believed by the others.
func TestWipedFirstNodeJoins(t *testing.T) {
	hosts := form(t, 3)
	hosts[0].stop(t)
	if err := os.RemoveAll(hosts[0].config.Dir); err != nil {
		t.Fatal(err)
	}
	hosts[0].run(t) // with the right still in its hand
	if got := names(t, hosts[0]); got != "server01 server02 server03" {
		t.Errorf("members at the first node: %s", got)
	}
	if got := voters(t, hosts[1]); len(got) != 3 {
		t.Errorf("voters: %v, want 3", got)
	}
}

func TestKilledLeaderIsReplacedAndReturns(t *testing.T) {
	hosts := newHosts(t, 3)
	leader := hosts[0].spawn(t)
	for n := 1; n <= 3; n++ {
		c := claim(n, 3)
		c.First = n == 1
		if _, err := hosts[0].client.ClaimRole(deadline(t), c); err != nil {
			t.Fatal(err)
		}
	}
	hosts[1].run(t)
	hosts[2].run(t)
	kill(leader)
	began := time.Now()
	if role, err := hosts[1].client.ClaimRole(deadline(t), claim(4, 3)); err != nil || role != member.Worker {
		t.Fatalf("ClaimRole after the leader was killed: %q, %v", role, err)
	}
	t.Logf("the first write after the kill took %s", time.Since(began))
	hosts[0].spawn(t)
	if got := names(t, hosts[0]); got != "server01 server02 server03 server04" {
		t.Errorf("members at the killed node after its return: %s", got)
	}
}

// The stuck state "crash inside raft_bootstrap": metadata without a first segment,
// never a leader. It cannot arise, because nothing but a complete database is
// ever opened; what the crash left is thrown away.
func TestKilledWhileItIsMade(t *testing.T) {
	hosts := newHosts(t, 1)
	h := hosts[0]
	// What a crash in the middle of Bootstrap leaves: raft's metadata without a
	// first segment, and no mark that it is complete.
	staged := stagedDir(h.config.Dir)
	if err := os.Mkdir(staged, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(staged, "metadata1"), make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run(t)
	if got := names(t, h); got != "" {
		t.Errorf("members of a new directory: %q", got)
	}
	h.stop(t)
	// And a crash just before the rename.
	if err := os.Rename(h.config.Dir, staged); err != nil {
		t.Fatal(err)
	}
	h.config.Right = nil
	h.run(t)
	if got := voters(t, h); len(got) != 1 {
		t.Errorf("voters: %v, want 1", got)
	}
}

// The stuck states "crash between info.yaml and cluster.yaml" (go-dqlite: for ever
// «inconsistent info.yaml and cluster.yaml») and "crash after Add, before the join
// flag is removed" («server ID already in use»), and others of their kind.
func TestInterruptedJoins(t *testing.T) {
	for _, test := range []struct {
		name string
		harm func(t *testing.T, dir string)
	}{
		{"between info.yaml and cluster.yaml", func(t *testing.T, dir string) {
			remove(t, dir, formedFile, nodesYAML)
		}},
		{"after it was added, before the join flag went", func(t *testing.T, dir string) {
			remove(t, dir, formedFile)
			if err := os.WriteFile(filepath.Join(dir, joinFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"after it was added, before it was ready", func(t *testing.T, dir string) {
			remove(t, dir, formedFile)
		}},
		{"raft's metadata is gone", func(t *testing.T, dir string) {
			remove(t, dir, "metadata1", "metadata2")
		}},
		{"three starts in a row failed", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, startsFile), []byte("3\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			hosts := form(t, 2)
			hosts[1].stop(t)
			test.harm(t, hosts[1].config.Dir)
			hosts[1].run(t)
			nodes, err := hosts[1].client.Nodes(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(nodes) != 2 {
				t.Errorf("nodes %v, want 2: no ghost of the former one", nodes)
			}
		})
	}
}

func remove(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Remove(filepath.Join(dir, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// A node that the others removed while it was away ends with an error, and joins
// anew at the next start.
func TestRemovedNodeJoinsAnew(t *testing.T) {
	hosts := form(t, 3)
	hosts[2].stop(t)
	c := hosts[2].config
	// As the cure of a wiped node does it: remove the node of this address.
	aside := c
	aside.Dir = DataDir(t.TempDir(), 0, 0)
	if err := tryPrepare(t.Context(), aside, found{}, true); err != nil {
		t.Fatal(err)
	}
	hosts[2].begin(t)
	if err := hosts[2].ended(t); err == nil || !strings.Contains(err.Error(), "joins anew") {
		t.Fatalf("a removed node ended with %v", err)
	}
	hosts[2].run(t)
	if got := voters(t, hosts[0]); len(got) != 3 {
		t.Errorf("voters: %v, want 3", got)
	}
}

func TestRefusals(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].config.Right = nil
	hosts[0].begin(t)
	if err := hosts[0].ended(t); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no other control plane") {
		t.Errorf("without right and peers: %v, want ErrRefused", err)
	}
	hosts[0].config.Right = &Right{}
	hosts[0].begin(t)
	if err := hosts[0].ended(t); !errors.Is(err, ErrRefused) {
		t.Errorf("with an empty right: %v, want ErrRefused", err)
	}
	hosts[0].config.Right = right(t)
	hosts[0].config.Epoch = 1
	hosts[0].begin(t)
	if err := hosts[0].ended(t); !errors.Is(err, ErrRefused) {
		t.Errorf("with the right of another epoch: %v, want ErrRefused", err)
	}
	hosts[0].config.Epoch = 0
	hosts[0].run(t)
	hosts[0].stop(t)
	remove(t, hosts[0].config.Dir, "metadata1", "metadata2")
	hosts[0].begin(t)
	if err := hosts[0].ended(t); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("the only copy is damaged: %v, want ErrRefused", err)
	}
}

func TestRightOfGo(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*election.State)
		want   string // part of the refusal; empty: granted
	}{
		{"held", func(*election.State) {}, ""},
		{"another spec", func(s *election.State) { s.SpecID = "other" }, "reinstall this server"},
		{"no marker", func(s *election.State) { s.GoMarker = false }, "does not hold GO"},
		{"a new instance", func(s *election.State) { s.Inst = hex32("9") }, "does not hold GO"},
		{"only led", func(s *election.State) { s.Slots = s.Slots[:1] }, "does not hold GO"},
		{"abdicated", func(s *election.State) { s.Slots[1].Decided.Kind = election.Abdicate }, "does not hold GO"},
		{"sealed", func(s *election.State) { s.Sealed.CAHash = caHash }, "sealed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := heldGo()
			test.change(&state)
			r, err := RightOfGo(state, specID)
			if test.want == "" {
				if err != nil || r != (Right{specID: specID, caHash: caHash}) {
					t.Errorf("RightOfGo = %+v, %v", r, err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) || r != (Right{}) {
				t.Errorf("RightOfGo = %+v, %v; want a refusal with %q", r, err, test.want)
			}
		})
	}
}

func TestSecondProcessIsKeptAway(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	c := hosts[0].config
	c.Log = slog.New(slog.DiscardHandler)
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second Run on the same files: %v", err)
	}
	if got := fmt.Sprint(voters(t, hosts[0])); got != "["+c.Address.String()+"]" {
		t.Errorf("voters: %s", got)
	}
}
