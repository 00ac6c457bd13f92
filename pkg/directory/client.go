package directory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// clientTimeout bounds one call when the caller's context does not; it is
// longer than the server takes to say that nobody leads.
const clientTimeout = operationTimeout + 5*time.Second

// maxReply bounds an answer, in bytes: thousands of members.
const maxReply = 16 << 20

// Client talks to the directory's process on the same server. Its errors are the
// ones of this package; ErrUnavailable also when the process does not run yet.
type Client struct {
	http *http.Client
	path string
}

// NewClient returns a client of the socket at path (layout.DirectorySock). It
// connects at the first call.
func NewClient(path string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
	}
	return &Client{http: &http.Client{Transport: transport}, path: path}
}

// ClaimRole gives an instance a row and returns its role: at most
// Claim.ControlPlanes instances ever become control planes. The same claim again
// returns the same role. Errors: ErrNameTaken, ErrFirstTaken, ErrRevoked,
// ErrSurplus, ErrInvalid.
func (c *Client) ClaimRole(ctx context.Context, claim Claim) (member.Role, error) {
	var reply claimReply
	err := c.call(ctx, pathClaim, claim, &reply)
	return reply.Role, err
}

// BindKey binds an instance to the hash of its public key (sha256:…), unless it is
// bound already: the first key stays. The same key again is no error. Errors:
// ErrKeyTaken, ErrRevoked, ErrInvalid.
func (c *Client) BindKey(ctx context.Context, inst, hw, keyHash string) error {
	return c.call(ctx, pathBind, bindDoc{Inst: inst, HW: hw, Key: keyHash}, &nothing{})
}

// Members returns all rows, control planes first, each group by name.
func (c *Client) Members(ctx context.Context) ([]member.Member, error) {
	var reply membersList
	err := c.call(ctx, pathMembers, nothing{}, &reply)
	return reply.Members, err
}

// SetPhase writes how far an instance is; detail is a sentence for people, at
// most 1024 bytes. Errors: ErrUnknownMember, ErrInvalid.
func (c *Client) SetPhase(ctx context.Context, inst string, phase member.Phase, detail string) error {
	return c.call(ctx, pathPhase, phaseDoc{Inst: inst, Phase: phase, Detail: detail}, &nothing{})
}

// AcquireJoin asks for the turn to join as a control plane; when it is not
// granted the answer names the holder's instance. Errors: ErrUnknownMember,
// ErrNotControlPlane.
func (c *Client) AcquireJoin(ctx context.Context, inst string) (agent.JoinTurn, error) {
	var turn agent.JoinTurn
	err := c.call(ctx, pathAcquire, turnDoc{Inst: inst}, &turn)
	return turn, err
}

// RenewJoin tells that the holder is alive; call it at least once a minute while
// the join runs. Error: ErrLockLost, then stop before the next step.
func (c *Client) RenewJoin(ctx context.Context, inst string, token int64) error {
	return c.call(ctx, pathRenew, turnDoc{Inst: inst, Token: token}, &nothing{})
}

// ReleaseJoin ends the turn; ending it twice is no error. Error: ErrLockLost.
func (c *Client) ReleaseJoin(ctx context.Context, inst string, token int64) error {
	return c.call(ctx, pathRelease, turnDoc{Inst: inst, Token: token}, &nothing{})
}

// Nodes returns the nodes of the database and which of them leads, by address.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var reply nodesList
	err := c.call(ctx, pathNodes, nothing{}, &reply)
	return reply.Nodes, err
}

// Remove takes a member out for ever: its row, its certificate, its node of the
// database. who is its node name or instance. Without do it only says what that
// would be. It may be repeated after whatever interrupted it. Errors:
// ErrUnknownMember, ErrMustStay.
func (c *Client) Remove(ctx context.Context, who string, do bool) (member.Removal, error) {
	var reply member.Removal
	err := c.callFor(ctx, removeTimeout+clientTimeout, pathRemove, removeDoc{Who: who, Do: do}, &reply)
	return reply, err
}

// Approve lets servers of this hardware in, however many the cluster expects.
// Error: ErrInvalid.
func (c *Client) Approve(ctx context.Context, hw string) error {
	return c.call(ctx, pathApprove, approveDoc{HW: hw}, &nothing{})
}

// Records returns what must be kept elsewhere to make the directory again.
func (c *Client) Records(ctx context.Context) ([]member.Record, error) {
	var reply recordsDoc
	err := c.call(ctx, pathRecords, nothing{}, &reply)
	return reply.Records, err
}

// Restore gives rows to members that have none. It changes no row but one of a
// node whose instance nobody knew. Error: ErrInvalid.
func (c *Client) Restore(ctx context.Context, records []member.Record) error {
	return c.call(ctx, pathRestore, recordsDoc{records}, &nothing{})
}

// Spec returns the revision of the cluster's spec, nil when there is none yet. Its
// text is left out when the revision is known; -1 is none.
func (c *Client) Spec(ctx context.Context, known int64) (*member.Spec, error) {
	var reply specFound
	err := c.call(ctx, pathSpec, specAsked{known}, &reply)
	return reply.Spec, err
}

// WriteSpec writes a revision that comes after the expected one. Errors: ErrStale,
// ErrInvalid.
func (c *Client) WriteSpec(ctx context.Context, spec member.Spec, expected uint64) error {
	return c.call(ctx, pathSpecWrite, specDoc{spec, expected}, &nothing{})
}

// RestoreSpec brings a revision back that was kept elsewhere, unless there is the
// same or a higher one. Error: ErrInvalid.
func (c *Client) RestoreSpec(ctx context.Context, spec member.Spec) error {
	return c.call(ctx, pathSpecRestore, spec, &nothing{})
}

func (c *Client) call(ctx context.Context, path string, request, reply any) error {
	return c.callFor(ctx, clientTimeout, path, request, reply)
}

func (c *Client) callFor(ctx context.Context, patience time.Duration, path string, request, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("ask the directory: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://directory"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the directory: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(r)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return fmt.Errorf("ask the directory: %w", context.Canceled)
		}
		return fmt.Errorf("%w on %s (is muster-directory.service running? journalctl -u muster-directory): %w", ErrUnavailable, c.path, err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end below
	if response.StatusCode != http.StatusOK {
		return decodeProblem(response.Status, response.Body)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, response.Body, maxReply)).Decode(reply); err != nil {
		return fmt.Errorf("read the directory's answer to %s: %w", path, err)
	}
	return nil
}
