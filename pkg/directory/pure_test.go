package directory

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/canonical/go-dqlite/client"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var compareAddrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestDecide(t *testing.T) {
	self := netip.MustParseAddrPort("10.0.0.1:9763")
	peer := netip.MustParseAddrPort("10.0.0.2:9763")
	alone := Config{Dir: "/d", Address: self, CAHash: caHash, Peers: []netip.AddrPort{self}}
	joiner, holder := alone, alone
	joiner.Peers = []netip.AddrPort{peer}
	holder.Right = &Right{}
	both := joiner
	both.Right = &Right{}
	mark := &formed{Version: formedVersion, CAHash: caHash}
	info := &client.NodeInfo{ID: 7, Address: self.String()}
	moved := &client.NodeInfo{ID: 7, Address: "10.0.0.9:9763"}
	whole := found{exists: true, formed: mark, info: info, nodes: true, raft: true}
	with := func(f found, change func(*found)) found { change(&f); return f }
	for _, test := range []struct {
		name  string
		found found
		c     Config
		want  step
	}{
		{"nothing, GO", found{}, holder, makeIt},
		{"nothing, GO and peers", found{}, both, makeIt},
		{"nothing, peers", found{}, joiner, joinIt},
		{"nothing, alone", found{}, alone, refuseIt},
		{"made before, GO", found{made: true}, holder, refuseIt},
		{"made before, GO and peers", found{made: true}, both, joinIt},
		{"staged", found{staged: true}, holder, publishIt},
		{"staged and marked", found{staged: true, made: true}, alone, publishIt},
		{"whole, alone", whole, alone, openIt},
		{"whole, GO", whole, holder, openIt},
		{"whole, joiner", whole, joiner, openIt},
		{"whole, of another CA", with(whole, func(f *found) { f.formed = &formed{Version: 1, CAHash: "sha256:b"} }), joiner, refuseIt},
		{"whole, moved", with(whole, func(f *found) { f.info = moved }), joiner, joinIt},
		{"whole, moved, alone", with(whole, func(f *found) { f.info = moved }), alone, refuseIt},
		{"no raft, peers", with(whole, func(f *found) { f.raft = false }), joiner, joinIt},
		{"no raft, alone", with(whole, func(f *found) { f.raft = false }), alone, refuseIt},
		{"no raft, GO", with(whole, func(f *found) { f.raft = false }), holder, refuseIt},
		{"dies at start, peers", with(whole, func(f *found) { f.starts = maxStarts }), joiner, joinIt},
		{"dies at start, alone", with(whole, func(f *found) { f.starts = maxStarts }), alone, openIt},
		{"half joined", found{exists: true, info: info}, joiner, joinIt},
		{"joining", found{exists: true, info: info, nodes: true, join: true}, joiner, resumeIt},
		{"joining, moved", found{exists: true, info: moved, nodes: true, join: true}, joiner, joinIt},
		{"joining, died often", found{exists: true, info: info, nodes: true, starts: maxStarts}, joiner, joinIt},
		{"emptied for a join", found{exists: true}, joiner, joinIt},
		{"emptied for a join, GO", found{exists: true}, holder, refuseIt},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, why := decide(test.found, test.c)
			if got != test.want || why == "" {
				t.Errorf("decide = %s (%s), want %s", got, why, test.want)
			}
		})
	}
}

// The one thing decide must never do, whatever lies on the disk.
func TestDecideMakesOnlyWithARightAndOnEmptyDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := found{
			exists: rapid.Bool().Draw(t, "exists"), staged: rapid.Bool().Draw(t, "staged"), made: rapid.Bool().Draw(t, "made"),
			nodes: rapid.Bool().Draw(t, "nodes"), join: rapid.Bool().Draw(t, "join"), raft: rapid.Bool().Draw(t, "raft"),
			starts: rapid.IntRange(0, 9).Draw(t, "starts"),
		}
		if f.exists && rapid.Bool().Draw(t, "formed") {
			f.formed = &formed{Version: formedVersion, CAHash: caHash}
		}
		c := Config{Address: netip.MustParseAddrPort("10.0.0.1:9763"), CAHash: caHash}
		if rapid.Bool().Draw(t, "right") {
			c.Right = &Right{}
		}
		if rapid.Bool().Draw(t, "peers") {
			c.Peers = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:9763")}
		}
		got, _ := decide(f, c)
		if got == makeIt && (c.Right == nil || f.exists || f.made || f.staged) {
			t.Fatalf("decide(%+v) makes a directory; right %v", f, c.Right != nil)
		}
		if got == openIt && !f.raft {
			t.Fatalf("decide(%+v) opens a node without its log", f)
		}
	})
}

func TestWatch(t *testing.T) {
	begin := time.Now()
	held := lock{holder: "a", token: 1, beat: 5}
	type sight struct {
		after time.Duration
		lock  lock
		want  bool
	}
	for _, test := range []struct {
		name   string
		sights []sight
	}{
		{"stands still", []sight{{0, held, false}, {takeOverAfter - 1, held, false}, {takeOverAfter, held, true}}},
		{"beats", []sight{{0, held, false}, {takeOverAfter - 1, lock{"a", 1, 6}, false}, {takeOverAfter + 1, lock{"a", 1, 6}, false}, {2*takeOverAfter - 1, lock{"a", 1, 6}, true}}},
		{"another holder", []sight{{0, held, false}, {takeOverAfter, lock{"b", 2, 7}, false}}},
		{"free", []sight{{0, lock{}, false}, {takeOverAfter, lock{}, false}}},
		{"seen once, late", []sight{{2 * takeOverAfter, held, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w watch
			for i, s := range test.sights {
				var got bool
				if w, got = w.look(s.lock, begin.Add(s.after)); got != s.want {
					t.Errorf("sight %d: may take %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

func TestTakeOver(t *testing.T) {
	hosts := newHosts(t, 1)
	now := time.Now()
	c := hosts[0].config
	if err := Bootstrap(t.Context(), *c.Right, c); err != nil {
		t.Fatal(err)
	}
	n, err := start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	n.store.now = func() time.Time { return now }
	ctx := deadline(t)
	for i := 1; i <= 2; i++ {
		if _, err := n.store.ClaimRole(ctx, claim(i, 3)); err != nil {
			t.Fatal(err)
		}
	}
	acquire := func(who int, want bool) int64 {
		t.Helper()
		turn, err := n.store.AcquireJoin(ctx, inst(who))
		if err != nil || turn.Granted != want {
			t.Fatalf("AcquireJoin(%d) = %+v, %v; want granted %v", who, turn, err, want)
		}
		return turn.Token
	}
	token := acquire(1, true)
	acquire(2, false)
	now = now.Add(takeOverAfter - time.Second)
	if err := n.store.RenewJoin(ctx, inst(1), token); err != nil {
		t.Fatal(err)
	}
	acquire(2, false)
	now = now.Add(takeOverAfter)
	acquire(2, true)
	if err := n.store.RenewJoin(ctx, inst(1), token); err == nil || !strings.Contains(err.Error(), inst(2)) {
		t.Errorf("RenewJoin of the one who was given up: %v, want an error that names the holder", err)
	}
}

func TestParsePlan(t *testing.T) {
	good := `{"version":1,"epoch":2,"generation":0,"caHash":"` + caHash + `","address":"10.0.0.1:9763","bootstrap":true,"peers":["10.0.0.2:9763","[fd00::2]:9763"]}`
	p, err := ParsePlan([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := Plan{Version: 1, Epoch: 2, CAHash: caHash, Address: netip.MustParseAddrPort("10.0.0.1:9763"), Bootstrap: true,
		Peers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:9763"), netip.MustParseAddrPort("[fd00::2]:9763")}}
	if diff := cmp.Diff(want, p, compareAddrs); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	for _, test := range []struct{ old, new, want string }{
		{`"version":1`, `"version":2`, "same binary"},
		{`"epoch":2`, `"epoch":-2`, "epoch"},
		{`"epoch":2`, `"epoch":2,"right":true`, "unknown field"},
		{`sha256:a`, `sha256:A`, "64 hex digits"},
		{`10.0.0.1:9763`, `0.0.0.0:9763`, "address of this server"},
		{`10.0.0.1:9763`, `10.0.0.1:0`, "address of this server"},
		{`"[fd00::2]:9763"`, `"10.0.0.2:9763"`, "listed twice"},
		{`]}`, `]}{}`, "more than one"},
	} {
		if _, err := ParsePlan([]byte(strings.Replace(good, test.old, test.new, 1))); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("with %s: %v, want %q", test.new, err, test.want)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"version":1,"epoch":0,"generation":0,"caHash":"` + caHash + `","address":"10.0.0.1:9763","bootstrap":false,"peers":[]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePlan(data)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		if err != nil {
			t.Fatalf("a plan that was read cannot be written: %v", err)
		}
		q, err := ParsePlan(again)
		if err != nil {
			t.Fatalf("a plan that was written cannot be read: %v", err)
		}
		if len(p.Peers) == 0 {
			p.Peers, q.Peers = nil, nil
		}
		if diff := cmp.Diff(p, q, compareAddrs); diff != "" {
			t.Errorf("plan changed on its way (-want +got):\n%s", diff)
		}
	})
}

func TestErrorsCrossTheSocket(t *testing.T) {
	for _, known := range codes {
		body, err := json.Marshal(problem{Code: known.code, Error: "a sentence"})
		if err != nil {
			t.Fatal(err)
		}
		got := decodeProblem("409 Conflict", strings.NewReader(string(body)))
		if got.Error() != "a sentence" || !errors.Is(got, known.err) {
			t.Errorf("%s comes out as %v, want an error that is %v", known.code, got, known.err)
		}
	}
	if err := decodeProblem("500 Internal Server Error", strings.NewReader("<html>")); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("an answer without a reason: %v", err)
	}
}
