package rpc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/rpc"
)

// pipes is a listener in memory, so that a bubble's clock rules its deadlines.
type pipes struct {
	calls  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// slow takes its time for the members.
type slow struct{ server }

func (*slow) Members(ctx context.Context) ([]member.Member, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(20 * time.Second):
		return nil, nil
	}
}

// TestStalls: a caller that stops in the middle of whatever it sends is let go
// within seconds; one that waits for a slow answer is not.
func TestStalls(t *testing.T) {
	for _, tt := range []struct {
		name, sends string
		within      time.Duration
		code        int // 0: the connection is closed
	}{
		{"in the handshake", "", 11 * time.Second, 0},
		{"in the head", "POST /v1/role HTTP/1.1\r\nHost: x\r\n", 11 * time.Second, 0},
		{"in the body", "POST /v1/role HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", 11 * time.Second, http.StatusBadRequest},
		{"after the request", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 2*time.Minute + time.Second, http.StatusOK},
		{"a slow answer", "GET /v1/members HTTP/1.1\r\nHost: x\r\n\r\n", 22 * time.Second, http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { stall(t, tt.sends, tt.within, tt.code) }) })
	}
}

func stall(t *testing.T, sends string, within time.Duration, code int) {
	ca := newCA(t)
	l := pipes{make(chan net.Conn), make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		h := rpc.AgentHandler(&slow{}, who)
		done <- rpc.Serve(ctx, l, keyring(t, ca, serverInst, serverHW).ServerConfig(), h, slog.New(&record{}))
	}()
	near, far := net.Pipe()
	l.calls <- far
	began := time.Now()
	var conn net.Conn = near
	if sends != "" {
		conn = tls.Client(near, keyring(t, ca, callerInst, callerHW).ClientConfig(serverInst))
	}
	if _, err := io.WriteString(conn, sends); err != nil {
		t.Fatal(err)
	}
	if err := expectAnswer(conn, code); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > within {
		t.Errorf("let go after %s, expected at most %s", took, within)
	}
	// Gone first, without the farewell of TLS: both ends of a pipe would wait 5 s
	// for the other to read theirs, and the bubble's clock stands still meanwhile,
	// since http.Server waits on a mutex.
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// expectAnswer reads an answer of that code, if any, and then the end.
func expectAnswer(conn net.Conn, code int) error {
	r := bufio.NewReader(conn)
	if code != 0 {
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		if response.StatusCode != code {
			return fmt.Errorf("answer %s, expected %d", response.Status, code)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if code == http.StatusOK {
			return nil // kept open for the next request
		}
	}
	if n, err := io.Copy(io.Discard, r); n > 0 {
		return fmt.Errorf("%d bytes after the answer, %w", n, err)
	}
	return nil
}
