// Package metadata is a metadata service for test servers: it tells each server,
// by its source address, its own document in the Packet format and its user-data.
// It can be told to misbehave towards one server.
package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Ways in which the service can fail a server.
const (
	Absent    = "absent"    // 404, as before the platform knows the server
	Slow      = "slow"      // the answer comes after Delay
	Broken    = "broken"    // 500
	Truncated = "truncated" // half of the document, then the connection ends
	NoBGP     = "no-bgp"    // the document has no bgp_neighbors
)

// Fault is how the service answers one server from now on.
type Fault struct {
	Kind  string        `json:"kind"`
	Delay time.Duration `json:"delay,omitempty"` // of Slow
}

// Store is the directory that the service answers from. It is read anew for every
// request, so that the driver changes answers by writing files.
type Store struct {
	Dir string
}

// Ready is a file in the store that exists while the service listens.
const Ready = "ready"

func (s Store) path(server netip.Addr, what string) string {
	return filepath.Join(s.Dir, server.String()+"."+what)
}

// Put gives a server its document and user-data.
func (s Store) Put(server netip.Addr, document, userdata []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("metadata of %s: %w", server, err)
	}
	return errors.Join(s.write(server, "json", document), s.write(server, "userdata", userdata))
}

// Fail makes the service answer a server as the fault says; the zero Fault makes
// it honest again.
func (s Store) Fail(server netip.Addr, f Fault) error {
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("fault for %s: %w", server, err)
	}
	return s.write(server, "fault", b)
}

func (s Store) write(server netip.Addr, what string, b []byte) error {
	path := s.path(server, what)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("metadata of %s: %w", server, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("metadata of %s: %w", server, err)
	}
	return nil
}

func (s Store) fault(server netip.Addr) (Fault, error) {
	var f Fault
	b, err := os.ReadFile(s.path(server, "fault"))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f, err
}

// Serve answers on address, a host:port, and files below /files/. It returns only
// with an error.
func Serve(address string, s Store, files string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, Ready), nil, 0o644); err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	server := &http.Server{Handler: handler(s, files), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}

func handler(s Store, files string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata", func(w http.ResponseWriter, r *http.Request) { answer(w, r, s, "json", "application/json") })
	mux.HandleFunc("GET /userdata", func(w http.ResponseWriter, r *http.Request) { answer(w, r, s, "userdata", "text/plain") })
	mux.Handle("GET /files/", http.StripPrefix("/files/", http.FileServer(http.Dir(files))))
	return mux
}

func answer(w http.ResponseWriter, r *http.Request, s Store, what, kind string) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	server := from.Addr().Unmap()
	body, err := os.ReadFile(s.path(server, what))
	fault, failed := s.fault(server)
	switch {
	case failed != nil:
		http.Error(w, failed.Error(), http.StatusInternalServerError)
		return
	case errors.Is(err, fs.ErrNotExist) || fault.Kind == Absent:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintln(w, `{"message":"instance not found"}`)
		return
	case err != nil || fault.Kind == Broken:
		http.Error(w, `{"error":"internal server error"}`, http.StatusInternalServerError)
		return
	case fault.Kind == Slow:
		late := time.NewTimer(fault.Delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-r.Context().Done():
			return
		}
	case fault.Kind == NoBGP && what == "json":
		body = withoutBGP(body)
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if fault.Kind == Truncated {
		// net/http closes the connection when less than promised was written.
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // the server hung up; it will ask again
}

func withoutBGP(document []byte) []byte {
	var d map[string]json.RawMessage
	if err := json.Unmarshal(document, &d); err != nil {
		return document
	}
	delete(d, "bgp_neighbors")
	b, err := json.Marshal(d)
	if err != nil {
		return document
	}
	return b
}
