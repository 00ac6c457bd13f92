package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
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
	mu  sync.Mutex
	why map[string]string // peer -> error
}

func newDialLog(next slog.Handler) *dialLog {
	return &dialLog{next: next, last: &lastDials{why: map[string]string{}}}
}

// failure returns the text of the last failure of a peer since it was up.
func (d *dialLog) failure(peer netip.Addr) string {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	return d.last.why[peer.String()]
}

// Enabled says yes to everything: the failures are debug records.
func (d *dialLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle remembers a failure and passes on what people should see. Messages and
// keys are those of pkg/server/fsm.go of GoBGP v4.8.0; a test with a real router
// notices when they change.
func (d *dialLog) Handle(ctx context.Context, r slog.Record) error {
	key := map[string]string{"failed to connect": "Error", "outgoing connection IO error": "reason", "state changed": "new"}[r.Message]
	if key != "" && d.peer != "" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key != key {
				return true
			}
			d.last.mu.Lock()
			defer d.last.mu.Unlock()
			switch value := a.Value.String(); {
			case r.Message != "state changed":
				d.last.why[d.peer] = value
			case value == "BGP_FSM_ESTABLISHED":
				delete(d.last.why, d.peer)
			}
			return false
		})
	}
	if r.Level < slog.LevelWarn || !d.next.Enabled(ctx, r.Level) {
		return nil
	}
	return d.next.Handle(ctx, r)
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

// facts is what this server knows about a session that is down.
type facts struct {
	sourceHere bool       // the source address is on an interface
	routeErr   error      // of asking the kernel for the way to the peer
	routeSrc   netip.Addr // the source that the kernel would choose
	dialErr    string     // of the last dial, or why the connection ended
}

// gather asks the kernel about the way to a peer.
func gather(p plan.Peer, dialErr string) facts {
	f := facts{dialErr: dialErr}
	if list, err := netlink.AddrList(nil, netlink.FAMILY_ALL); err == nil {
		for _, a := range list {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == p.Source {
				f.sourceHere = true
			}
		}
	}
	routes, err := netlink.RouteGet(p.Address.AsSlice())
	if f.routeErr = err; err == nil && len(routes) > 0 {
		src, _ := netip.AddrFromSlice(routes[0].Src)
		f.routeSrc = src.Unmap()
	}
	return f
}

// reason says in one sentence why a session is down and what to look at.
func reason(p plan.Peer, f facts) string {
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(f.dialErr, part) {
				return true
			}
		}
		return false
	}
	switch {
	case !f.sourceHere:
		return fmt.Sprintf("the source %s is on no interface of this server; the metadata names another address than the network service has set", p.Source)
	case errors.Is(f.routeErr, unix.ENETUNREACH) || errors.Is(f.routeErr, unix.EHOSTUNREACH) || has("network is unreachable"):
		return fmt.Sprintf("no route to %s; the agent adds one through the private gateway, see its log", p.Address)
	case has("connection refused"):
		return fmt.Sprintf("%s refuses the connection to port 179: no BGP there, or not for %s", p.Address, p.Source)
	case has("no route to host"):
		return fmt.Sprintf("no router on the way to %s delivers packets there", p.Address)
	case f.routeSrc.IsValid() && f.routeSrc != p.Source:
		return fmt.Sprintf("the way to %s is not the private one: the kernel would send from %s, the router expects %s; the route through the private gateway is missing", p.Address, f.routeSrc, p.Source)
	case has("i/o timeout", "deadline exceeded"):
		what := "the router does not know this server, or packets are lost"
		if p.Password != "" {
			what = "a wrong MD5 password looks like that, as does a router that does not know this server"
		}
		return fmt.Sprintf("no answer from %s port 179 to %s: %s", p.Address, p.Source, what)
	case f.dialErr != "":
		return fmt.Sprintf("the connection to %s ended: %s", p.Address, f.dialErr)
	}
	return fmt.Sprintf("not up yet; the first try comes within %d s", connectRetry)
}
