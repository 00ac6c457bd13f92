package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// Paths on the socket. All are POST with a JSON document each way; docs/formats.md
// describes them.
const (
	pathClaim   = "/v1/claim"
	pathBind    = "/v1/bind"
	pathMembers = "/v1/members"
	pathPhase   = "/v1/phase"
	pathAcquire = "/v1/join/acquire"
	pathRenew   = "/v1/join/renew"
	pathRelease = "/v1/join/release"
	pathNodes   = "/v1/nodes"
	pathRemove  = "/v1/remove"
	pathApprove = "/v1/approve"
	pathRecords = "/v1/records"
	pathRestore = "/v1/restore"

	pathSpec        = "/v1/spec"
	pathSpecWrite   = "/v1/spec/write"
	pathSpecRestore = "/v1/spec/restore"
)

// Documents of the requests and answers that have no type of their own.
type (
	nothing    struct{}
	claimReply struct {
		Role member.Role `json:"role"`
	}
	membersList struct {
		Members []member.Member `json:"members"`
	}
	nodesList struct {
		Nodes []Node `json:"nodes"`
	}
	recordsDoc struct {
		Records []member.Record `json:"records"`
	}
	bindDoc struct {
		Inst string `json:"inst"`
		HW   string `json:"hw"`
		Key  string `json:"key"` // sha256:… of the SubjectPublicKeyInfo
	}
	phaseDoc struct {
		Inst   string       `json:"inst"`
		Phase  member.Phase `json:"phase"`
		Detail string       `json:"detail"`
	}
	turnDoc struct {
		Inst  string `json:"inst"`
		Token int64  `json:"token"`
	}
	removeDoc struct {
		Who string `json:"who"` // node name or instance
		Do  bool   `json:"do"`  // without it, only look
	}
	approveDoc struct {
		HW string `json:"hw"`
	}
	specAsked struct {
		Known int64 `json:"known"` // the revision whose text the caller has; -1: none
	}
	specFound struct {
		Spec *member.Spec `json:"spec,omitempty"`
	}
	specDoc struct {
		member.Spec
		Expected uint64 `json:"expected"` // the revision before
	}
	problem struct {
		Code  string `json:"code"`
		Error string `json:"error"`
	}
)

// codes names the errors that cross the socket, and their HTTP status.
var codes = []struct {
	err    error
	code   string
	status int
}{
	{ErrInvalid, "invalid", http.StatusBadRequest},
	{ErrUnknownMember, "unknown-member", http.StatusNotFound},
	{ErrNotControlPlane, "not-control-plane", http.StatusForbidden},
	{ErrNameTaken, "name-taken", http.StatusConflict},
	{ErrFirstTaken, "first-taken", http.StatusConflict},
	{ErrKeyTaken, "key-taken", http.StatusConflict},
	{ErrRevoked, "revoked", http.StatusForbidden},
	{ErrSurplus, "surplus", http.StatusConflict},
	{ErrMustStay, "must-stay", http.StatusConflict},
	{ErrStale, "stale", http.StatusConflict},
	{ErrLockLost, "lock-lost", http.StatusConflict},
	{ErrFalse, "false-directory", http.StatusMisdirectedRequest},
	{ErrRefused, "refused", http.StatusForbidden},
	{ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
}

// maxRequest bounds a request, in bytes: a few thousand records, or a spec, which
// JSON may write with two bytes for one.
const maxRequest = 2 << 20

// handler serves the store's operations.
func (s *store) handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, pathClaim, func(ctx context.Context, c Claim) (claimReply, error) {
		role, err := s.ClaimRole(ctx, c)
		return claimReply{role}, err
	})
	handle(mux, pathBind, func(ctx context.Context, b bindDoc) (nothing, error) {
		return nothing{}, s.BindKey(ctx, b.Inst, b.HW, b.Key)
	})
	handle(mux, pathMembers, func(ctx context.Context, _ nothing) (membersList, error) {
		list, err := s.Members(ctx)
		return membersList{list}, err
	})
	handle(mux, pathPhase, func(ctx context.Context, p phaseDoc) (nothing, error) {
		return nothing{}, s.SetPhase(ctx, p.Inst, p.Phase, p.Detail)
	})
	handle(mux, pathAcquire, func(ctx context.Context, t turnDoc) (agent.JoinTurn, error) {
		return s.AcquireJoin(ctx, t.Inst)
	})
	handle(mux, pathRenew, func(ctx context.Context, t turnDoc) (nothing, error) {
		return nothing{}, s.RenewJoin(ctx, t.Inst, t.Token)
	})
	handle(mux, pathRelease, func(ctx context.Context, t turnDoc) (nothing, error) {
		return nothing{}, s.ReleaseJoin(ctx, t.Inst, t.Token)
	})
	handle(mux, pathNodes, func(ctx context.Context, _ nothing) (nodesList, error) {
		list, err := s.Nodes(ctx)
		return nodesList{list}, err
	})
	handle(mux, pathRemove, func(ctx context.Context, r removeDoc) (member.Removal, error) {
		return s.Remove(ctx, r.Who, r.Do)
	})
	handle(mux, pathApprove, func(ctx context.Context, a approveDoc) (nothing, error) {
		return nothing{}, s.Approve(ctx, a.HW)
	})
	handle(mux, pathRecords, func(ctx context.Context, _ nothing) (recordsDoc, error) {
		list, err := s.Records(ctx)
		return recordsDoc{list}, err
	})
	handle(mux, pathRestore, func(ctx context.Context, r recordsDoc) (nothing, error) {
		return nothing{}, s.Restore(ctx, r.Records)
	})
	handle(mux, pathSpec, func(ctx context.Context, q specAsked) (specFound, error) {
		spec, err := s.Spec(ctx, q.Known)
		return specFound{spec}, err
	})
	handle(mux, pathSpecWrite, func(ctx context.Context, d specDoc) (nothing, error) {
		return nothing{}, s.WriteSpec(ctx, d.Spec, d.Expected)
	})
	handle(mux, pathSpecRestore, func(ctx context.Context, spec member.Spec) (nothing, error) {
		return nothing{}, s.RestoreSpec(ctx, spec)
	})
	return mux
}

// handle decodes the request strictly, calls f and encodes the answer.
func handle[Request, Reply any](mux *http.ServeMux, path string, f func(context.Context, Request) (Reply, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var request Request
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		d.DisallowUnknownFields()
		if err := d.Decode(&request); err != nil {
			answer(w, http.StatusBadRequest, problem{Code: "invalid", Error: fmt.Sprintf("%s: %v", path, err)})
			return
		}
		reply, err := f(r.Context(), request)
		if err == nil {
			answer(w, http.StatusOK, reply)
			return
		}
		for _, known := range codes {
			if errors.Is(err, known.err) {
				answer(w, known.status, problem{Code: known.code, Error: err.Error()})
				return
			}
		}
		answer(w, http.StatusInternalServerError, problem{Code: "internal", Error: err.Error()})
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // the client is gone; it retries
}

// serve serves the socket until ctx ends.
func (n *node) serve(ctx context.Context) error {
	c := n.config
	// Made under another name and renamed, so that it never has another mode.
	staged := c.Socket + ".new"
	if err := os.Remove(staged); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serve the directory: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: staged, Net: "unix"})
	if err != nil {
		return fmt.Errorf("serve the directory: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(staged, 0o600), os.Rename(staged, c.Socket)); err != nil {
		return errors.Join(fmt.Errorf("serve the directory: %w", err), listener.Close())
	}
	defer os.Remove(c.Socket) //nolint:errcheck // a stale socket is replaced at the next start
	server := &http.Server{
		Handler: n.store.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	c.say(ctx, fmt.Sprintf("the directory of epoch %d, generation %d serves at %s", c.Epoch, c.Generation, c.Address))
	if c.Ready != nil {
		c.Ready()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve the directory on %s: %w", c.Socket, err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("end the directory's requests: %w", err), server.Close())
	}
	return nil
}

// decodeProblem turns a refused request into the error that the server had.
func decodeProblem(status string, body io.Reader) error {
	var p problem
	if err := json.NewDecoder(io.LimitReader(body, maxRequest)).Decode(&p); err != nil || p.Error == "" {
		return fmt.Errorf("the directory answered %s without a reason", status)
	}
	for _, known := range codes {
		if known.code == p.Code {
			return remoteError{text: p.Error, kind: known.err}
		}
	}
	return errors.New(p.Error)
}

// remoteError is an error of the server with its words and its kind.
type remoteError struct {
	text string
	kind error
}

// Error returns the server's words.
func (e remoteError) Error() string { return e.text }

// Unwrap returns the kind, for errors.Is.
func (e remoteError) Unwrap() error { return e.kind }
