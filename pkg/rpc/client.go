package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// Client calls other agents on one port. It keeps connections open, because a
// ballot must not pay for a handshake each time.
type Client struct {
	// TLS returns the configuration for a call to the given instance; the empty
	// string accepts any server of the CA.
	tls  func(inst string) *tls.Config
	who  Identify
	port uint16

	mu    sync.Mutex
	peers map[string]*http.Client // by inst and address
}

// NewClient calls port with the TLS configuration that the callback returns; who
// reads the server's identity from its certificate.
func NewClient(port uint16, config func(inst string) *tls.Config, who Identify) *Client {
	return &Client{tls: config, who: who, port: port, peers: map[string]*http.Client{}}
}

// dialTimeout bounds connecting: on a private fabric a live server answers in
// milliseconds; a dead one should not hold a ballot up.
const dialTimeout = 3 * time.Second

func (c *Client) http(p agent.Peer) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := p.Inst + "@" + p.Address.String()
	if client := c.peers[key]; client != nil {
		return client
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	client := &http.Client{
		Transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				// The configuration is read at each dial, so that a rotated certificate is used.
				d := tls.Dialer{NetDialer: dialer, Config: c.tls(p.Inst)}
				return d.DialContext(ctx, network, addr)
			},
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.peers[key] = client
	return client
}

// Forget closes the connections, as after a change of certificates.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.peers {
		client.CloseIdleConnections()
	}
	c.peers = map[string]*http.Client{}
}

func call[A any](ctx context.Context, c *Client, p agent.Peer, method, path string, request any) (A, error) {
	answer, _, err := callFrom[A](ctx, c, p, method, path, request)
	return answer, err
}

// callFrom also returns who answered, as its certificate says.
func callFrom[A any](ctx context.Context, c *Client, p agent.Peer, method, path string, request any) (answer A, from agent.Caller, err error) {
	var body io.Reader
	if request != nil {
		data, err := json.Marshal(request)
		if err != nil {
			return answer, from, fmt.Errorf("encoding the request for %s: %w", path, err)
		}
		body = bytes.NewReader(data)
	}
	at := netip.AddrPortFrom(p.Address, c.port)
	req, err := http.NewRequestWithContext(ctx, method, "https://"+at.String()+path, body)
	if err != nil {
		return answer, from, fmt.Errorf("asking %s: %w", at, err)
	}
	response, err := c.http(p).Do(req)
	if err != nil {
		var long *url.Error // repeats the address, with what a person does not ask for
		if errors.As(err, &long) {
			err = long.Err
		}
		return answer, from, fmt.Errorf("asking %s: %w", at, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = fmt.Errorf("it is longer than %d bytes", maxBody)
	}
	if err != nil {
		return answer, from, fmt.Errorf("reading the answer of %s to %s: %w", at, path, err)
	}
	if response.StatusCode != http.StatusOK {
		return answer, from, refusal(at, path, response.StatusCode, data)
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, from, fmt.Errorf("reading the answer of %s to %s: %w", at, path, err)
	}
	if from, err = c.who(*response.TLS); err != nil {
		return answer, from, fmt.Errorf("reading the certificate of %s: %w", at, err)
	}
	return answer, from, nil
}

func refusal(at netip.AddrPort, path string, code int, body []byte) error {
	var f failure
	if json.Unmarshal(body, &f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("HTTP status %d", code)
	}
	text := fmt.Sprintf("%s says to %s: %s", at, path, f.Error)
	switch code {
	case http.StatusServiceUnavailable:
		return told{text, agent.ErrNotReady}
	case http.StatusForbidden:
		return told{text, agent.ErrRefused}
	}
	return errors.New(text)
}

// told is a refusal in the words of the server, which name its kind already.
type told struct {
	text string
	kind error
}

func (t told) Error() string { return t.text }
func (t told) Unwrap() error { return t.kind }

// Fence delivers a fence message and returns the replies and who sent them.
func (c *Client) Fence(ctx context.Context, p agent.Peer, message []byte) ([][]byte, agent.Caller, error) {
	raw, from, err := callFrom[[]json.RawMessage](ctx, c, p, http.MethodPost, "/v1/fence", json.RawMessage(message))
	replies := make([][]byte, len(raw))
	for i, r := range raw {
		replies[i] = r
	}
	return replies, from, err
}

// Enrol asks for a certificate of the agent CA.
func (c *Client) Enrol(ctx context.Context, p agent.Peer, request agent.EnrolRequest) (agent.Enrolment, error) {
	return call[agent.Enrolment](ctx, c, p, http.MethodPost, "/v1/enrol", request)
}

// Status asks a server how far it is.
func (c *Client) Status(ctx context.Context, p agent.Peer) (member.Status, error) {
	return call[member.Status](ctx, c, p, http.MethodGet, "/v1/status", nil)
}

// Members reads the directory.
func (c *Client) Members(ctx context.Context, p agent.Peer) ([]member.Member, error) {
	return call[[]member.Member](ctx, c, p, http.MethodGet, "/v1/members", nil)
}

// ClaimRole asks for a row in the directory.
func (c *Client) ClaimRole(ctx context.Context, p agent.Peer, request agent.RoleRequest) (agent.RoleReply, error) {
	return call[agent.RoleReply](ctx, c, p, http.MethodPost, "/v1/role", request)
}

// ReportPhase tells the directory how far the caller is.
func (c *Client) ReportPhase(ctx context.Context, p agent.Peer, report agent.PhaseReport) error {
	_, err := call[none](ctx, c, p, http.MethodPost, "/v1/phase", report)
	return err
}

// Authorities asks for the cluster's CA keys, sealed to the caller.
func (c *Client) Authorities(ctx context.Context, p agent.Peer, request agent.AuthoritiesRequest) (agent.AuthoritiesReply, error) {
	return call[agent.AuthoritiesReply](ctx, c, p, http.MethodPost, "/v1/authorities", request)
}

// AcquireJoin asks for the turn to join as a control plane.
func (c *Client) AcquireJoin(ctx context.Context, p agent.Peer) (agent.JoinTurn, error) {
	return call[agent.JoinTurn](ctx, c, p, http.MethodPost, "/v1/join/acquire", none{})
}

// RenewJoin shows that the holder of the turn is alive.
func (c *Client) RenewJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error {
	_, err := call[none](ctx, c, p, http.MethodPost, "/v1/join/renew", turn)
	return err
}

// ReleaseJoin gives the turn back.
func (c *Client) ReleaseJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error {
	_, err := call[none](ctx, c, p, http.MethodPost, "/v1/join/release", turn)
	return err
}

// JoinMaterial asks for a bootstrap token and the cluster CA.
func (c *Client) JoinMaterial(ctx context.Context, p agent.Peer) (agent.JoinMaterial, error) {
	return call[agent.JoinMaterial](ctx, c, p, http.MethodPost, "/v1/join/material", none{})
}

// Leave asks for a step of the caller's leave.
func (c *Client) Leave(ctx context.Context, p agent.Peer, request agent.LeaveRequest) (agent.LeaveReply, error) {
	return call[agent.LeaveReply](ctx, c, p, http.MethodPost, "/v1/leave", request)
}

// Standing asks a control plane whether the caller was removed.
func (c *Client) Standing(ctx context.Context, p agent.Peer) (agent.Standing, error) {
	return call[agent.Standing](ctx, c, p, http.MethodGet, "/v1/standing", nil)
}

// Spec asks for the cluster's spec, whose text comes only when it is another revision
// than the known one.
func (c *Client) Spec(ctx context.Context, p agent.Peer, request agent.SpecRequest) (member.Spec, error) {
	return call[member.Spec](ctx, c, p, http.MethodPost, "/v1/spec", request)
}
