package directory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/canonical/go-dqlite/app"

	"github.com/mustermetal/muster/pkg/member"
)

// A directory that is not the decree's is recognised before a byte of raft is
// spoken; a joiner says so and waits for the true one.
func TestFalseDirectoryIsNotJoined(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
	}{
		{"of another CA", func(c *Config) { c.CAHash = "sha256:" + strings.Repeat("b", 64) }},
		{"of another epoch", func(c *Config) { c.Epoch = 1 }},
		{"of another generation", func(c *Config) { c.Generation = 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			hosts := form(t, 2)
			hosts[1].stop(t)
			test.change(&hosts[1].config)
			hosts[1].config.Dir = DataDir(filepath.Join(hosts[1].dir, "data"), 9, 9)
			hosts[1].beginAndSay(t, "which is not joined, runs at "+hosts[0].config.Address.String())
			hosts[1].stop(t)
			if nodes, err := hosts[0].client.Nodes(deadline(t)); err != nil || len(nodes) != 2 || nodes[1].Role == "voter" {
				t.Errorf("nodes of the directory: %v, %v; want the former two and one voter", nodes, err)
			}
		})
	}
}

// What answers for another decree is believed neither when it is read nor when it
// is written to, even if it speaks the right protocol.
func TestFalseDirectoryIsNotBelieved(t *testing.T) {
	hosts := newHosts(t, 1)
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
	if _, err := n.store.ClaimRole(deadline(t), claim(1, 3)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]decree{
		"CA":         {caHash: "sha256:" + strings.Repeat("b", 64)},
		"epoch":      {epoch: 1, caHash: caHash},
		"generation": {generation: 1, caHash: caHash},
	} {
		t.Run(name, func(t *testing.T) {
			s := &store{db: n.db, want: want, learn: func([]row) {}, now: time.Now}
			ctx := deadline(t)
			_, claimErr := s.ClaimRole(ctx, claim(2, 3))
			_, readErr := s.Members(ctx)
			_, lockErr := s.AcquireJoin(ctx, inst(1))
			for what, err := range map[string]error{
				"ClaimRole": claimErr, "Members": readErr, "AcquireJoin": lockErr, "RenewJoin": s.RenewJoin(ctx, inst(1), 0),
				"SetPhase": s.SetPhase(ctx, inst(1), member.Ready, ""), "BindKey": s.BindKey(ctx, inst(5), inst(5), key("a")),
			} {
				if !errors.Is(err, ErrFalse) {
					t.Errorf("%s: %v, want ErrFalse", what, err)
				}
			}
		})
	}
	rows, err := n.store.rows(deadline(t))
	if err != nil || len(rows) != 1 || rows[0].Phase != member.Enrolling {
		t.Errorf("rows after all this: %v, %v; want the first alone, unchanged", rows, err)
	}
}

// The experiment of a first node that lost its disk while its election state, or a
// person, tells it to make the directory: it must not, wherever the mark was kept
// from, because the others would believe the empty one for some seconds.
func TestWipedFirstNodeIsNotMadeAgain(t *testing.T) {
	hosts := form(t, 3)
	hosts[0].stop(t)
	data := filepath.Join(hosts[0].dir, "data")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	alone := hosts[0].config
	alone.Peers = nil
	if err := Run(t.Context(), alone); !errors.Is(err, ErrRefused) {
		t.Errorf("alone, with the right of GO: %v, want ErrRefused", err)
	}
	hosts[0].run(t)
	if got := names(t, hosts[0]); got != "server01 server02 server03" {
		t.Errorf("members at the first node: %s", got)
	}
	if got := voters(t, hosts[1]); len(got) != 3 {
		t.Errorf("voters: %v, want 3", got)
	}
}

// The same when the safeguards are out of the way: a first node that was made
// anew under the same id and address, for another decree or without tables, is
// believed by nobody.
func TestRemadeFirstNodeIsNotBelieved(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, h *host)
	}{
		{"of another CA", func(t *testing.T, h *host) {
			h.config.CAHash = "sha256:" + strings.Repeat("b", 64)
			h.config.Right = &Right{specID: specID, caHash: h.config.CAHash}
			h.begin(t)
			h.awaitReady(t)
		}},
		{"without tables", func(t *testing.T, h *host) {
			c := h.config
			if err := os.Mkdir(c.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			a, err := app.New(c.Dir, app.WithAddress(c.Address.String()), app.WithTLS(c.listening(), c.dialling()),
				app.WithNetworkLatency(networkLatency), app.WithLogFunc(logFunc(c.Log)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			hosts := form(t, 3)
			hosts[0].stop(t)
			if err := errors.Join(os.RemoveAll(hosts[0].config.Dir), os.Remove(madeFile(hosts[0].config.Dir))); err != nil {
				t.Fatal(err)
			}
			test.make(t, hosts[0])
			// For as long as the experiment showed other answers, and more.
			for began := time.Now(); time.Since(began) < 8*time.Second; {
				for _, h := range hosts[1:] {
					members, err := h.client.Members(deadline(t))
					if err == nil && len(members) != 3 {
						t.Fatalf("%s believes %v", h.config.Address, members)
					}
				}
			}
			if got := names(t, hosts[1]); got != "server01 server02 server03" {
				t.Errorf("members at the end: %s", got)
			}
		})
	}
}
