package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// source opens files by URL: over the network, from a disk, or, with --from, all
// of them from one directory.
type source struct {
	from string
	http *http.Client
}

// stall is how long a server may be silent before it counts as dead.
const stall = 30 * time.Second

func newSource(from string) source {
	dialer := net.Dialer{Timeout: stall}
	return source{from: from, http: &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSHandshakeTimeout:   stall,
		ResponseHeaderTimeout: stall,
		DisableCompression:    true, // a digest is of the file as it lies there
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return lively{c}, nil
		},
	}}}
}

// lively is a connection on which silence ends a read.
type lively struct{ net.Conn }

func (c lively) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing came for %s: %w", stall, err)
	}
	return n, err
}

// open opens a file; its error names it, and is fs.ErrNotExist when the server
// says that there is none.
func (s source) open(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	switch {
	case s.from != "":
		return os.Open(filepath.Join(s.from, u.Host, filepath.FromSlash(u.Path)))
	case u.Scheme == "file":
		return os.Open(filepath.FromSlash(u.Path))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err // it names method and URL
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	_ = response.Body.Close() // the status says it all
	return nil, statusError{address, response.Status, response.StatusCode}
}

// statusError is an answer without the file.
type statusError struct {
	url, status string
	code        int
}

func (e statusError) Error() string { return e.url + ": HTTP status " + e.status }

func (e statusError) Is(target error) bool {
	return target == fs.ErrNotExist && (e.code == http.StatusNotFound || e.code == http.StatusGone)
}
