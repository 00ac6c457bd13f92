package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

func claim(n, k int) Claim {
	return Claim{
		Inst: inst(n), HW: inst(1000 + n), Name: fmt.Sprintf("server%02d", n), ControlPlanes: k, Eligible: true,
		Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}),
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// form starts n nodes, each after it got the row of a control plane.
func form(t *testing.T, n int) []*host {
	t.Helper()
	return formOf(t, newHosts(t, n))
}

func formOf(t *testing.T, hosts []*host) []*host {
	t.Helper()
	hosts[0].run(t)
	defer t.Cleanup(func() { cancelAll(hosts) }) // before each is waited for
	for i, h := range hosts {
		c := claim(i+1, 3)
		c.First, c.Address = i == 0, h.config.Address.Addr()
		if role, err := hosts[0].client.ClaimRole(deadline(t), c); err != nil || role != member.ControlPlane {
			t.Fatalf("ClaimRole(%s) = %q, %v; want control-plane", c.Name, role, err)
		}
		if i > 0 {
			h.run(t)
		}
	}
	return hosts
}

// count counts the members by role.
func count(t *testing.T, h *host) map[member.Role]int {
	t.Helper()
	members, err := h.client.Members(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	n := map[member.Role]int{}
	for _, m := range members {
		n[m.Role]++
	}
	return n
}

func TestRolesNeverExceedTheLimit(t *testing.T) {
	hosts := form(t, 3)
	// Three more places, and twelve eligible servers and two others that ask at
	// once, through all three nodes, each twice.
	ctx := deadline(t)
	var wg sync.WaitGroup
	for n := 4; n <= 17; n++ {
		c := claim(n, 6)
		c.Eligible = n < 16
		for again := range 2 {
			wg.Go(func() {
				if _, err := hosts[(n+again)%3].client.ClaimRole(ctx, c); err != nil {
					t.Errorf("ClaimRole(%s): %v", c.Name, err)
				}
			})
		}
	}
	wg.Wait()
	for _, h := range hosts {
		if diff := cmp.Diff(map[member.Role]int{member.ControlPlane: 6, member.Worker: 11}, count(t, h)); diff != "" {
			t.Errorf("roles (-want +got):\n%s", diff)
		}
	}
	nodes, err := hosts[1].client.Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leaders := 0
	for _, n := range nodes {
		if n.Role != "voter" {
			t.Errorf("node %s is a %s, want a voter", n.Address, n.Role)
		}
		if n.Leader {
			leaders++
		}
	}
	if len(nodes) != 3 || leaders != 1 {
		t.Errorf("%d nodes with %d leaders, want 3 with 1", len(nodes), leaders)
	}
}

// The holder of GO is a control plane even when all others asked before it and
// its metadata says that it is not eligible.
func TestFirstPlaceIsKept(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	for n := 2; n <= 5; n++ {
		if _, err := hosts[0].client.ClaimRole(deadline(t), claim(n, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(t, hosts[0])[member.ControlPlane]; got != 2 {
		t.Errorf("%d control planes before the first came, want 2", got)
	}
	first := claim(1, 3)
	first.First, first.Eligible = true, false
	if role, err := hosts[0].client.ClaimRole(deadline(t), first); err != nil || role != member.ControlPlane {
		t.Fatalf("ClaimRole(first) = %q, %v; want control-plane", role, err)
	}
}

// A worker has a leaf of the agent CA too. Were it let in, it could write itself
// the row of a control plane.
func TestWorkersAreKeptOut(t *testing.T) {
	hosts := newHosts(t, 2)
	hosts[0].run(t)
	first, worker := claim(1, 1), claim(2, 1)
	first.First = true
	for _, c := range []Claim{first, worker} {
		if _, err := hosts[0].client.ClaimRole(deadline(t), c); err != nil {
			t.Fatal(err)
		}
	}
	dial := func() error {
		conn, err := tls.Dial("tcp", hosts[0].config.Address.String(), hosts[1].config.Dial)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		// The client's side of TLS 1.3 learns only here that it was refused.
		if _, err := conn.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	if err := dial(); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("a worker connects to the database: %v, want a refusal", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := prepareJoin(ctx, hosts[1].config, found{}, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a worker joins the database: %v, want that it waits for ever", err)
	}
}

func TestClaimsThatAreRefused(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	client, ctx := hosts[0].client, deadline(t)
	first := claim(1, 1)
	first.First = true
	if _, err := client.ClaimRole(ctx, first); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*Claim)) Claim {
		c := claim(2, 1)
		f(&c)
		return c
	}
	for _, test := range []struct {
		name  string
		claim Claim
		want  error
		text  string
	}{
		{"a name twice", change(func(c *Claim) { c.Name = first.Name }), ErrNameTaken, "two servers have the same hostname"},
		{"reinstalled", change(func(c *Claim) { c.Name, c.HW = first.Name, first.HW }), ErrNameTaken, "installed anew"},
		{"a second first", change(func(c *Claim) { c.First = true }), ErrFirstTaken, `"server01"`},
		{"renamed", change(func(c *Claim) { c.Inst = first.Inst }), ErrInvalid, `registered as "server01"`},
		{"no address", change(func(c *Claim) { c.Address = netip.Addr{} }), ErrInvalid, "not an address"},
		{"no instance", change(func(c *Claim) { c.Inst = "cp2" }), ErrInvalid, "32 hex digits"},
		{"no control planes", change(func(c *Claim) { c.ControlPlanes = 0 }), ErrInvalid, "at least 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			role, err := client.ClaimRole(ctx, test.claim)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("ClaimRole = %q, %v; want %v with %q", role, err, test.want, test.text)
			}
		})
	}
	if err := client.SetPhase(ctx, inst(99), member.Ready, ""); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("SetPhase of a stranger: %v, want ErrUnknownMember", err)
	}
	if err := client.SetPhase(ctx, first.Inst, member.Joining, "kubeadm join runs"); err != nil {
		t.Errorf("SetPhase: %v", err)
	}
	members, err := client.Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []member.Member{{Inst: first.Inst, HW: first.HW, Name: "server01", Address: first.Address, Role: member.ControlPlane, Phase: member.Joining, Detail: "kubeadm join runs"}}
	if diff := cmp.Diff(want, members, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

func TestJoinLockSerialises(t *testing.T) {
	hosts := form(t, 3)
	ctx := deadline(t)
	var mu sync.Mutex
	holders, most, turns := 0, 0, 0
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			var turn agent.JoinTurn
			for !turn.Granted {
				var err error
				if turn, err = h.client.AcquireJoin(ctx, inst(i+1)); err != nil {
					t.Errorf("AcquireJoin: %v", err)
					return
				}
			}
			mu.Lock()
			holders++
			most = max(most, holders)
			turns++
			mu.Unlock()
			for range 5 {
				if err := h.client.RenewJoin(ctx, inst(i+1), turn.Token); err != nil {
					t.Errorf("RenewJoin: %v", err)
				}
			}
			mu.Lock()
			holders--
			mu.Unlock()
			if err := h.client.ReleaseJoin(ctx, inst(i+1), turn.Token); err != nil {
				t.Errorf("ReleaseJoin: %v", err)
			}
		})
	}
	wg.Wait()
	if most != 1 || turns != 3 {
		t.Errorf("%d turns, up to %d at once; want 3, one at a time", turns, most)
	}
}

func TestJoinLockTokens(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	client, ctx := hosts[0].client, deadline(t)
	for n := 1; n <= 3; n++ {
		c := claim(n, 2)
		c.First = n == 1
		if _, err := client.ClaimRole(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.AcquireJoin(ctx, inst(3)); !errors.Is(err, ErrNotControlPlane) {
		t.Errorf("a worker acquires: %v, want ErrNotControlPlane", err)
	}
	if _, err := client.AcquireJoin(ctx, inst(9)); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("a stranger acquires: %v, want ErrUnknownMember", err)
	}
	one, err := client.AcquireJoin(ctx, inst(1))
	if err != nil || !one.Granted {
		t.Fatalf("AcquireJoin = %+v, %v", one, err)
	}
	other, err := client.AcquireJoin(ctx, inst(2))
	if diff := cmp.Diff(agent.JoinTurn{Holder: inst(1)}, other); err != nil || diff != "" {
		t.Errorf("AcquireJoin of another: %v, %s", err, diff)
	}
	again, err := client.AcquireJoin(ctx, inst(1)) // its agent was restarted
	if err != nil || !again.Granted || again.Token == one.Token {
		t.Fatalf("AcquireJoin again = %+v, %v; want a new token", again, err)
	}
	if err := client.RenewJoin(ctx, inst(1), one.Token); !errors.Is(err, ErrLockLost) {
		t.Errorf("RenewJoin with the former token: %v, want ErrLockLost", err)
	}
	for range 2 { // releasing twice is no error
		if err := client.ReleaseJoin(ctx, inst(1), again.Token); err != nil {
			t.Errorf("ReleaseJoin: %v", err)
		}
	}
	if err := client.RenewJoin(ctx, inst(1), again.Token); !errors.Is(err, ErrLockLost) {
		t.Errorf("RenewJoin after the release: %v, want ErrLockLost", err)
	}
}

func TestSocketIsPrivate(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	info, err := os.Stat(hosts[0].config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, want 0600", info.Mode())
	}
	hosts[0].stop(t)
	if _, err := hosts[0].client.Members(deadline(t)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Members of a directory that is off: %v, want ErrUnavailable", err)
	}
	if err := os.WriteFile(filepath.Join(hosts[0].dir, "sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hosts[0].run(t) // over a stale socket, from the files
	if _, err := hosts[0].client.Members(deadline(t)); err != nil {
		t.Errorf("Members after a restart: %v", err)
	}
}
