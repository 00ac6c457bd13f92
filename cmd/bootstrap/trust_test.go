package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/rpc"
)

const trustSpec = "5b0c0000000000000000000000000001"

var loopback = netip.MustParseAddr("127.0.0.1")

// id is a hex id of 32 digits.
func id(digit string) string { return strings.Repeat(digit, 32) }

// trustAt opens a server's keys as connect does; dir is its disk.
func trustAt(t *testing.T, dir, spec, inst string) *trust {
	t.Helper()
	return trustBy(t, 7, dir, spec, inst)
}

// trustBy is trustAt with a secret of this byte.
func trustBy(t *testing.T, b byte, dir, spec, inst string) *trust {
	t.Helper()
	secret, err := cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{b}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.Derive(secret, spec)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := openTrust(dir, keys, nil, spec, identity.Subject{Inst: inst, HW: id("b"), Name: "n", IPs: []netip.Addr{loopback}})
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// leading is a server that made its agent CA and leads with it.
func leading(t *testing.T, dir, inst string) (*trust, string) {
	t.Helper()
	leader := trustAt(t, dir, trustSpec, inst)
	pin, err := leader.EnsureAgentCA()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Lead(pin); err != nil {
		t.Fatal(err)
	}
	enrolSelf(t, leader, leader, inst, pin)
	return leader, pin
}

func enrolSelf(t *testing.T, signer, joiner *trust, inst, pin string) {
	t.Helper()
	csr, err := joiner.CSR()
	if err != nil {
		t.Fatal(err)
	}
	e, err := signer.Sign(agent.Caller{Inst: inst, HW: id("b"), Address: loopback}, csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := joiner.Install(e, pin); err != nil {
		t.Fatal(err)
	}
}

// answering signs with a trust, as the flow does.
type answering struct {
	rpc.Serving
	trust *trust
	from  agent.Caller
}

func (a *answering) Fence(context.Context, agent.Caller, []byte) ([][]byte, error) { return nil, nil }
func (a *answering) Status(context.Context) member.Status {
	return member.Status{Member: member.Member{Name: "cp1"}}
}
func (a *answering) Enrol(_ context.Context, from agent.Caller, r agent.EnrolRequest) (agent.Enrolment, error) {
	a.from = from
	return a.trust.Sign(from, r.CSR)
}
func (a *answering) Standing(context.Context, agent.Caller) (agent.Standing, error) {
	return agent.Standing{}, nil
}
func (a *answering) Members(context.Context) ([]member.Member, error) {
	return []member.Member{{Name: "cp1"}}, nil
}

// TestEnrolment: over both real ports, a server without an agent certificate gets
// one by its secret alone, and from then on reaches the agent port.
func TestEnrolment(t *testing.T) {
	leader, pin := leading(t, t.TempDir(), id("a"))
	joiner := trustAt(t, t.TempDir(), trustSpec, id("c"))
	answers := &answering{trust: leader}
	listen := func() (net.Listener, uint16) {
		l, err := rpc.Listen(t.Context(), netip.AddrPortFrom(loopback, 0), "agents")
		if err != nil {
			t.Fatal(err)
		}
		return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	enrolment, enrolmentPort := listen()
	agents, agentPort := listen()
	log := slog.New(slog.DiscardHandler)
	go func() {
		_ = rpc.Serve(t.Context(), enrolment, leader.enrolment.ServerConfig(), rpc.EnrolmentHandler(answers, identify), log)
	}()
	go func() {
		_ = rpc.Serve(t.Context(), agents, leader.agentServer(), rpc.AgentHandler(answers, identify), log)
	}()
	peer := agent.Peer{Inst: id("a"), Address: loopback}
	calls := calls{
		enrolment: rpc.NewClient(enrolmentPort, joiner.enrolment.ClientConfig, identify),
		agents:    rpc.NewClient(agentPort, joiner.agentClient, identify),
		enrolled:  joiner.Enrolled,
	}

	if _, err := calls.Members(t.Context(), peer); err == nil {
		t.Error("the agent port answered a server that has not enrolled")
	}
	if s, err := calls.Status(t.Context(), peer); err != nil || s.Name != "cp1" {
		t.Errorf("status before enrolling: %+v, %v", s, err)
	}
	csr, err := joiner.CSR()
	if err != nil {
		t.Fatal(err)
	}
	e, err := calls.Enrol(t.Context(), peer, agent.EnrolRequest{CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	if answers.from.Inst != id("c") || answers.from.HW != id("b") {
		t.Errorf("the signer was asked by %+v", answers.from)
	}
	if err := joiner.Install(e, pin); err != nil {
		t.Fatal(err)
	}
	if _, err := calls.Members(t.Context(), peer); err != nil {
		t.Errorf("the agent port refuses an enrolled server: %v", err)
	}
	if joiner.CanSign() {
		t.Error("a server that only enrolled can sign")
	}
	// Another cluster's agents, with an agent CA of their own, are kept out.
	stranger, _ := leading(t, t.TempDir(), id("d"))
	other := rpc.NewClient(agentPort, stranger.agentClient, identify)
	if _, err := other.Members(t.Context(), peer); err == nil {
		t.Error("the agent port answered an agent of another CA")
	}
}

// TestAgentPortBeforeEnrolment: a server that has no certificate yet refuses
// every caller on the agent port, and calls nobody there.
func TestAgentPortBeforeEnrolment(t *testing.T) {
	fresh := trustAt(t, t.TempDir(), trustSpec, id("c"))
	if _, err := fresh.agentServer().GetConfigForClient(nil); err == nil {
		t.Error("the agent port serves before enrolment")
	}
	if fresh.Enrolled() || fresh.CanSign() {
		t.Error("a fresh server is enrolled or signs")
	}
	if _, err := fresh.Sign(agent.Caller{Inst: id("d")}, nil); !errors.Is(err, agent.ErrNotReady) {
		t.Errorf("Sign: %v", err)
	}
	if _, err := fresh.AgentCA(); !errors.Is(err, agent.ErrNotReady) {
		t.Errorf("AgentCA: %v", err)
	}
}

// TestPins: what the decree does not pin is neither used nor stored.
func TestPins(t *testing.T) {
	leader, pin := leading(t, t.TempDir(), id("a"))
	wrong := "sha256:" + strings.Repeat("0", 64)

	dir := t.TempDir()
	joiner := trustAt(t, dir, trustSpec, id("c"))
	csr, err := joiner.CSR()
	if err != nil {
		t.Fatal(err)
	}
	e, err := leader.Sign(agent.Caller{Inst: id("c"), HW: id("b")}, csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := joiner.Install(e, wrong); err == nil || !strings.Contains(err.Error(), "the decree pins "+wrong) {
		t.Errorf("Install: %v", err)
	}
	bundle, err := leader.AgentCA()
	if err != nil {
		t.Fatal(err)
	}
	if err := joiner.AdoptAgentCA(bundle, wrong); err == nil || !strings.Contains(err.Error(), "the decree pins "+wrong) {
		t.Errorf("AdoptAgentCA: %v", err)
	}
	own, err := joiner.EnsureAgentCA()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{wrong, pin, ""} {
		if err := joiner.Lead(p); err == nil || !strings.Contains(err.Error(), "the decree pins "+p) {
			t.Errorf("Lead(%q): %v", p, err)
		}
	}
	if joiner.Enrolled() || joiner.CanSign() {
		t.Error("something that is not pinned is used")
	}
	want := []string{leafKeyFile, candidateCA, candidateCAKey}
	slices.Sort(want)
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := joiner.Lead(own); err != nil {
		t.Errorf("Lead with its own: %v", err)
	}
	if err := joiner.Lead(wrong); err == nil {
		t.Error("a server that leads accepts another pin")
	}
}

// TestCandidate: the agent CA made beforehand is the same after every restart,
// because it may have been proposed, and signs nothing before it leads.
func TestCandidate(t *testing.T) {
	dir := t.TempDir()
	first, err := trustAt(t, dir, trustSpec, id("a")).EnsureAgentCA()
	if err != nil {
		t.Fatal(err)
	}
	again := trustAt(t, dir, trustSpec, id("a"))
	second, err := again.EnsureAgentCA()
	if err != nil || second != first {
		t.Errorf("after a restart %s, before %s: %v", second, first, err)
	}
	if again.CanSign() {
		t.Error("the candidate signs before it leads")
	}
	// Power went between the two files: the certificate comes last, so what lies
	// there was never proposed and a new one is made.
	if err := os.Remove(filepath.Join(dir, candidateCA)); err != nil {
		t.Fatal(err)
	}
	third, err := trustAt(t, dir, trustSpec, id("a")).EnsureAgentCA()
	if err != nil || third == first {
		t.Errorf("after half a pair %s: %v", third, err)
	}
	// Another cluster's candidate is never proposed to this one.
	other, err := trustAt(t, dir, strings.Repeat("9", 32), id("a")).EnsureAgentCA()
	if err != nil || other == third {
		t.Errorf("another cluster proposes the same agent CA: %s, %v", other, err)
	}
}

// TestRestart: the leaf, and on a control plane the agent CA, are there after a
// restart; all files are for root only.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	_, pin := leading(t, dir, id("a"))
	again := trustAt(t, dir, trustSpec, id("a"))
	if !again.Enrolled() || !again.CanSign() || again.authority().Hash() != pin {
		t.Fatalf("enrolled %t, signs %t", again.Enrolled(), again.CanSign())
	}
	if err := again.Lead(pin); err != nil {
		t.Errorf("Lead after a restart: %v", err)
	}
	if hash, err := again.EnsureAgentCA(); err != nil || hash != pin {
		t.Errorf("EnsureAgentCA after a restart: %s, %v", hash, err)
	}
	enrolSelf(t, again, again, id("a"), pin)
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, expected 0600", name, info.Mode().Perm())
		}
	}
}

// TestAnotherSecret: what userdata rotate says: a server that was given another
// secret stays a member, and hears no more of who has the old one only.
func TestAnotherSecret(t *testing.T) {
	dir := t.TempDir()
	before, _ := leading(t, dir, id("1"))
	after := trustBy(t, 8, dir, trustSpec, id("1"))
	if !after.Enrolled() || !after.CanSign() {
		t.Fatalf("with another secret it is enrolled %t and signs %t, expected both", after.Enrolled(), after.CanSign())
	}
	if err := handshake(before.enrolment.ClientConfig(id("1")), after.enrolment.ServerConfig()); err == nil {
		t.Error("the enrolment port takes who has the old secret")
	}
	if err := handshake(before.agentClient(id("1")), after.agentServer()); err != nil {
		t.Errorf("the agents' port refuses one that enrolled: %v", err)
	}
}

// handshake connects two configurations.
func handshake(client, server *tls.Config) error {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(far, server).Handshake() }()
	c := tls.Client(near, client)
	err := c.Handshake()
	if err != nil {
		_ = near.Close()
	}
	return errors.Join(err, <-done)
}

// TestPowerLossWhileLeading: the leader lost power after it stored the agent CA
// and before its own leaf: it goes on with the same CA.
func TestPowerLossWhileLeading(t *testing.T) {
	dir := t.TempDir()
	first := trustAt(t, dir, trustSpec, id("a"))
	pin, err := first.EnsureAgentCA()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Lead(pin); err != nil {
		t.Fatal(err)
	}
	again := trustAt(t, dir, trustSpec, id("a"))
	if err := again.Lead(pin); err != nil {
		t.Fatal(err)
	}
	enrolSelf(t, again, again, id("a"), pin)
}

// TestHandOver: the agent CA goes from one control plane to the next, sealed, and
// that one signs with it, also after a restart.
func TestHandOver(t *testing.T) {
	leader, pin := leading(t, t.TempDir(), id("a"))
	dir := t.TempDir()
	second := trustAt(t, dir, trustSpec, id("c"))
	enrolSelf(t, leader, second, id("c"), pin)
	public, err := second.Receiver()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := leader.AgentCA()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := leader.Seal(public, bundle)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("PRIVATE")) {
		t.Error("the sealed bundle shows a key")
	}
	if _, err := leader.Open(sealed); err == nil {
		t.Error("who asked for nothing opened it")
	}
	opened, err := second.Open(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.AdoptAgentCA(opened, pin); err != nil {
		t.Fatal(err)
	}
	for name, signer := range map[string]*trust{"at once": second, "after a restart": trustAt(t, dir, trustSpec, id("c"))} {
		third := trustAt(t, t.TempDir(), trustSpec, id("d"))
		if !signer.CanSign() {
			t.Fatalf("%s: it cannot sign", name)
		}
		enrolSelf(t, signer, third, id("d"), pin)
		if !third.Enrolled() {
			t.Errorf("%s: its leaf is not used", name)
		}
	}
	for _, broken := range [][]byte{nil, []byte("x"), bundle[:len(bundle)-40], bundle[:bytes.Index(bundle, []byte("-----BEGIN PRIVATE"))]} {
		if err := trustAt(t, t.TempDir(), trustSpec, id("e")).AdoptAgentCA(broken, pin); err == nil {
			t.Errorf("adopted %d bytes of %d", len(broken), len(bundle))
		}
	}
}

// TestFormerLife: a new instance on an old or copied disk enrols with a key of
// its own; another cluster's keys are gone.
func TestFormerLife(t *testing.T) {
	dir := t.TempDir()
	_, pin := leading(t, dir, id("a"))
	oldKey := read(t, dir, leafKeyFile)
	next := trustAt(t, dir, trustSpec, id("e"))
	if next.Enrolled() {
		t.Error("the certificate of another instance is used")
	}
	enrolSelf(t, next, next, id("e"), pin)
	if bytes.Equal(oldKey, read(t, dir, leafKeyFile)) {
		t.Error("two instances share a private key")
	}

	fresh := trustAt(t, dir, strings.Repeat("9", 32), id("f"))
	if fresh.Enrolled() || fresh.CanSign() {
		t.Error("another cluster's keys are used")
	}
	for _, name := range []string{agentCAKeyFile, leafFile, leafKeyFile, agentCAFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of another cluster: %v", name, err)
		}
	}
}

// TestDamagedKeys: what to do about a damaged file is in the error.
func TestDamagedKeys(t *testing.T) {
	for name, remedy := range map[string]string{leafFile: "remove " + leafFile, agentCAFile: "remove " + agentCAFile, agentCAKeyFile: "remove " + agentCAKeyFile} {
		dir := t.TempDir()
		leading(t, dir, id("a"))
		if err := os.WriteFile(filepath.Join(dir, name), []byte("zeros"), 0o600); err != nil {
			t.Fatal(err)
		}
		secret, err := cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := identity.Derive(secret, trustSpec)
		if err != nil {
			t.Fatal(err)
		}
		_, err = openTrust(dir, keys, nil, trustSpec, identity.Subject{Inst: id("a"), HW: id("b")})
		if err == nil || !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
