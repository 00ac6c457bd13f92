package directory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// sealedState is the durable state of an instance of the sealed cluster.
func sealedState(n int) election.State {
	s := heldGo()
	s.Inst, s.Hardware.HW, s.GoMarker = inst(n), inst(1000+n), n == 1
	s.Sealed = election.Sealed{CAHash: caHash, Endpoint: "10.0.0.1:6443"}
	return s
}

// next makes a host's configuration that of a later generation; with rows it won
// the Lease of it.
func (h *host) next(t *testing.T, generation uint64, rows []member.Record) {
	t.Helper()
	h.config.Generation, h.config.Right, h.config.Rows = generation, nil, rows
	h.config.Dir = DataDir(filepath.Join(h.dir, "data"), 0, generation)
	if rows == nil {
		return
	}
	state := sealedState(1)
	state.Inst = h.config.Inst
	r, err := RightOfLease(state, specID, plan.Lease{CAHash: caHash, Generation: generation, Holder: h.config.Inst})
	if err != nil {
		t.Fatalf("RightOfLease: %v", err)
	}
	h.config.Right = &r
}

// wipe empties a host's disk.
func (h *host) wipe(t *testing.T) {
	t.Helper()
	data := filepath.Join(h.dir, "data")
	if err := errors.Join(os.RemoveAll(data), os.Mkdir(data, 0o700)); err != nil {
		t.Fatal(err)
	}
}

// records reads what a new generation is made from.
func records(t *testing.T, h *host) []member.Record {
	t.Helper()
	list, err := h.client.Records(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func stopAll(t *testing.T, hosts []*host) {
	t.Helper()
	cancelAll(hosts)
	for _, h := range hosts {
		h.stop(t)
	}
}

// All copies are lost but one that is no majority. A new generation has the same
// names, roles and keys; no control plane is one too many; the member that comes
// back with the old generation joins and drops it.
func TestNextGeneration(t *testing.T) {
	hosts := form(t, 3)
	ctx := deadline(t)
	if _, err := hosts[0].client.ClaimRole(ctx, claim(4, 3)); err != nil {
		t.Fatal(err)
	}
	for n, digit := range []string{"a", "b", "c", "d"} {
		if err := hosts[0].client.BindKey(ctx, inst(n+1), inst(1001+n), key(digit)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hosts[0].client.ClaimRole(ctx, claim(6, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[0].client.Remove(ctx, claim(6, 3).Name, true); err != nil {
		t.Fatal(err)
	}
	before := records(t, hosts[1])
	oldDir := hosts[2].config.Dir
	stopAll(t, hosts)
	hosts[0].wipe(t)
	hosts[1].wipe(t)
	remove(t, filepath.Dir(hosts[2].config.Dir), RevokedFile) // nobody remembers the removal but the records

	hosts[1].next(t, 1, plan.Refill(before, nil))
	hosts[1].run(t)
	hosts[0].next(t, 1, nil)
	hosts[0].run(t)

	// The third comes back as it was: alone with the old generation it never answers.
	hosts[2].beginAndSay(t, "waiting since")
	hosts[2].stop(t)
	hosts[2].next(t, 1, nil)
	hosts[2].run(t)
	if _, err := os.Stat(oldDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old generation is still on the disk: %v", err)
	}

	ctx = deadline(t)
	for _, h := range hosts {
		if diff := cmp.Diff(before, records(t, h), compareAddr); diff != "" {
			t.Errorf("records at %s (-before +after):\n%s", h.config.Address, diff)
		}
	}
	if got := voters(t, hosts[2]); len(got) != 3 {
		t.Errorf("voters: %v, want 3", got)
	}
	if role, err := hosts[0].client.ClaimRole(ctx, claim(5, 3)); err != nil || role != member.Worker {
		t.Errorf("a fourth eligible server is a %q, %v; want worker", role, err)
	}
	if role, err := hosts[0].client.ClaimRole(ctx, claim(2, 3)); err != nil || role != member.ControlPlane {
		t.Errorf("the second asks again and is a %q, %v; want control-plane", role, err)
	}
	if err := hosts[2].client.BindKey(ctx, inst(4), inst(1004), key("e")); !errors.Is(err, ErrKeyTaken) {
		t.Errorf("another key of the worker: %v, want ErrKeyTaken", err)
	}
	if _, err := hosts[0].client.ClaimRole(ctx, claim(6, 3)); !errors.Is(err, ErrRevoked) {
		t.Errorf("the removed server asks again: %v, want ErrRevoked", err)
	}
	if turn, err := hosts[0].client.AcquireJoin(ctx, inst(1)); err != nil || turn.Token <= 1<<32 {
		t.Errorf("the first turn of generation 1: %+v, %v; want a token above all of generation 0", turn, err)
	}
}

var compareAddr = cmp.Comparer(func(a, b member.Record) bool { return a == b })

// Two control planes have one voter, and a spare without data. When the voter's disk
// is gone the spare cannot lead, and makes the next generation.
func TestNextGenerationOfTwo(t *testing.T) {
	hosts := form(t, 2)
	before := records(t, hosts[1])
	stopAll(t, hosts)
	hosts[0].wipe(t)
	hosts[1].next(t, 1, plan.Refill(before, nil))
	hosts[1].run(t)
	hosts[0].next(t, 1, nil)
	hosts[0].run(t)
	if got := names(t, hosts[0]); got != "server01 server02" {
		t.Errorf("members: %s", got)
	}
}

// A single control plane whose files are damaged; and the winner may be interrupted.
func TestNextGenerationOfOne(t *testing.T) {
	hosts := form(t, 1)
	h := hosts[0]
	before := records(t, h)
	h.stop(t)
	remove(t, h.config.Dir, "metadata1", "metadata2")
	h.begin(t)
	if err := h.ended(t); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "make a new generation") {
		t.Errorf("the only copy is damaged: %v, want ErrRefused and what comes next", err)
	}
	h.next(t, 1, plan.Refill(before, nil))
	staged := stagedDir(h.config.Dir)
	if err := errors.Join(os.Mkdir(staged, 0o700), os.WriteFile(filepath.Join(staged, "metadata1"), make([]byte, 32), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.run(t)
	if got := names(t, h); got != "server01" {
		t.Errorf("members: %s", got)
	}
	// Made once, never again, though the right is still in its hand.
	h.stop(t)
	h.wipe(t)
	alone := h.config
	alone.Peers = nil
	if err := Run(t.Context(), alone); !errors.Is(err, ErrRefused) {
		t.Errorf("making generation 1 twice: %v, want ErrRefused", err)
	}
}

// A majority of the old generation still runs while the next one is made, at the
// address and with the id of a node that it knows. Neither touches the other.
func TestOldMajorityDoesNotTouchTheNextGeneration(t *testing.T) {
	hosts := form(t, 3)
	before := records(t, hosts[1])
	hosts[0].stop(t)
	hosts[0].wipe(t)
	hosts[0].next(t, 1, plan.Refill(before, nil))
	hosts[0].run(t)
	newcomer, late := claim(7, 3), claim(8, 3)
	if _, err := hosts[0].client.ClaimRole(deadline(t), newcomer); err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[1].client.ClaimRole(deadline(t), late); err != nil {
		t.Fatalf("the old majority does not write: %v", err)
	}
	// For longer than raft needed to overwrite a wiped first node (5 to 6 s).
	for began := time.Now(); time.Since(began) < 8*time.Second; {
		if got := names(t, hosts[0]); got != "server01 server02 server03 server07" {
			t.Fatalf("generation 1 says %s", got)
		}
		if got := names(t, hosts[1]); got != "server01 server02 server03 server08" {
			t.Fatalf("generation 0 says %s", got)
		}
	}
	stopAll(t, hosts[1:])
	for _, h := range hosts[1:] {
		h.next(t, 1, nil)
		h.run(t)
	}
	if got := names(t, hosts[2]); got != "server01 server02 server03 server07" {
		t.Errorf("members when all have dropped generation 0: %s", got)
	}
	if got := voters(t, hosts[2]); len(got) != 3 {
		t.Errorf("voters: %v, want 3", got)
	}
}

// A node of the cluster that no record names keeps its name and its place. A worker
// gets its row back by asking; a control plane by its record, never by asking.
func TestUnknownNodes(t *testing.T) {
	hosts := newHosts(t, 1)
	h := hosts[0]
	self := member.Record{Inst: h.config.Inst, HW: inst(1001), Name: "server01", Address: h.config.Address.Addr(), Role: member.ControlPlane}
	cp2, w3 := claim(2, 2), claim(3, 2)
	h.next(t, 1, plan.Refill([]member.Record{self}, []plan.ClusterNode{
		{Name: cp2.Name, Address: cp2.Address, ControlPlane: true}, {Name: w3.Name, Address: w3.Address},
	}))
	h.run(t)
	ctx := deadline(t)
	if role, err := h.client.ClaimRole(ctx, claim(9, 2)); err != nil || role != member.Worker {
		t.Errorf("a new server is a %q, %v; want worker: the place is taken", role, err)
	}
	elsewhere := w3
	elsewhere.Address = cp2.Address
	for name, c := range map[string]Claim{"a control plane": cp2, "a worker at another address": elsewhere} {
		if _, err := h.client.ClaimRole(ctx, c); !errors.Is(err, ErrNameTaken) {
			t.Errorf("%s asks for its row: %v, want ErrNameTaken", name, err)
		}
	}
	if role, err := h.client.ClaimRole(ctx, w3); err != nil || role != member.Worker {
		t.Errorf("the worker asks for its row: %q, %v", role, err)
	}
	known := member.Record{Inst: cp2.Inst, HW: cp2.HW, Name: cp2.Name, Address: cp2.Address, Role: member.ControlPlane, Key: key("a")}
	for range 2 {
		if err := h.client.Restore(ctx, []member.Record{known}); err != nil {
			t.Fatal(err)
		}
	}
	want := []member.Record{self, known, {Inst: w3.Inst, HW: w3.HW, Name: w3.Name, Address: w3.Address, Role: member.Worker}}
	got := records(t, h)
	if diff := cmp.Diff(want, got[:min(3, len(got))], compareAddr); diff != "" || len(got) != 4 {
		t.Errorf("%d records, want 4 (-want +got):\n%s", len(got), diff)
	}
	for name, r := range map[string]member.Record{
		"role": {Inst: inst(20), HW: inst(21), Name: "x", Address: cp2.Address, Role: "king"},
		"key":  {Inst: inst(20), HW: inst(21), Name: "x", Address: cp2.Address, Role: member.Worker, Key: "sha256:1"},
		"inst": {Inst: "x", HW: inst(21), Name: "x", Address: cp2.Address, Role: member.Worker},
	} {
		if err := h.client.Restore(ctx, []member.Record{r}); !errors.Is(err, ErrInvalid) {
			t.Errorf("a record with a wrong %s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestRightOfLease(t *testing.T) {
	won := plan.Lease{CAHash: caHash, Generation: 3, Holder: inst(2)}
	for _, test := range []struct {
		name   string
		change func(*election.State, *plan.Lease)
		want   string // part of the refusal; empty: granted
	}{
		{"won", func(*election.State, *plan.Lease) {}, ""},
		{"another spec", func(s *election.State, _ *plan.Lease) { s.SpecID = "other" }, "reinstall this server"},
		{"not sealed", func(s *election.State, _ *plan.Lease) { s.Sealed = election.Sealed{} }, "only GO permits"},
		{"another CA", func(_ *election.State, l *plan.Lease) { l.CAHash = "sha256:b" }, "was sealed with"},
		{"another epoch", func(_ *election.State, l *plan.Lease) { l.Epoch = 1 }, "was sealed with"},
		{"won by another", func(_ *election.State, l *plan.Lease) { l.Holder = inst(1) }, "only the one that won"},
		{"made already", func(_ *election.State, l *plan.Lease) { l.Beat = 1 }, "only once"},
		{"generation 0", func(_ *election.State, l *plan.Lease) { l.Generation = 0 }, "only the one that won"},
		{"a new life", func(s *election.State, _ *plan.Lease) { s.Inst = inst(9) }, "only the one that won"},
	} {
		t.Run(test.name, func(t *testing.T) {
			state, l := sealedState(2), won
			test.change(&state, &l)
			r, err := RightOfLease(state, specID, l)
			if test.want == "" {
				if err != nil || r.permits(decree{0, 3, caHash}) != nil {
					t.Fatalf("RightOfLease = %+v, %v", r, err)
				}
				for _, d := range []decree{{0, 2, caHash}, {0, 4, caHash}, {1, 3, caHash}, {0, 3, "sha256:b"}} {
					if err := r.permits(d); !errors.Is(err, ErrRefused) {
						t.Errorf("it permits %+v: %v", d, err)
					}
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) || r != (Right{}) {
				t.Errorf("RightOfLease = %+v, %v; want a refusal with %q", r, err, test.want)
			}
		})
	}
}

func TestGenerationsOnDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "directory")
	if g, err := Latest(root, 0); g != 0 || err != nil {
		t.Errorf("without a disk: %d, %v", g, err)
	}
	for _, name := range []string{"e0-g0", "e0-g1.new", "e0-g2", "e1-g0", "e1-g7.lock", "e0-g9.bak", "e00-gx", "revoked.json"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for epoch, want := range []uint64{2, 7, 0} {
		if g, err := Latest(root, uint64(epoch)); g != want || err != nil {
			t.Errorf("latest of epoch %d: %d, %v; want %d", epoch, g, err, want)
		}
	}
	if err := dropOlder(Config{Dir: DataDir(root, 0, 2), Generation: 2}); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, path := range list {
		left = append(left, filepath.Base(path))
	}
	if diff := cmp.Diff([]string{"e0-g2", "e0-g9.bak", "e00-gx", "e1-g0", "e1-g7.lock", "revoked.json"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
