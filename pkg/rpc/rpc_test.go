package rpc_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/rpc"
)

const specID = "5b0c0000000000000000000000000001"

// Instances and hardware of the two ends.
var (
	serverInst, serverHW = strings.Repeat("a", 32), strings.Repeat("b", 32)
	callerInst, callerHW = strings.Repeat("c", 32), strings.Repeat("d", 32)
	loopback             = netip.MustParseAddr("127.0.0.1")
	addrs                = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func who(cs tls.ConnectionState) (agent.Caller, error) {
	inst, hw, err := identity.PeerOf(cs)
	return agent.Caller{Inst: inst, HW: hw}, err
}

func newCA(t *testing.T) *identity.Authority {
	t.Helper()
	ca, err := identity.NewAuthority(specID)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func keyring(t *testing.T, ca *identity.Authority, inst, hw string) *identity.Keyring {
	t.Helper()
	cert, err := ca.Issue(identity.Subject{Inst: inst, HW: hw, IPs: []netip.Addr{loopback}})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := identity.NewKeyring(cert, ca.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// port is a served port; it counts the connections it accepts.
type port struct {
	number   uint16
	accepted *atomic.Int32
	log      *record
}

type countingListener struct {
	net.Listener
	accepted *atomic.Int32
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// serve runs a handler behind TLS until the test ends, which also proves that
// Serve returns without an error when its context does.
func serve(t *testing.T, config *tls.Config, h http.Handler) port {
	t.Helper()
	l, err := rpc.Listen(t.Context(), netip.AddrPortFrom(loopback, 0), "agents")
	if err != nil {
		t.Fatal(err)
	}
	p := port{number: l.Addr().(*net.TCPAddr).AddrPort().Port(), accepted: new(atomic.Int32), log: &record{}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- rpc.Serve(ctx, countingListener{l, p.accepted}, config, h, slog.New(p.log))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return p
}

func client(p port, ring *identity.Keyring) *rpc.Client {
	return rpc.NewClient(p.number, ring.ClientConfig, who)
}

// server answers both ports; each method records who called and returns what the
// test gave.
type server struct {
	err     error // of every method that can fail
	from    agent.Caller
	got     any
	replies [][]byte
	members []member.Member
	hang    chan struct{} // Members waits for it, or for the caller to leave
}

func (s *server) note(from agent.Caller, got any) error {
	s.from, s.got = from, got
	return s.err
}

func (s *server) Fence(_ context.Context, from agent.Caller, m []byte) ([][]byte, error) {
	return s.replies, s.note(from, string(m))
}

func (s *server) Enrol(_ context.Context, from agent.Caller, r agent.EnrolRequest) (agent.Enrolment, error) {
	return agent.Enrolment{Leaf: []byte("leaf"), CA: []byte("ca")}, s.note(from, r)
}

func (s *server) Status(context.Context) member.Status {
	return member.Status{Member: member.Member{Inst: serverInst, Name: "cp1", Address: loopback, Phase: member.RollCall}}
}

func (s *server) Members(ctx context.Context) ([]member.Member, error) {
	if s.hang != nil {
		select {
		case <-ctx.Done():
			close(s.hang)
		case <-time.After(20 * time.Second):
		}
	}
	return s.members, s.err
}

func (s *server) ClaimRole(_ context.Context, from agent.Caller, r agent.RoleRequest) (agent.RoleReply, error) {
	return agent.RoleReply{Role: member.Worker}, s.note(from, r)
}

func (s *server) ReportPhase(_ context.Context, from agent.Caller, r agent.PhaseReport) error {
	return s.note(from, r)
}

func (s *server) Authorities(_ context.Context, from agent.Caller, r agent.AuthoritiesRequest) (agent.AuthoritiesReply, error) {
	return agent.AuthoritiesReply{Sealed: []byte("sealed")}, s.note(from, r)
}

func (s *server) AcquireJoin(_ context.Context, from agent.Caller) (agent.JoinTurn, error) {
	return agent.JoinTurn{Granted: true, Holder: "cp2", Token: 7}, s.note(from, nil)
}

func (s *server) RenewJoin(_ context.Context, from agent.Caller, turn agent.JoinTurn) error {
	return s.note(from, turn)
}

func (s *server) ReleaseJoin(_ context.Context, from agent.Caller, turn agent.JoinTurn) error {
	return s.note(from, turn)
}

func (s *server) JoinMaterial(_ context.Context, from agent.Caller) (agent.JoinMaterial, error) {
	return agent.JoinMaterial{Token: "abcdef.0123456789abcdef", CA: []byte("ca")}, s.note(from, nil)
}

func (s *server) Leave(_ context.Context, from agent.Caller, r agent.LeaveRequest) (agent.LeaveReply, error) {
	return agent.LeaveReply{Pods: []string{"default/web: ends"}}, s.note(from, r)
}

func (s *server) Standing(_ context.Context, from agent.Caller) (agent.Standing, error) {
	return agent.Standing{Removed: true}, s.note(from, nil)
}

func (s *server) Spec(_ context.Context, from agent.Caller, r agent.SpecRequest) (member.Spec, error) {
	return member.Spec{Revision: 3, ControlPlanes: 3, Text: "kind: Cluster\n"}, s.note(from, r)
}

// pair is a server on both ports and a caller of the same CA.
type pair struct {
	server             *server
	enrolment, agents  port
	callEnrol, callAgt *rpc.Client
	peer               agent.Peer
}

func newPair(t *testing.T) pair {
	t.Helper()
	ca := newCA(t)
	theirs, ours := keyring(t, ca, serverInst, serverHW), keyring(t, ca, callerInst, callerHW)
	p := pair{server: &server{}, peer: agent.Peer{Inst: serverInst, Address: loopback}}
	p.enrolment = serve(t, theirs.ServerConfig(), rpc.EnrolmentHandler(p.server, who))
	p.agents = serve(t, theirs.ServerConfig(), rpc.AgentHandler(p.server, who))
	p.callEnrol, p.callAgt = client(p.enrolment, ours), client(p.agents, ours)
	return p
}

// calls are all calls of both ports: what is sent, what arrives, what returns.
func calls() []struct {
	name      string
	call      func(context.Context, pair) (any, error)
	got, want any
} {
	turn := agent.JoinTurn{Token: 7}
	report := agent.PhaseReport{Phase: member.Joining, Detail: "kubeadm join"}
	role := agent.RoleRequest{Name: "w1", Address: netip.MustParseAddr("10.99.14.9"), Eligible: true}
	return []struct {
		name      string
		call      func(context.Context, pair) (any, error)
		got, want any
	}{
		{"fence", func(ctx context.Context, p pair) (any, error) {
			replies, from, err := p.callEnrol.Fence(ctx, p.peer, []byte(`{"kind":"ask"}`))
			return []any{replies, from}, err
		}, `{"kind":"ask"}`, []any{[][]byte{[]byte(`{"kind":"tell"}`)}, agent.Caller{Inst: serverInst, HW: serverHW}}},
		{"enrol", func(ctx context.Context, p pair) (any, error) {
			return p.callEnrol.Enrol(ctx, p.peer, agent.EnrolRequest{CSR: []byte{1, 2}})
		}, agent.EnrolRequest{CSR: []byte{1, 2}}, agent.Enrolment{Leaf: []byte("leaf"), CA: []byte("ca")}},
		{"role", func(ctx context.Context, p pair) (any, error) { return p.callAgt.ClaimRole(ctx, p.peer, role) },
			role, agent.RoleReply{Role: member.Worker}},
		{"phase", func(ctx context.Context, p pair) (any, error) { return nil, p.callAgt.ReportPhase(ctx, p.peer, report) },
			report, nil},
		{"authorities", func(ctx context.Context, p pair) (any, error) {
			return p.callAgt.Authorities(ctx, p.peer, agent.AuthoritiesRequest{PublicKey: []byte{9}})
		}, agent.AuthoritiesRequest{PublicKey: []byte{9}}, agent.AuthoritiesReply{Sealed: []byte("sealed")}},
		{"acquire", func(ctx context.Context, p pair) (any, error) { return p.callAgt.AcquireJoin(ctx, p.peer) },
			nil, agent.JoinTurn{Granted: true, Holder: "cp2", Token: 7}},
		{"renew", func(ctx context.Context, p pair) (any, error) { return nil, p.callAgt.RenewJoin(ctx, p.peer, turn) }, turn, nil},
		{"release", func(ctx context.Context, p pair) (any, error) { return nil, p.callAgt.ReleaseJoin(ctx, p.peer, turn) }, turn, nil},
		{"material", func(ctx context.Context, p pair) (any, error) { return p.callAgt.JoinMaterial(ctx, p.peer) },
			nil, agent.JoinMaterial{Token: "abcdef.0123456789abcdef", CA: []byte("ca")}},
		{"leave", func(ctx context.Context, p pair) (any, error) {
			return p.callAgt.Leave(ctx, p.peer, agent.LeaveRequest{Step: agent.LeaveDrain})
		}, agent.LeaveRequest{Step: agent.LeaveDrain}, agent.LeaveReply{Pods: []string{"default/web: ends"}}},
		{"standing", func(ctx context.Context, p pair) (any, error) { return p.callEnrol.Standing(ctx, p.peer) }, nil, agent.Standing{Removed: true}},
		{"spec", func(ctx context.Context, p pair) (any, error) {
			return p.callAgt.Spec(ctx, p.peer, agent.SpecRequest{Known: 2})
		},
			agent.SpecRequest{Known: 2}, member.Spec{Revision: 3, ControlPlanes: 3, Text: "kind: Cluster\n"}},
	}
}

// TestCalls: what is sent arrives, from whom the certificate names, and the
// answer comes back.
func TestCalls(t *testing.T) {
	p := newPair(t)
	p.server.replies = [][]byte{[]byte(`{"kind":"tell"}`)}
	for _, c := range calls() {
		t.Run(c.name, func(t *testing.T) {
			p.server.from, p.server.got = agent.Caller{}, nil
			answer, err := c.call(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, answer, addrs); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.got, p.server.got, addrs); diff != "" {
				t.Errorf("what the server got (-want +got):\n%s", diff)
			}
			// The caller, as the certificate and the connection say.
			if diff := cmp.Diff(agent.Caller{Inst: callerInst, HW: callerHW, Address: loopback}, p.server.from, addrs); diff != "" {
				t.Errorf("caller (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReads: status on both ports, and the members.
func TestReads(t *testing.T) {
	p := newPair(t)
	p.server.members = []member.Member{{Inst: serverInst, Name: "cp1", Role: member.ControlPlane, Address: loopback}}
	for name, c := range map[string]*rpc.Client{"enrolment": p.callEnrol, "agents": p.callAgt} {
		status, err := c.Status(t.Context(), p.peer)
		if err != nil || status.Name != "cp1" || status.Phase != member.RollCall {
			t.Errorf("status on the port %s: %+v, %v", name, status, err)
		}
	}
	members, err := p.callAgt.Members(t.Context(), p.peer)
	if diff := cmp.Diff(p.server.members, members, addrs); err != nil || diff != "" {
		t.Errorf("members: %v (-want +got):\n%s", err, diff)
	}
}

// TestRefusals: the two kinds of refusal are the same errors on the other side,
// with the server's sentence and where it was said.
func TestRefusals(t *testing.T) {
	p := newPair(t)
	tests := []struct {
		err  error
		text string
	}{
		{fmt.Errorf("the directory still starts: %w", agent.ErrNotReady), "the directory still starts"},
		{fmt.Errorf("w1 is a worker: %w", agent.ErrRefused), "w1 is a worker"},
		{errors.New("no space left on device"), "no space left on device"},
	}
	for _, tt := range tests {
		p.server.err = tt.err
		for _, c := range calls() {
			_, err := c.call(t.Context(), p)
			if err == nil {
				t.Errorf("%s: no error for %v", c.name, tt.err)
				continue
			}
			for _, kind := range []error{agent.ErrNotReady, agent.ErrRefused} {
				if got := errors.Is(err, kind); got != errors.Is(tt.err, kind) {
					t.Errorf("%s: errors.Is(%q, %q) = %t", c.name, err, kind, got)
				}
			}
			for _, part := range []string{tt.text, "127.0.0.1:", " says to /v1/"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %q lacks %q", c.name, err, part)
				}
			}
			if n := strings.Count(err.Error(), tt.err.Error()); n != 1 || !strings.HasSuffix(err.Error(), tt.err.Error()) {
				t.Errorf("%s: %q, expected %q once, at the end", c.name, err, tt.err)
			}
		}
	}
}

// TestWrongCA: neither end talks to the other, whichever is the stranger, and the
// handler is never reached.
func TestWrongCA(t *testing.T) {
	ours, other := newCA(t), newCA(t)
	s := &server{}
	p := serve(t, keyring(t, ours, serverInst, serverHW).ServerConfig(), rpc.AgentHandler(s, who))
	peer := agent.Peer{Inst: serverInst, Address: loopback}

	stranger := keyring(t, other, callerInst, callerHW)
	_, err := client(p, stranger).ClaimRole(t.Context(), peer, agent.RoleRequest{})
	if err == nil || !strings.Contains(err.Error(), "not of a CA trusted here") {
		t.Errorf("a client of another CA: %v", err)
	}
	// A client that trusts the server but shows a certificate of another CA.
	cert, err := other.Issue(identity.Subject{Inst: callerInst, HW: callerHW})
	if err != nil {
		t.Fatal(err)
	}
	liar := rpc.NewClient(p.number, func(inst string) *tls.Config {
		config := keyring(t, ours, callerInst, callerHW).ClientConfig(inst)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		return config
	}, who)
	if _, err = liar.ClaimRole(t.Context(), peer, agent.RoleRequest{}); err == nil {
		t.Error("a client certificate of another CA was served")
	}
	// And one that shows none.
	nobody := rpc.NewClient(p.number, func(inst string) *tls.Config {
		config := keyring(t, ours, callerInst, callerHW).ClientConfig(inst)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{}, nil
		}
		return config
	}, who)
	if _, err = nobody.ClaimRole(t.Context(), peer, agent.RoleRequest{}); err == nil {
		t.Error("a client without a certificate was served")
	}
	if s.got != nil {
		t.Errorf("the handler was reached with %v", s.got)
	}
}

// TestWrongInstance: another server of the same CA at the right address is not
// the one that was called; with no instance named, any will do.
func TestWrongInstance(t *testing.T) {
	p := newPair(t)
	other := strings.Repeat("e", 32)
	_, _, err := p.callEnrol.Fence(t.Context(), agent.Peer{Inst: other, Address: loopback}, []byte(`{}`))
	if err == nil || !strings.Contains(err.Error(), "instance "+serverInst+" answers where "+other+" was expected") {
		t.Errorf("a vote was asked of the wrong instance: %v", err)
	}
	if p.server.got != nil {
		t.Errorf("it got %v", p.server.got)
	}
	if _, err := p.callEnrol.Status(t.Context(), agent.Peer{Address: loopback}); err != nil {
		t.Errorf("any server of the CA: %v", err)
	}
}

// TestReuse: one handshake carries many ballots, refusals among them; Forget
// makes the next call shake hands anew.
func TestReuse(t *testing.T) {
	p := newPair(t)
	for i := range 20 {
		p.server.err = nil
		if i%3 == 0 {
			p.server.err = agent.ErrNotReady
		}
		_, _, err := p.callEnrol.Fence(t.Context(), p.peer, []byte(`{}`))
		if (err != nil) != (i%3 == 0) {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if n := p.enrolment.accepted.Load(); n != 1 {
		t.Errorf("20 calls made %d connections, expected 1", n)
	}
	p.server.err = nil
	p.callEnrol.Forget()
	if _, err := p.callEnrol.Status(t.Context(), p.peer); err != nil {
		t.Fatal(err)
	}
	if n := p.enrolment.accepted.Load(); n != 2 {
		t.Errorf("after Forget %d connections, expected 2", n)
	}
}

// TestRotation: a certificate that was replaced is used by the next connection,
// without a new client.
func TestRotation(t *testing.T) {
	ca := newCA(t)
	s := &server{}
	p := serve(t, keyring(t, ca, serverInst, serverHW).ServerConfig(), rpc.AgentHandler(s, who))
	ring := keyring(t, ca, callerInst, callerHW)
	c := client(p, ring)
	peer := agent.Peer{Inst: serverInst, Address: loopback}
	if _, err := c.ClaimRole(t.Context(), peer, agent.RoleRequest{}); err != nil || s.from.Inst != callerInst {
		t.Fatalf("from %q: %v", s.from.Inst, err)
	}
	next := strings.Repeat("f", 32)
	cert, err := ca.Issue(identity.Subject{Inst: next, HW: callerHW})
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Replace(cert, ca.Certificate()); err != nil {
		t.Fatal(err)
	}
	c.Forget()
	if _, err := c.ClaimRole(t.Context(), peer, agent.RoleRequest{}); err != nil || s.from.Inst != next {
		t.Fatalf("after the rotation from %q: %v", s.from.Inst, err)
	}
}

// TestBodyLimit: what is too long is refused in both directions, and said.
func TestBodyLimit(t *testing.T) {
	p := newPair(t)
	long := agent.EnrolRequest{CSR: make([]byte, 3<<20)}
	_, err := p.callEnrol.Enrol(t.Context(), p.peer, long)
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a request of 3 MiB: %v", err)
	}
	if p.server.got != nil {
		t.Error("the handler got a request that is too long")
	}
	p.server.members = []member.Member{{Detail: strings.Repeat("x", 3<<20)}}
	_, err = p.callAgt.Members(t.Context(), p.peer)
	if err == nil || !strings.Contains(err.Error(), "longer than 2097152 bytes") {
		t.Errorf("an answer of 3 MiB: %v", err)
	}
}

// raw sends a request as no client of ours would.
func raw(t *testing.T, p port, ring *identity.Keyring, head, body string) *http.Response {
	t.Helper()
	conn, err := tls.Dial("tcp", netip.AddrPortFrom(loopback, p.number).String(), ring.ClientConfig(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	method, path, _ := strings.Cut(head, " ")
	request, err := http.NewRequestWithContext(t.Context(), method, "https://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// TestMalformed: what is no request of ours gets a sentence, and ports keep to
// what they serve.
func TestMalformed(t *testing.T) {
	ca := newCA(t)
	ring := keyring(t, ca, serverInst, serverHW)
	s := &server{}
	enrolment := serve(t, ring.ServerConfig(), rpc.EnrolmentHandler(s, who))
	agents := serve(t, ring.ServerConfig(), rpc.AgentHandler(s, who))
	caller := keyring(t, ca, callerInst, callerHW)
	for _, tt := range []struct {
		name       string
		at         port
		head, body string
		code       int
		text       string
	}{
		{"no JSON", agents, "POST /v1/role", "{", http.StatusBadRequest, "reading the request for /v1/role"},
		{"wrong type", agents, "POST /v1/role", `{"name":1}`, http.StatusBadRequest, "reading the request for /v1/role"},
		{"a message that is no JSON", enrolment, "POST /v1/fence", "vote!", http.StatusBadRequest, "reading the request for /v1/fence"},
		{"wrong method", agents, "GET /v1/authorities", "", http.StatusMethodNotAllowed, ""},
		{"CA keys at the enrolment port", enrolment, "POST /v1/authorities", "{}", http.StatusNotFound, ""},
		{"roles at the enrolment port", enrolment, "POST /v1/role", "{}", http.StatusNotFound, ""},
		{"votes at the agent port", agents, "POST /v1/fence", "{}", http.StatusNotFound, ""},
		{"another version", agents, "GET /v2/status", "", http.StatusNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			response := raw(t, tt.at, caller, tt.head, tt.body)
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != tt.code || !strings.Contains(string(body), tt.text) {
				t.Errorf("%d %s, expected %d %s", response.StatusCode, body, tt.code, tt.text)
			}
			if tt.text != "" {
				var f struct{ Error string }
				if err := json.Unmarshal(body, &f); err != nil || f.Error == "" {
					t.Errorf("body %s is no {\"error\": …}", body)
				}
			}
		})
	}
	if s.got != nil {
		t.Errorf("a handler was reached with %v", s.got)
	}
}

// TestNoTLS: a handler that was served without TLS by mistake knows no caller,
// and says no.
func TestNoTLS(t *testing.T) {
	s := &server{}
	w := newRecorder()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/role", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	rpc.AgentHandler(s, who).ServeHTTP(w, r)
	if w.code != http.StatusForbidden || s.got != nil {
		t.Errorf("%d %s", w.code, w.body.String())
	}
}

// TestCallerLeaves: a call ends at its deadline, and the server hears that the
// caller is gone.
func TestCallerLeaves(t *testing.T) {
	p := newPair(t)
	p.server.hang = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := p.callAgt.Members(ctx, p.peer)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, expected the deadline", err)
	}
	select {
	case <-p.server.hang:
	case <-time.After(10 * time.Second):
		t.Error("the server still works for a caller that left")
	}
}

// TestUnreachable: nobody listens: the address is named.
func TestUnreachable(t *testing.T) {
	l, err := rpc.Listen(t.Context(), netip.AddrPortFrom(loopback, 0), "agents")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ring := keyring(t, newCA(t), callerInst, callerHW)
	_, err = rpc.NewClient(at.Port(), ring.ClientConfig, who).Status(t.Context(), agent.Peer{Address: loopback})
	if err == nil || !strings.Contains(err.Error(), "asking "+at.String()) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

// TestListenTaken: the error of a taken port tells how to move it.
func TestListenTaken(t *testing.T) {
	l, err := rpc.Listen(t.Context(), netip.AddrPortFrom(loopback, 0), "agents")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	_, err = rpc.Listen(t.Context(), at, "enrolment")
	if err == nil {
		t.Fatal("a port was opened twice")
	}
	for _, part := range []string{at.String(), "address already in use", "spec.ports.enrolment moves it"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

// TestListenerBreaks: when the port is lost while the agent runs, Serve says so.
func TestListenerBreaks(t *testing.T) {
	l, err := rpc.Listen(t.Context(), netip.AddrPortFrom(loopback, 0), "agents")
	if err != nil {
		t.Fatal(err)
	}
	ring := keyring(t, newCA(t), serverInst, serverHW)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err = rpc.Serve(t.Context(), l, ring.ServerConfig(), rpc.AgentHandler(&server{}, who), slog.New(&record{}))
	if err == nil || !strings.Contains(err.Error(), "serving 127.0.0.1:") {
		t.Errorf("error %v", err)
	}
}

// panicking dies in a handler.
type panicking struct{ server }

func (*panicking) Status(context.Context) member.Status { panic("nil map") }

// TestPanic: a bug in one answer costs one connection and is logged as an error;
// a scan of the port is logged at debug.
func TestPanic(t *testing.T) {
	ca := newCA(t)
	p := serve(t, keyring(t, ca, serverInst, serverHW).ServerConfig(), rpc.EnrolmentHandler(&panicking{}, who))
	c := client(p, keyring(t, ca, callerInst, callerHW))
	peer := agent.Peer{Inst: serverInst, Address: loopback}
	if _, err := c.Status(t.Context(), peer); err == nil {
		t.Fatal("a panic was answered")
	}
	if _, err := c.Enrol(t.Context(), peer, agent.EnrolRequest{}); err != nil {
		t.Fatalf("after a panic: %v", err)
	}
	if !p.log.wait(slog.LevelError, "nil map") {
		t.Errorf("no error in the log: %v", p.log.all())
	}
	scan, err := net.Dial("tcp", netip.AddrPortFrom(loopback, p.number).String())
	if err != nil {
		t.Fatal(err)
	}
	defer scan.Close()
	if _, err := io.WriteString(scan, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !p.log.wait(slog.LevelDebug, "TLS handshake error") {
		t.Errorf("no debug line of the scan: %v", p.log.all())
	}
}
