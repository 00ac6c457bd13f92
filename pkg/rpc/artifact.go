package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
)

// Servers give artefacts to a few others at once, so that a rack that is installed
// anew does not take the link of its control planes; the rest hear "not ready" and
// ask another, or a mirror.
const (
	givenAtOnce = 4
	// givenWithin bounds one transfer: 300 MB in it are 500 KB/s.
	givenWithin = 10 * time.Minute
)

// ArtifactHandler answers GET /v1/artifacts/SHA256 on the agent port with a
// verified artefact, from an offset on when the request has a range.
func ArtifactHandler(open func(sha256 string) (*os.File, error), who Identify) http.Handler {
	slots := make(chan struct{}, givenAtOnce)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/artifacts/{sha256}", func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			reply(w, http.StatusForbidden, failure{"not a TLS connection"})
			return
		}
		if _, err := who(*r.TLS); err != nil {
			reply(w, http.StatusForbidden, failure{err.Error()})
			return
		}
		f, err := open(r.PathValue("sha256"))
		if err != nil {
			reply(w, http.StatusNotFound, failure{"this server has no such artefact"})
			return
		}
		defer f.Close()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			reply(w, http.StatusServiceUnavailable, failure{fmt.Sprintf("this server gives artefacts to %d others already", givenAtOnce)})
			return
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(givenWithin)); err != nil {
			reply(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})
	return mux
}

// Artifact opens a server's copy of an artefact from an offset on. The caller
// compares the sha256: a peer is no authority.
func (c *Client) Artifact(ctx context.Context, p agent.Peer, sha256 string, offset int64) (io.ReadCloser, error) {
	at := netip.AddrPortFrom(p.Address, c.port)
	path := "/v1/artifacts/" + sha256
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at.String()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", at, err)
	}
	want := http.StatusOK
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = http.StatusPartialContent
	}
	response, err := c.http(p).Do(request)
	if err != nil {
		var long *url.Error // repeats the address
		if errors.As(err, &long) {
			err = long.Err
		}
		return nil, fmt.Errorf("asking %s: %w", at, err)
	}
	if response.StatusCode == want {
		return response.Body, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	err = errors.Join(err, response.Body.Close(), refusal(at, path, response.StatusCode, body))
	if response.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return nil, err
}
