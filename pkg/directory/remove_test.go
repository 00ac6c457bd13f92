package directory

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/canonical/go-dqlite/client"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/revocation"
)

// wire is a live connection to a node, as dqlite's own are.
func wire(t *testing.T, from, to *host) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", to.config.Address.String(), from.config.dialling())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// dqlite's version, then a request for the leader: type 0, one word.
	hello := []byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 256)); err != nil {
		t.Fatalf("the node does not answer: %v", err)
	}
	return conn
}

// reaches says whether a node answers to another server.
func reaches(ctx context.Context, from, to *host) bool {
	cli, err := client.New(ctx, to.config.Address.String(), client.WithDialFunc(dialer(from.config.dialling())))
	if err != nil {
		return false
	}
	defer cli.Close()        //nolint:errcheck // only read from
	_, err = cli.Leader(ctx) // the client's side of TLS 1.3 learns only here that it was refused
	return err == nil
}

// severed waits for a connection to end and returns how long that took.
func severed(t *testing.T, conn net.Conn, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	if err := conn.SetReadDeadline(began.Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection of the removed member lives after %s", patience)
	}
	return time.Since(began)
}

// trio returns three nodes that vote.
func trio(t *testing.T) []*host {
	t.Helper()
	hosts := form(t, 3)
	// Three voters: the last one is promoted a moment after it came.
	for began := time.Now(); len(voters(t, hosts[0])) < 3; {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the third node does not become a voter")
		}
	}
	return hosts
}

func TestRemoveCutsAndRevokes(t *testing.T) {
	for _, gone := range []int{2, 0} { // a follower, and the first, which leads at most times
		t.Run(fmt.Sprintf("server%02d", gone+1), func(t *testing.T) {
			hosts := trio(t)
			victim, operator, third := hosts[gone], hosts[1], hosts[2-gone]
			name := fmt.Sprintf("server%02d", gone+1)
			if _, err := victim.client.AcquireJoin(deadline(t), victim.config.Inst); err != nil {
				t.Fatal(err)
			}
			here, there := wire(t, victim, operator), wire(t, victim, third)

			plan, err := operator.client.Remove(deadline(t), name, false)
			if err != nil || plan.Node != "voter" || plan.Voters != 2 || plan.Role != member.ControlPlane || plan.Member.Inst != victim.config.Inst {
				t.Fatalf("the plan is %+v, %v", plan, err)
			}
			if got := names(t, operator); got != "server01 server02 server03" {
				t.Fatalf("after the plan the members are %s", got)
			}
			if _, err := operator.client.Remove(deadline(t), name, true); err != nil {
				t.Fatal(err)
			}
			if took := severed(t, here, time.Second); took > time.Second {
				t.Errorf("cut after %s", took)
			}
			// The third learns it when it asks: that much, and what one question takes.
			t.Logf("cut at the other node %s after the answer", severed(t, there, revokedPeriod+time.Second).Round(time.Millisecond))

			nodes, err := operator.client.Nodes(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(nodes) != 2 || slices.ContainsFunc(nodes, func(n Node) bool { return n.Address == victim.config.Address.String() }) {
				t.Errorf("nodes after the removal: %+v", nodes)
			}
			// Its process still runs, and go-dqlite alone would serve it as before.
			short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if got, err := victim.client.Members(short); err == nil {
				t.Errorf("the removed member reads %+v", got)
			}
			for _, to := range []*host{operator, third} {
				if reaches(short, victim, to) {
					t.Errorf("the removed member connects to %s again", to.config.Address)
				}
			}
			expectBarred(t, operator, gone+1)
			// Whoever waits for its turn gets it, and the removed one's token is void.
			if turn, err := third.client.AcquireJoin(deadline(t), third.config.Inst); err != nil || !turn.Granted {
				t.Errorf("the turn after the removal: %+v, %v", turn, err)
			}
			// Again, by name and by instance.
			for _, who := range []string{name, victim.config.Inst} {
				if again, err := operator.client.Remove(deadline(t), who, true); err != nil || again.Role != member.NoRole || again.Node != "" {
					t.Errorf("Remove(%s) again = %+v, %v", who, again, err)
				}
			}
		})
	}
}

// expectBarred tries all that a removed instance must not do.
func expectBarred(t *testing.T, through *host, n int) {
	t.Helper()
	ctx := deadline(t)
	c := claim(n, 3)
	if role, err := through.client.ClaimRole(ctx, c); !errors.Is(err, ErrRevoked) {
		t.Errorf("a removed instance claims: %q, %v", role, err)
	}
	c.Name += "-new"
	if role, err := through.client.ClaimRole(ctx, c); !errors.Is(err, ErrRevoked) {
		t.Errorf("a removed instance claims by another name: %q, %v", role, err)
	}
	if err := through.client.BindKey(ctx, inst(n), inst(1000+n), key("f")); !errors.Is(err, ErrRevoked) {
		t.Errorf("a removed instance binds a key: %v", err)
	}
	if err := through.client.SetPhase(ctx, inst(n), member.Ready, ""); !errors.Is(err, ErrRevoked) {
		t.Errorf("a removed instance reports a phase: %v", err)
	}
	if turn, err := through.client.AcquireJoin(ctx, inst(n)); !errors.Is(err, ErrRevoked) {
		t.Errorf("a removed instance takes a turn: %+v, %v", turn, err)
	}
	if err := through.client.RenewJoin(ctx, inst(n), 1); !errors.Is(err, ErrLockLost) {
		t.Errorf("a removed instance renews its turn: %v", err)
	}
}

// The list holds when all start at once, and a directory that was made anew after
// a loss gets it back.
func TestRevokedOutlivesTheDirectory(t *testing.T) {
	hosts := newHosts(t, 1)
	h := hosts[0]
	h.run(t)
	for n := 1; n <= 2; n++ {
		c := claim(n, 1)
		c.First = n == 1
		if _, err := h.client.ClaimRole(deadline(t), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.client.Remove(deadline(t), "server02", true); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(h.config.Dir), RevokedFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := revocation.Parse(data)
	want := member.Revoked{Inst: inst(2), HW: inst(1002), Name: "server02", Address: netip.MustParseAddr("10.0.0.2")}
	if err != nil || len(list) != 1 || list[0] != want {
		t.Fatalf("%s holds %+v, %v; want %+v", path, list, err, want)
	}
	h.stop(t)
	if b, err := newBarred(h.config); err != nil || b.Check(inst(2)) == nil {
		t.Errorf("before the database answers: %v, %v", b, err)
	}
	if err := os.RemoveAll(h.config.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(madeFile(h.config.Dir)); err != nil {
		t.Fatal(err)
	}
	h.run(t) // as of another generation: with none of the rows
	for ctx := deadline(t); !errors.Is(err, ErrRevoked); {
		if _, err = h.client.ClaimRole(ctx, claim(2, 1)); ctx.Err() != nil {
			t.Fatalf("the removed instance claims again: %v", err)
		}
	}
	if got := names(t, h); got != "" {
		t.Errorf("members: %q; the row that it got before the list was read must go", got)
	}
}

// Which nodes may go.
func TestMayExpel(t *testing.T) {
	voter := func(id uint64, answers bool) replica {
		return replica{id: id, address: fmt.Sprintf("10.0.0.%d:9762", id), role: client.Voter, answers: answers}
	}
	rows := []row{{Member: member.Member{Name: "cp2", Address: netip.MustParseAddr("10.0.0.2")}}}
	spare := func(id uint64) replica { return replica{id: id, role: client.Spare, answers: true} }
	for name, test := range map[string]struct {
		nodes []replica
		gone  uint64
		heir  uint64
		text  string // of the refusal
	}{
		"one of three":                 {[]replica{voter(1, true), voter(2, true), voter(3, true)}, 3, 2, ""},
		"a dead one of three":          {[]replica{voter(1, true), voter(2, true), voter(3, false)}, 3, 2, ""},
		"one of three, another is off": {[]replica{voter(1, true), voter(2, false), voter(3, true)}, 3, 0, "2 voters, of which 1 answer and 2 are needed; start first: cp2"},
		"one of two":                   {[]replica{voter(1, true), voter(2, true)}, 2, 1, ""},
		"the only voter":               {[]replica{voter(1, true), spare(2)}, 1, 0, "the only voter"},
		"a spare":                      {[]replica{voter(1, true), spare(2)}, 2, 1, ""},
		"one of five, two are off":     {[]replica{voter(1, true), voter(2, false), voter(3, false), voter(4, true), voter(5, true)}, 5, 0, "4 voters, of which 2 answer and 3 are needed; start first: cp2, 10.0.0.3:9762"},
		"an off one of five":           {[]replica{voter(1, true), voter(2, false), voter(3, false), voter(4, true), voter(5, true)}, 2, 5, ""},
	} {
		i := slices.IndexFunc(test.nodes, func(r replica) bool { return r.id == test.gone })
		heir, err := mayExpel(test.nodes, rows, test.nodes[i], "cp1")
		if test.text == "" {
			if err != nil || heir != test.heir {
				t.Errorf("%s: heir %d, %v; want %d", name, heir, err, test.heir)
			}
		} else if !errors.Is(err, ErrMustStay) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %q", name, err, test.text)
		}
	}
}

// An address may have come to another instance since.
func TestNodeOf(t *testing.T) {
	at := netip.MustParseAddr("10.0.0.1")
	gone := member.Revoked{Inst: inst(1), Address: at}
	nodes := []replica{{id: 7, address: "10.0.0.1:9763"}, {id: 8, address: "10.0.0.2:9763"}}
	of := func(i int, role member.Role) []row {
		return []row{{Member: member.Member{Inst: inst(i), Address: at, Role: role}}}
	}
	for name, test := range map[string]struct {
		rows []row
		want bool
	}{
		"its own row":                 {of(1, member.ControlPlane), true},
		"no row any more":             {nil, true},
		"another control plane there": {of(2, member.ControlPlane), false},
		"a worker there":              {of(2, member.Worker), true},
	} {
		if got := nodeOf(nodes, test.rows, gone); (got != nil) != test.want || got != nil && got.id != 7 {
			t.Errorf("%s: node %+v", name, got)
		}
	}
}

// What Remove refuses, and the node that a crash left behind.
func TestRemoveRefusesAndResumes(t *testing.T) {
	hosts := trio(t)
	operator := hosts[1]
	if _, err := operator.client.Remove(deadline(t), "server02", true); !errors.Is(err, ErrMustStay) || !strings.Contains(err.Error(), "this server") {
		t.Errorf("a server removes itself: %v", err)
	}
	if _, err := operator.client.Remove(deadline(t), "server09", true); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("nobody of that name: %v", err)
	}
	// A crash between the row and the node: the row is gone, the node is there.
	s := storeOf(t, operator)
	if err := s.revoke(deadline(t), member.Revoked{Inst: inst(3), HW: inst(1003), Name: "server03", Address: hosts[2].config.Address.Addr()}); err != nil {
		t.Fatal(err)
	}
	if nodes, err := operator.client.Nodes(deadline(t)); err != nil || len(nodes) != 3 {
		t.Fatalf("nodes: %+v, %v", nodes, err)
	}
	hosts[2].stop(t)
	removal, err := operator.client.Remove(deadline(t), "server03", true)
	if err != nil || removal.Node == "" || removal.Role != member.NoRole {
		t.Fatalf("Remove after the crash = %+v, %v", removal, err)
	}
	if nodes, err := operator.client.Nodes(deadline(t)); err != nil || len(nodes) != 2 {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
}

// storeOf opens the database of a host that runs, past its process.
func storeOf(t *testing.T, h *host) *store {
	t.Helper()
	db, err := openDB(nodesFile(filepath.Join(h.config.Dir, nodesYAML)), dialer(h.config.dialling()), h.config.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &store{db: db, want: h.config.decree(), learn: func([]row) {}, cut: func([]member.Revoked) {}, now: time.Now}
}

// The place of a member that was removed is free, also the first one's, for a
// control plane and among the servers that are expected.
func TestRemovedPlaceIsFree(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	s := storeOf(t, hosts[0])
	ask := hosts[0].client
	for n := 1; n <= 3; n++ {
		c := claim(n, 2)
		c.First, c.Expect = n == 1, 3
		if _, err := ask.ClaimRole(deadline(t), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.revoke(deadline(t), member.Revoked{Inst: inst(1), HW: inst(1001), Name: "server01", Address: netip.MustParseAddr("10.0.0.1"), First: true}); err != nil {
		t.Fatal(err)
	}
	reinstalled := claim(4, 2)
	reinstalled.Name, reinstalled.HW, reinstalled.Expect = "server01", inst(1001), 3
	if role, err := ask.ClaimRole(deadline(t), reinstalled); err != nil || role != member.ControlPlane {
		t.Errorf("in its place: %q, %v; want a control plane", role, err)
	}
	late := claim(5, 2)
	late.Expect = 3
	if role, err := ask.ClaimRole(deadline(t), late); !errors.Is(err, ErrSurplus) {
		t.Errorf("one more: %q, %v; want a surplus", role, err)
	}
}

// A false directory revokes nobody.
func TestRevokeIsConditional(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	s := storeOf(t, hosts[0])
	s.want.epoch = 9
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err := s.revoke(ctx, member.Revoked{Inst: inst(1), HW: inst(2), Name: "x", Address: netip.MustParseAddr("10.0.0.1")})
	if !errors.Is(err, ErrFalse) {
		t.Errorf("revoke in another directory: %v, want ErrFalse", err)
	}
	s.want.epoch = 0
	if list, err := s.Revoked(deadline(t)); err != nil || len(list) != 0 {
		data, _ := json.Marshal(list)
		t.Errorf("revoked: %s, %v", data, err)
	}
}
