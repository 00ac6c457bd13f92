package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
)

// statusVersion is the version of what the socket and status -o json print.
const statusVersion = 1

// serveLocal answers on the agent's unix socket (0600) until ctx ends. ready is
// called once it listens: from then on status can tell whatever goes wrong.
func serveLocal(ctx context.Context, path string, server *bootstrap.Server, ready func()) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	s := &http.Server{Handler: localHandler(server), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	ready()
	if err := s.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", path, err)
	}
	return nil
}

// localHandler routes the socket: what status reads, and what an operator does.
func localHandler(server *bootstrap.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/servers", func(w http.ResponseWriter, r *http.Request) {
		localReply(w, http.StatusOK, serverList{Version: statusVersion, Servers: server.Servers(r.Context())})
	})
	handleAgent(mux, server)
	handlePeers(mux, server)
	handleOrders(mux, server)
	handleMembers(mux, server)
	handleLeave(mux, server)
	handleApply(mux, server)
	return mux
}

func localReply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // an error here means that the asker went away
}

// What operator acts say on the socket: POST /v1/NAME (docs/formats.md).
const (
	actVersion  = 1
	actPatience = 2 * time.Minute // for one act, which may ask every server
	maxAct      = 64 << 10        // bytes of a request
)

// actRequest asks for an act of an operator.
type actRequest[Q any] struct {
	Version int  `json:"version"`
	Yes     bool `json:"yes"` // do it; without it, only say what would be done
	Act     Q    `json:"act"`
}

// actReply says what was done or would be.
type actReply struct {
	Version   int      `json:"version"`
	Sentences []string `json:"sentences"`
	Done      bool     `json:"done"`
}

// actProblem says why nothing was done; its code is one of actCodes.
type actProblem struct {
	Code  string `json:"code"`
	Error string `json:"error"`
}

// actCodes are the kinds of a failed act, with the exit code of the command.
var actCodes = []struct {
	err          error
	code         string
	status, exit int
}{
	{agent.ErrNotReady, "not-ready", http.StatusServiceUnavailable, exitUnavailable},
	{agent.ErrRefused, "refused", http.StatusForbidden, exitPermission},
	{bootstrap.ErrInvalid, "bad-input", http.StatusUnprocessableEntity, exitData},
}

// handleAct serves one act. do returns the sentences of its plan, and does it
// only when yes is set. An error that wraps agent.ErrNotReady or agent.ErrRefused
// gives the command its exit code.
func handleAct[Q any](mux *http.ServeMux, name string, do func(ctx context.Context, yes bool, act Q) ([]string, error)) {
	handleAnswer(mux, name, maxAct, func(ctx context.Context, yes bool, act Q) (actReply, error) {
		sentences, err := do(ctx, yes, act)
		return actReply{Version: actVersion, Sentences: sentences, Done: yes}, err
	})
}

// handleAnswer serves one act that has an answer of its own, with a request of at most
// so many bytes.
func handleAnswer[Q, R any](mux *http.ServeMux, name string, most int64, do func(ctx context.Context, yes bool, act Q) (R, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		var request actRequest[Q]
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
		d.DisallowUnknownFields()
		err := d.Decode(&request)
		if err == nil && request.Version != actVersion {
			err = fmt.Errorf("it has version %d, this agent knows version %d", request.Version, actVersion)
		}
		if err != nil {
			localReply(w, http.StatusBadRequest, actProblem{"invalid", fmt.Sprintf("reading the request for %s: %v; systemctl restart muster, if the program is newer than the agent", name, err)})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), actPatience)
		defer cancel()
		answer, err := do(ctx, request.Yes, request.Act)
		if err == nil {
			localReply(w, http.StatusOK, answer)
			return
		}
		for _, known := range actCodes {
			if errors.Is(err, known.err) {
				localReply(w, known.status, actProblem{known.code, err.Error()})
				return
			}
		}
		localReply(w, http.StatusInternalServerError, actProblem{"failed", err.Error()})
	})
}

// askAct asks the agent for an act.
func askAct[Q any](ctx context.Context, socket, name string, yes bool, act Q) (actReply, error) {
	return askAnswer[Q, actReply](ctx, socket, name, yes, act)
}

// askAnswer asks the agent for an act that has an answer of its own.
func askAnswer[Q, R any](ctx context.Context, socket, name string, yes bool, act Q) (reply R, err error) {
	ctx, cancel := context.WithTimeout(ctx, actPatience+5*time.Second)
	defer cancel()
	body, err := json.Marshal(actRequest[Q]{Version: actVersion, Yes: yes, Act: act})
	if err != nil {
		return reply, fmt.Errorf("encoding the request: %w", err)
	}
	response, err := askLocal(ctx, socket, http.MethodPost, "/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return reply, actFailure(socket, response)
	}
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		return reply, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return reply, nil
}

func actFailure(socket string, response *http.Response) error {
	var p actProblem
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAct)).Decode(&p); err != nil || p.Error == "" {
		return exitError{exitUnavailable, fmt.Errorf("the agent at %s answers %s, expected 200 OK: it is of another version than this program; systemctl restart muster", socket, response.Status)}
	}
	for _, known := range actCodes {
		if known.code == p.Code {
			return exitError{known.exit, errors.New(p.Error)}
		}
	}
	return errors.New(p.Error)
}

// runAct asks for an act and prints what the agent says to it.
func runAct[Q any](ctx context.Context, stdout io.Writer, socket, name string, yes bool, act Q) error {
	reply, err := askAct(ctx, socket, name, yes, act)
	if err != nil {
		return err
	}
	for _, sentence := range reply.Sentences {
		fmt.Fprintln(stdout, sentence)
	}
	if !reply.Done {
		fmt.Fprintln(stdout, "Nothing was done: add --yes to do it.")
	}
	return nil
}

// askLocal sends a request to the agent's socket. Its errors carry exit codes.
func askLocal(ctx context.Context, socket, method, path string, body io.Reader) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("asking the agent: %w", err)
	}
	response, err := client.Do(request)
	if err == nil {
		return response, nil
	}
	var told *url.Error // its address means nothing to a person
	if errors.As(err, &told) {
		err = told.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, exitError{exitPermission, fmt.Errorf("asking the agent at %s: %w (run this as root)", socket, err)}
	}
	return nil, exitError{exitUnavailable, fmt.Errorf("the agent does not answer at %s: %w (systemctl status muster; journalctl -u muster -u muster-fetch)", socket, err)}
}
