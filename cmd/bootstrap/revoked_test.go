package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/revocation"
)

// revoke writes the file as the directory's process does.
func revoke(t *testing.T, path, inst string) {
	t.Helper()
	data, err := revocation.Marshal([]member.Revoked{{Inst: inst, HW: id("b"), Name: "n", Address: loopback}})
	if err == nil {
		err = durable.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAgentPortRefusesRevoked: from the moment that the file names an instance,
// its live connections end, its requests are refused with a sentence, and it is
// not called.
func TestAgentPortRefusesRevoked(t *testing.T) {
	c := cluster.Cluster{Spec: cluster.Spec{ID: trustSpec, Ports: freePorts(t)}}
	var err error
	if c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64))); err != nil {
		t.Fatal(err)
	}
	one, two := connectAt(t, c, "127.0.0.2", id("1")), connectAt(t, c, "127.0.0.3", id("2"))
	pin, err := one.trust.EnsureAgentCA()
	if err == nil {
		err = one.trust.Lead(pin)
	}
	if err != nil {
		t.Fatal(err)
	}
	enrolSelf(t, one.trust, one.trust, id("1"), pin)
	enrolSelf(t, one.trust, two.trust, id("2"), pin)
	ask := func(from, to connected) error {
		_, err := from.fabric.Calls.(calls).agents.Status(t.Context(), agent.Peer{Inst: to.inst, Address: to.at})
		return err
	}
	for _, pair := range [][2]connected{{one, two}, {two, one}} {
		if err := ask(pair[0], pair[1]); err != nil {
			t.Fatalf("before: %v", err)
		}
	}
	live, err := tls.Dial("tcp", netip.AddrPortFrom(one.at, c.Spec.Ports.Agents).String(), two.trust.agentClient(id("1")))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	request := "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
	if _, err := live.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	if _, err := live.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}

	revoke(t, one.revoked, id("2"))
	began := time.Now()
	if err := live.SetReadDeadline(began.Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, live); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a live connection of a revoked instance goes on")
	}
	took := time.Since(began)
	t.Logf("cut %s after the file was written", took.Round(time.Millisecond))
	if took > revokedPeriod+time.Second {
		t.Errorf("cut after %s, the file is looked at every %s", took, revokedPeriod)
	}
	if err := ask(two, one); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "was removed from this cluster") {
		t.Errorf("its next request: %v, want the sentence", err)
	}
	// Its own call's connection is closed right after those of callers.
	for err = ask(one, two); err == nil && time.Since(began) < 10*time.Second; {
		err = ask(one, two)
	}
	if err == nil || !strings.Contains(err.Error(), "was removed from this cluster") {
		t.Errorf("it is called: %v, want that it is not", err)
	}
}

// TestBarFollowsTheFile: a list that becomes unreadable stays as it was; a server
// that starts with such a one does not open its ports.
func TestBarFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked.json")
	log := slog.New(slog.DiscardHandler)
	b, err := openBar(path, log)
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, path, id("a"))
	if err := b.read(); err != nil || b.list.Check(id("a")) == nil {
		t.Errorf("the list was written: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"rev`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is told as long as it lasts
		if err := b.read(); err == nil || !strings.Contains(err.Error(), "remove it") || b.list.Check(id("a")) == nil {
			t.Errorf("a damaged list: %v", err)
		}
	}
	if _, err := openBar(path, log); err == nil {
		t.Error("a server starts with a damaged list")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := b.read(); err != nil || b.list.Check(id("a")) == nil {
		t.Errorf("the list is gone: %v; what is revoked stays", err)
	}
	revoke(t, path, id("c"))
	if err := b.read(); err != nil || b.list.Check(id("c")) == nil {
		t.Errorf("another list: %v", err)
	}
}

// TestMemberCommands: wrong command lines, and what the agent is asked for.
func TestMemberCommands(t *testing.T) {
	hw := id("4")
	for _, test := range []struct {
		line string
		code int
		text string
	}{
		{"approve", exitUsage, "either a hardware id or --ca"},
		{"approve " + hw + " --ca sha256:x", exitUsage, "either a hardware id or --ca"},
		{"approve cp4", exitUsage, "no hardware id"},
		{"remove", exitUsage, "whom to remove is missing"},
		{"remove a b", exitUsage, "unexpected argument"},
		{"approve " + hw, exitUnavailable, "the directory of this server does not answer"},
		{"remove --yes cp3", exitUnavailable, "the directory of this server does not answer"},
		{"approve --ca sha256:" + id("0") + id("1"), exitUnavailable, "fence still starts"},
	} {
		socket := agentAt(t, localHandler(quietServer(t)).ServeHTTP)
		args := strings.Fields(test.line)
		args = append([]string{args[0], "--socket", socket}, args[1:]...)
		code, stdout, stderr := bootstrapRun(t, args...)
		if code != test.code || !strings.Contains(stderr, test.text) || stdout != "" {
			t.Errorf("bootstrap %s: exit code %d, %s%s; expected %d and %q", test.line, code, stdout, stderr, test.code, test.text)
		}
	}
}
