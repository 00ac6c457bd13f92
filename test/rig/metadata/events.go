package metadata

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// Event is what a server told of its progress: an event of Packet's user_state.
type Event struct {
	From    netip.Addr `json:"from"`
	State   string     `json:"state"`
	Code    int        `json:"code"`
	Message string     `json:"message"`
}

// Log keeps the events of servers: POST tells one, GET lists all as a JSON array, in
// the order in which they came.
type Log struct {
	mu     sync.Mutex
	events []Event
}

// ServeHTTP refuses what the platform would not have shown.
func (l *Log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(l.Events()) // an error means that the asker went away
		return
	}
	var e Event
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil {
		err = d.Decode(&e)
	}
	if err == nil && (!slices.Contains([]string{"running", "succeeded", "failed"}, e.State) || e.Code < 1000 || e.Code > 1099 || e.Message == "") {
		err = fmt.Errorf("state %q, code %d, message %q", e.State, e.Code, e.Message)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	e.From = from.Addr().Unmap()
	l.mu.Lock()
	l.events = append(l.events, e)
	l.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

// Events are those that were told so far.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Event{}, l.events...)
}
