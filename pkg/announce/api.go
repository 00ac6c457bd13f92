package announce

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
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

const (
	pathStatus   = "/v1/status"
	pathWithhold = "/v1/withhold"
	pathReload   = "/v1/reload"
	// maxBody bounds a request and an answer.
	maxBody = 1 << 20
	// headerTime bounds how long a client may take to send a request's head.
	headerTime = 5 * time.Second
)

// Status is the answer to GET /v1/status.
type Status struct {
	Announced []netip.Prefix `json:"announced"` // handed to the sessions
	Withheld  []netip.Prefix `json:"withheld,omitempty"`
	Healthy   bool           `json:"healthy"`          // the gate is open
	Health    string         `json:"health,omitempty"` // what the last look at the API server found, "" when all was well
	// Peers are the sessions by address; one that is down has a reason.
	Peers []member.PeerStatus `json:"peers"`
}

// sentence is for `systemctl status`.
func (s Status) sentence() string {
	up := 0
	for _, p := range s.Peers {
		if p.State == established {
			up++
		}
	}
	sessions := fmt.Sprintf("%d of %d BGP sessions up", up, len(s.Peers))
	switch {
	case len(s.Announced) > 0:
		var names []string
		for _, p := range s.Announced {
			names = append(names, p.String())
		}
		return "announcing " + strings.Join(names, " ") + "; " + sessions
	case !s.Healthy && s.Health != "":
		return "announcing nothing: " + s.Health + "; " + sessions
	case !s.Healthy:
		return "announcing nothing: the API server was not asked yet; " + sessions
	case len(s.Withheld) > 0:
		return "announcing nothing: the agent withholds; " + sessions
	}
	return "announcing nothing: no Elastic IP on lo; " + sessions
}

// withholdRequest is the body of POST /v1/withhold.
type withholdRequest struct {
	Prefix   netip.Prefix `json:"prefix"`
	Withheld bool         `json:"withheld"`
}

// listen makes the socket. One that a killed speaker left is replaced; one that
// answers is an error: two speakers with the same source address keep each
// other's sessions down without a word.
func listen(ctx context.Context, path string) (net.Listener, error) {
	dialer := net.Dialer{Timeout: time.Second}
	if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("another speaker answers on %s: stop it first", path), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the speaker's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the speaker's socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers on l until it is closed; an error of serving comes on the
// channel.
func serve(l net.Listener, a *announcer) <-chan error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, func(w http.ResponseWriter, r *http.Request) {
		st, err := a.status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(st); err != nil {
			a.log.Debug("status not sent", "err", err)
		}
	})
	mux.HandleFunc("POST "+pathWithhold, func(w http.ResponseWriter, r *http.Request) {
		var req withholdRequest
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&req); err != nil || !req.Prefix.IsValid() {
			http.Error(w, `expected {"prefix": "ADDRESS/LENGTH", "withheld": true or false}`, http.StatusBadRequest)
			return
		}
		if err := a.withhold(r.Context(), req.Prefix, req.Withheld); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+pathReload, func(w http.ResponseWriter, _ *http.Request) {
		select {
		case a.asked <- struct{}{}:
		default: // it is about to read the plan anyway
		}
		w.WriteHeader(http.StatusNoContent)
	})
	out := make(chan error, 1)
	go func() {
		out <- (&http.Server{Handler: mux, ReadHeaderTimeout: headerTime}).Serve(l)
	}()
	return out
}

// Client talks to the speaker of this server.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the speaker's socket. Calls end with their
// context.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		// Calls are rare and the speaker may restart in between.
		DisableKeepAlives: true,
	}}}
}

// Status asks for the speaker's state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	b, err := c.call(ctx, http.MethodGet, pathStatus, nil)
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask the BGP speaker for its status: %w", err)
	}
	return st, nil
}

// Withhold keeps a prefix back or lets it go again. When it returns after a
// withdrawal, the routers have been told; they need a moment (200 ms is plenty)
// to act on it before the address may go. The order lasts until the speaker
// restarts.
func (c *Client) Withhold(ctx context.Context, p netip.Prefix, withheld bool) error {
	b, err := json.Marshal(withholdRequest{Prefix: p, Withheld: withheld})
	if err == nil {
		_, err = c.call(ctx, http.MethodPost, pathWithhold, b)
	}
	if err != nil {
		return fmt.Errorf("withhold %s (%t) at the BGP speaker: %w", p, withheld, err)
	}
	return nil
}

// Reload has the speaker read its plan again, as SIGHUP does. It does so after the
// call returns.
func (c *Client) Reload(ctx context.Context) error {
	if _, err := c.call(ctx, http.MethodPost, pathReload, nil); err != nil {
		return fmt.Errorf("have the BGP speaker read its plan again: %w", err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://speaker"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return b, nil
}
