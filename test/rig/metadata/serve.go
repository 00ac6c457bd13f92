package metadata

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Service answers servers of an inventory, which it reads anew for every request, so
// that a change counts at once.
type Service struct {
	// Inventory is a file or a directory (Load).
	Inventory string
	// Files, if set, is a directory that is served below /files/.
	Files string
	// Neighbour finds the MAC address of a source address, for servers that are known
	// by theirs; nil: none is found.
	Neighbour func(netip.Addr) string

	mu     sync.Mutex
	began  map[string]time.Time // of each server's present fault: the first request
	faults map[string]Fault
	asked  map[string]int // requests by server, for Flaky
}

// ServeStore answers on address, a host:port, from a driver's directory. It returns
// only with an error.
func ServeStore(address string, s Store, files string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, Ready), nil, 0o644); err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	return (&Service{Inventory: s.Dir, Files: files}).Serve(l)
}

// Serve answers until the listener is closed.
func (s *Service) Serve(l net.Listener) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}

// Handler is the service without a socket.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	if s.Files != "" {
		mux.Handle("GET /files/", http.StripPrefix("/files/", http.FileServer(http.Dir(s.Files))))
	}
	events := &Log{}
	mux.Handle("POST /events", events)
	mux.Handle("GET /events", events)
	mux.HandleFunc("PUT /metadata/v1/api/token", s.answer)
	mux.HandleFunc("GET /", s.answer)
	return mux
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	servers, err := Load(s.Inventory)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	server, known := s.find(servers, from.Addr().Unmap())
	if !known {
		notFound(w)
		return
	}
	fault, odd := s.fault(server)
	if fault.Kind == Swapped {
		i := slices.IndexFunc(servers, func(o Server) bool { return o.Hostname == fault.Of })
		if i < 0 {
			http.Error(w, fmt.Sprintf("fault of %s: no server is called %q", server.Hostname, fault.Of), http.StatusInternalServerError)
			return
		}
		server = servers[i]
	}
	if fault.Kind == NoBGP {
		server.BGP = nil
	}
	body, found := documentAt(server, r.URL.Path)
	if slices.Contains(server.Forms, Latitude) && r.Method == http.MethodGet && r.Header.Get("X-Metadata-Token") != token {
		found = false
	}
	give(w, r, fault, odd, body, found)
}

// give answers as a fault says.
func give(w http.ResponseWriter, r *http.Request, fault Fault, odd bool, body []byte, found bool) {
	switch {
	case fault.Kind == Refused:
		panic(http.ErrAbortHandler)
	case fault.Kind == Broken, fault.Kind == Flaky && odd:
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
	}
	if !found || fault.Kind == Absent {
		notFound(w)
		return
	}
	kind := "text/plain"
	if len(body) > 0 && body[0] == '{' {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if fault.Kind == Truncated {
		// net/http closes the connection when less than promised was written.
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // the server hung up; it will ask again
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintln(w, `{"message":"instance not found"}`)
}

// documentAt is what one of the server's forms has at a path; the first form wins,
// as /metadata is Packet's and Tootles' alike.
func documentAt(s Server, path string) ([]byte, bool) {
	of := s.Forms
	if len(of) == 0 {
		of = forms
	}
	for _, form := range of {
		if body, ok := Documents(s, form)[path]; ok {
			return body, true
		}
	}
	return nil, false
}

// find knows a server by its source address, else by the MAC address behind it.
func (s *Service) find(servers []Server, from netip.Addr) (Server, bool) {
	for _, server := range servers {
		for _, a := range server.Addresses {
			if a.Address.Addr() == from {
				return server, true
			}
		}
	}
	mac := ""
	if s.Neighbour != nil {
		mac = s.Neighbour(from)
	}
	for _, server := range servers {
		if mac != "" && slices.ContainsFunc(server.MACs, func(m string) bool { return sameMAC(m, mac) }) {
			return server, true
		}
	}
	return Server{}, false
}

func sameMAC(a, b string) bool {
	x, errX := net.ParseMAC(a)
	y, errY := net.ParseMAC(b)
	return errX == nil && errY == nil && slices.Equal(x, y)
}

// fault is the fault that a server has now, and whether the request is an odd one.
func (s *Service) fault(server Server) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began == nil {
		s.began, s.faults, s.asked = map[string]time.Time{}, map[string]Fault{}, map[string]int{}
	}
	name, f := server.Hostname, server.Fault
	if s.faults[name] != f || s.began[name].IsZero() {
		s.faults[name], s.began[name] = f, time.Now()
	}
	s.asked[name]++
	if f.For > 0 && time.Since(s.began[name]) >= f.For {
		f = Fault{}
	}
	return f, s.asked[name]%2 == 1
}
