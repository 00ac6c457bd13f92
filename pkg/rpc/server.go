package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// Enrolling answers on the enrolment port.
type Enrolling interface {
	// Fence hands a fence message in and returns the replies for the caller.
	Fence(ctx context.Context, from agent.Caller, message []byte) (replies [][]byte, err error)
	// Enrol signs the caller's certificate request with the agent CA.
	Enrol(ctx context.Context, from agent.Caller, request agent.EnrolRequest) (agent.Enrolment, error)
	Status(ctx context.Context) member.Status
	// Standing tells the caller whether it was removed: its certificate of the agent
	// CA is refused then, so it cannot ask elsewhere.
	Standing(ctx context.Context, from agent.Caller) (agent.Standing, error)
}

// Serving answers on the agent port. All but Status need the directory, which
// only control planes have; the others answer ErrNotReady.
type Serving interface {
	Status(ctx context.Context) member.Status
	Members(ctx context.Context) ([]member.Member, error)
	ClaimRole(ctx context.Context, from agent.Caller, request agent.RoleRequest) (agent.RoleReply, error)
	ReportPhase(ctx context.Context, from agent.Caller, report agent.PhaseReport) error
	Authorities(ctx context.Context, from agent.Caller, request agent.AuthoritiesRequest) (agent.AuthoritiesReply, error)
	AcquireJoin(ctx context.Context, from agent.Caller) (agent.JoinTurn, error)
	RenewJoin(ctx context.Context, from agent.Caller, turn agent.JoinTurn) error
	ReleaseJoin(ctx context.Context, from agent.Caller, turn agent.JoinTurn) error
	JoinMaterial(ctx context.Context, from agent.Caller) (agent.JoinMaterial, error)
	Leave(ctx context.Context, from agent.Caller, request agent.LeaveRequest) (agent.LeaveReply, error)
	Spec(ctx context.Context, from agent.Caller, request agent.SpecRequest) (member.Spec, error)
}

// Identify reads the caller from a verified TLS connection.
type Identify func(tls.ConnectionState) (agent.Caller, error)

// EnrolmentHandler routes the enrolment port.
func EnrolmentHandler(e Enrolling, who Identify) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/fence", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, m json.RawMessage) ([]json.RawMessage, error) {
			replies, err := e.Fence(ctx, from, m)
			raw := make([]json.RawMessage, len(replies))
			for i, reply := range replies {
				raw[i] = reply
			}
			return raw, err
		})
	})
	mux.HandleFunc("POST /v1/enrol", func(w http.ResponseWriter, r *http.Request) { serve(w, r, who, e.Enrol) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, _ agent.Caller, _ none) (member.Status, error) { return e.Status(ctx), nil })
	})
	mux.HandleFunc("GET /v1/standing", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, _ none) (agent.Standing, error) {
			return e.Standing(ctx, from)
		})
	})
	return mux
}

// AgentHandler routes the agent port.
func AgentHandler(s Serving, who Identify) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, _ agent.Caller, _ none) (member.Status, error) { return s.Status(ctx), nil })
	})
	mux.HandleFunc("GET /v1/members", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, _ agent.Caller, _ none) ([]member.Member, error) { return s.Members(ctx) })
	})
	mux.HandleFunc("POST /v1/role", func(w http.ResponseWriter, r *http.Request) { serve(w, r, who, s.ClaimRole) })
	mux.HandleFunc("POST /v1/phase", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, report agent.PhaseReport) (none, error) {
			return none{}, s.ReportPhase(ctx, from, report)
		})
	})
	mux.HandleFunc("POST /v1/authorities", func(w http.ResponseWriter, r *http.Request) { serve(w, r, who, s.Authorities) })
	mux.HandleFunc("POST /v1/join/acquire", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, _ none) (agent.JoinTurn, error) {
			return s.AcquireJoin(ctx, from)
		})
	})
	mux.HandleFunc("POST /v1/join/renew", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, turn agent.JoinTurn) (none, error) {
			return none{}, s.RenewJoin(ctx, from, turn)
		})
	})
	mux.HandleFunc("POST /v1/join/release", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, turn agent.JoinTurn) (none, error) {
			return none{}, s.ReleaseJoin(ctx, from, turn)
		})
	})
	mux.HandleFunc("POST /v1/join/material", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, who, func(ctx context.Context, from agent.Caller, _ none) (agent.JoinMaterial, error) {
			return s.JoinMaterial(ctx, from)
		})
	})
	mux.HandleFunc("POST /v1/leave", func(w http.ResponseWriter, r *http.Request) { serve(w, r, who, s.Leave) })
	mux.HandleFunc("POST /v1/spec", func(w http.ResponseWriter, r *http.Request) { serve(w, r, who, s.Spec) })
	return mux
}

func serve[Q, A any](w http.ResponseWriter, r *http.Request, who Identify, do func(context.Context, agent.Caller, Q) (A, error)) {
	if r.TLS == nil {
		reply(w, http.StatusForbidden, failure{"not a TLS connection"})
		return
	}
	from, err := who(*r.TLS)
	if err != nil {
		reply(w, http.StatusForbidden, failure{err.Error()})
		return
	}
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from.Address = remote.Addr().Unmap()
	}
	var request Q
	body, err := readBody(w, r)
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, failure{fmt.Sprintf("reading the request for %s: %v", r.URL.Path, err)})
		return
	}
	answer, err := do(r.Context(), from, request)
	switch {
	case err == nil:
		reply(w, http.StatusOK, answer)
	case errors.Is(err, agent.ErrNotReady):
		reply(w, http.StatusServiceUnavailable, failure{err.Error()})
	case errors.Is(err, agent.ErrRefused):
		reply(w, http.StatusForbidden, failure{err.Error()})
	default:
		reply(w, http.StatusInternalServerError, failure{err.Error()})
	}
}

// bodyTime bounds how long a caller may take to send its request's body.
const bodyTime = 10 * time.Second

// readBody bounds the read alone: http.Server.ReadTimeout would also end an
// answer that takes longer, such as the making of a token.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, fmt.Errorf("setting a deadline: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err // the deadline stays: the server still drains what comes
	}
	return body, c.SetReadDeadline(time.Time{})
}

func reply(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error":"the reply could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(data) // the caller went away: it asks again
}

// Listen opens a port of the private address. The error of a taken port names
// the field of the cluster file that moves it.
func Listen(ctx context.Context, at netip.AddrPort, field string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w (another program may hold the port: ss -ltnp; spec.ports.%s moves it)", at, err, field)
	}
	return l, nil
}

// Serve answers on l with TLS until ctx ends. A caller that fails to present a
// good certificate is logged at debug: scans are no news. A panic in an answer is
// logged as the error that it is.
func Serve(ctx context.Context, l net.Listener, config *tls.Config, h http.Handler, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(serverLog{logger}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(tls.NewListener(l, config))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serving %s: %w", l.Addr(), err)
}

// serverLog takes the lines of http.Server.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	tell := l.log.Debug
	if bytes.HasPrefix(line, []byte("http: panic serving")) {
		tell = l.log.Error
	}
	tell("rpc server", "message", string(line))
	return len(line), nil
}
