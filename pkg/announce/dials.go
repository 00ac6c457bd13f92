package announce

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// dialLog is the log handler that GoBGP gets. It passes warnings and errors on,
// and remembers why the last dial to each peer failed: GoBGP tells that only at
// debug level, and without it a wrong password, a wrong source and a dead router
// all look the same, a session that stays active.
type dialLog struct {
	next slog.Handler
	peer string // of the logger that GoBGP makes for a session
	last *lastDials
}

type lastDials struct {
	count  func() (md5Counters, error)
	untold func(peer string) // called when a router refuses us by a code that is not known

	mu      sync.Mutex
	started md5Counters
	peers   map[string]failure
}

// failure is what is known of a peer since its session was up.
type failure struct {
	why  string       // the error of the last dial, or why the connection ended
	note notification // what ended it, if one of the two said so
	told notification // what the router answered when it was asked for its code
	md5  md5Counters  // when the session was up, or the speaker started
}

// notification is a BGP NOTIFICATION; the zero value is none.
type notification struct {
	sent          bool // by this server
	untold        bool // the router refused our OPEN; GoBGP drops the code, which is 0 until we asked
	code, subcode uint8
}

func newDialLog(next slog.Handler, count func() (md5Counters, error), untold func(peer string)) *dialLog {
	l := &lastDials{count: count, untold: untold, peers: map[string]failure{}}
	l.started, _ = count() // without counters there is one hint less
	return &dialLog{next: next, last: l}
}

// failure returns the last failure of a peer since it was up.
func (d *dialLog) failure(peer netip.Addr) failure {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	return d.last.of(peer.String())
}

// told notes what a router answered when it was asked why it refuses the session.
func (d *dialLog) told(peer netip.Addr, note notification) {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	f := d.last.of(peer.String())
	note.untold = true
	if f.told = note; f.note.untold {
		f.note = note
	}
	d.last.peers[peer.String()] = f
}

func (l *lastDials) of(peer string) failure {
	if f, ok := l.peers[peer]; ok {
		return f
	}
	return failure{md5: l.started}
}

// Enabled says yes to everything: the failures are debug records.
func (d *dialLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle remembers a failure and passes on what people should see.
func (d *dialLog) Handle(ctx context.Context, r slog.Record) error {
	if d.peer != "" {
		d.remember(r)
	}
	if r.Level < slog.LevelWarn || !d.next.Enabled(ctx, r.Level) {
		return nil
	}
	return d.next.Handle(ctx, r)
}

// remember takes from a record what it says of the session. Messages and keys are
// those of pkg/server/fsm.go of GoBGP v4.8.0; tests with a real router notice when
// they change.
func (d *dialLog) remember(r slog.Record) {
	values := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value
		return true
	})
	text := func(key string) string {
		v, ok := values[key]
		if !ok {
			return ""
		}
		return v.String()
	}
	number := func(key string) uint8 {
		if v, ok := values[key]; ok && v.Kind() == slog.KindInt64 {
			return uint8(v.Int64()) // one byte in the protocol (RFC 4271, 4.5)
		}
		return 0
	}
	if d.note(r, text, number) {
		d.last.untold(d.peer)
	}
}

// note takes a record down, and says whether the router should be asked for its code.
func (d *dialLog) note(r slog.Record, text func(key string) string, number func(key string) uint8) (ask bool) {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	f := d.last.of(d.peer)
	sent := r.Message == "sent notification"
	switch r.Message {
	case "failed to connect":
		f.why, f.note = text("Error"), notification{}
	case "outgoing connection IO error":
		// After a notification a router refuses for some time without a word: that
		// takes nothing from what it said.
		f.why = text("reason")
	case "sent notification", "received notification":
		f.note = notification{sent: sent, code: number("Code"), subcode: number("Subcode")}
		if sent && f.note.code == bgp.BGP_ERROR_FSM_ERROR { // to a notification in the place of an OPEN
			f.note = notification{untold: true}
		}
	case "state changed":
		switch {
		case text("new") == "BGP_FSM_ESTABLISHED":
			f = failure{md5: f.md5}
			if now, err := d.last.count(); err == nil {
				f.md5 = now
			}
		case text("old") == "BGP_FSM_ESTABLISHED":
			f.why = text("reason")
		case text("old") == "BGP_FSM_OPENCONFIRM" && text("reason") == "invalid-msg": // in the place of a KEEPALIVE
			f.note = notification{untold: true}
		}
	default:
		return false
	}
	ask = f.note.untold
	if ask && f.told.code != 0 {
		f.note = f.told
	}
	d.last.peers[d.peer] = f
	return ask
}

// WithAttrs keeps the peer that GoBGP binds to a session's logger as "Key".
func (d *dialLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &dialLog{next: d.next.WithAttrs(attrs), peer: d.peer, last: d.last}
	for _, a := range attrs {
		if a.Key == "Key" {
			out.peer = a.Value.String()
		}
	}
	return out
}

// WithGroup passes the group on.
func (d *dialLog) WithGroup(name string) slog.Handler {
	return &dialLog{next: d.next.WithGroup(name), peer: d.peer, last: d.last}
}
