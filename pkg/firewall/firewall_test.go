package firewall

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// counted is nft, and how often it wrote.
type counted struct {
	nft
	loads chan string
}

func (c counted) Load(ctx context.Context, script string) error {
	err := c.nft.Load(ctx, script)
	c.loads <- script
	return err
}

// running is a keeper that runs until its stop.
type running struct {
	*Keeper
	loads   chan string
	reports chan member.FirewallStatus
	stop    func()
}

func start(t *testing.T, file string) running {
	t.Helper()
	r := running{Keeper: New(file, slog.New(slog.DiscardHandler)), loads: make(chan string, 100), reports: make(chan member.FirewallStatus, 100)}
	r.filter = counted{loads: r.loads}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx, func(s member.FirewallStatus) { r.reports <- s }) // ends with ctx
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited 20 s for %s", what)
		panic("unreachable")
	}
}

// none waits long enough for the events of a change to be acted on.
func none(t *testing.T, what string, c <-chan string) {
	t.Helper()
	select {
	case <-c:
		t.Errorf("%s: the table was written", what)
	case <-time.After(5 * coalesce):
	}
}

func listing(t *testing.T) string {
	t.Helper()
	out, err := nft{}.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The table is written once, healed when somebody changes it, and goes when it is
// off; the tables of others stay.
func TestKeeps(t *testing.T) {
	needNamespace(t)
	server := namespace{}
	t.Cleanup(func() { server.run(t, "", "nft", "flush", "ruleset") })
	file := filepath.Join(t.TempDir(), "firewall.json")
	f := order(t, "")
	r := start(t, file)
	r.Set(f)
	next(t, "the table", r.loads)
	if s := next(t, "the report", r.reports); s != (member.FirewallStatus{State: member.FirewallOn}) {
		t.Errorf("status %+v", s)
	}
	right := listing(t)
	none(t, "its own event", r.loads)
	r.Set(order(t, ""))
	none(t, "the same order", r.loads)
	server.run(t, "table inet filter { chain input { type filter hook input priority 0; policy accept; }; }", "nft", "-f", "-")
	none(t, "a table of others", r.loads)

	for _, change := range [][]string{
		{"nft", "flush", "ruleset"},
		{"nft", "flush", "chain", "inet", plan.FirewallTable, "guard"},
		{"nft", "insert", "rule", "inet", plan.FirewallTable, "guard", "accept"},
	} {
		began := time.Now()
		server.run(t, "", change...)
		next(t, "the table after "+strings.Join(change, " "), r.loads)
		t.Logf("%s: healed after %s", strings.Join(change, " "), time.Since(began).Round(time.Millisecond))
		none(t, "healed", r.loads)
		if diff := cmp.Diff(right, listing(t)); diff != "" {
			t.Errorf("after %v (-right +got):\n%s", change, diff)
		}
	}

	r.stop()
	again := start(t, file)
	again.Set(f)
	next(t, "the report of another run", again.reports)
	none(t, "another run", again.loads)

	server.run(t, "add table inet filter", "nft", "-f", "-")
	again.Set(plan.Firewall{Why: "of a test"})
	next(t, "the removal", again.loads)
	if s := next(t, "the report", again.reports); s != (member.FirewallStatus{State: member.FirewallOff, Reason: "of a test"}) {
		t.Errorf("status %+v", s)
	}
	if l := listing(t); l != "" {
		t.Errorf("it is off and there is\n%s", l)
	}
	if all := server.run(t, "", "nft", "list", "tables"); !strings.Contains(all, "table inet filter") {
		t.Errorf("the table of others is gone: %q", all)
	}
}

func TestRemove(t *testing.T) {
	needNamespace(t)
	t.Cleanup(func() { namespace{}.run(t, "", "nft", "flush", "ruleset") })
	load(t, order(t, ""))
	for _, want := range []bool{true, false} {
		removed, err := Remove(t.Context())
		if err != nil || removed != want || listing(t) != "" {
			t.Errorf("removed %t (%v), expected %t", removed, err, want)
		}
	}
}

// Without nft the ports stay open, which is said; nothing is to be removed then.
func TestNoProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	k := New(filepath.Join(t.TempDir(), "firewall.json"), slog.New(slog.DiscardHandler))
	k.Set(order(t, ""))
	s, err := k.pass(t.Context())
	if !errors.Is(err, errNoProgram) || s.State != member.FirewallFailed || !strings.Contains(s.Reason, "install the package nftables") {
		t.Errorf("status %+v, %v", s, err)
	}
	k.Set(order(t, "    firewall: {mode: off}\n"))
	if s, err := k.pass(t.Context()); err != nil || s.State != member.FirewallOff {
		t.Errorf("off: status %+v, %v", s, err)
	}
	if removed, err := Remove(t.Context()); err != nil || removed {
		t.Errorf("removed %t, %v", removed, err)
	}
}

// An nft that refuses what it is given says why.
func TestRefused(t *testing.T) {
	needNamespace(t)
	err := nft{}.Load(t.Context(), "add rule inet nothing input accept\n")
	if err == nil || !strings.Contains(err.Error(), "No such file or directory") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// fakeFilter is a table in memory that cannot be written at first.
type fakeFilter struct {
	table string
	fails int
	loads int
}

func (f *fakeFilter) List(context.Context) (string, error) { return f.table, nil }

func (f *fakeFilter) Load(_ context.Context, script string) error {
	f.loads++
	if f.loads <= f.fails {
		return errors.New("the kernel is busy")
	}
	f.table = script
	return nil
}

// What fails is tried again, after ever longer pauses, and reported once.
func TestRetries(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		filter := &fakeFilter{fails: 3}
		k := New(filepath.Join(dir, "firewall.json"), slog.New(slog.DiscardHandler))
		k.filter = filter
		k.watch = func(ctx context.Context, _ func()) error { <-ctx.Done(); return ctx.Err() }
		k.Set(order(t, ""))
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second+time.Second/2)
		defer cancel()
		var reports []string
		err := k.Run(ctx, func(s member.FirewallStatus) { reports = append(reports, s.State+" "+s.Reason) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if diff := cmp.Diff([]string{"failed the kernel is busy", "on "}, reports); diff != "" {
			t.Errorf("reports (-want +got):\n%s", diff)
		}
		if filter.loads != 4 { // after 0, 1, 3 and 7 s
			t.Errorf("%d attempts, expected 4", filter.loads)
		}
	})
}

// A name of the metadata service is looked up at every pass; what it stood for once
// stays, and so does the table while it gives the same addresses in another order.
func TestMetadataByName(t *testing.T) {
	k := New(filepath.Join(t.TempDir(), "firewall.json"), slog.New(slog.DiscardHandler))
	filter := &fakeFilter{}
	k.filter = filter
	var answer []netip.Addr
	k.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "metadata.example.net" {
			t.Errorf("looked up %q", host)
		}
		if answer == nil {
			return nil, errors.New("no such host")
		}
		return answer, nil
	}
	f := order(t, "")
	f.MetadataName, f.MetadataPort = "metadata.example.net", 8080
	k.Set(f)
	one, two := addr("192.80.8.124"), addr("2604:1380::124")
	for i, row := range []struct {
		answer []netip.Addr
		loads  int
	}{{nil, 1}, {[]netip.Addr{one}, 2}, {[]netip.Addr{two, one}, 3}, {[]netip.Addr{one, two}, 3}, {nil, 3}} {
		answer = row.answer
		if s, err := k.pass(t.Context()); err != nil || s.State != member.FirewallOn {
			t.Fatalf("status %+v, %v", s, err)
		}
		if filter.loads != row.loads {
			t.Errorf("pass %d: written %d times, expected %d", i, filter.loads, row.loads)
		}
	}
	for _, rule := range []string{"ip daddr 192.80.8.124 tcp dport 8080", "ip6 daddr 2604:1380::124 tcp dport 8080", "ip daddr 169.254.169.254 tcp dport 80"} {
		if !strings.Contains(filter.table, rule) {
			t.Errorf("no rule %q in\n%s", rule, filter.table)
		}
	}
}

// A state file that is damaged costs one more write.
func TestDamagedMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "firewall.json")
	k := New(file, slog.New(slog.DiscardHandler))
	filter := &fakeFilter{}
	k.filter = filter
	k.Set(order(t, ""))
	for i, content := range []string{"", "{", `{"version":1}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if s, err := k.pass(t.Context()); err != nil || s.State != member.FirewallOn {
				t.Errorf("status %+v, %v", s, err)
			}
		}
		if filter.loads != i+1 {
			t.Errorf("%q: written %d times, expected %d", content, filter.loads, i+1)
		}
	}
}
