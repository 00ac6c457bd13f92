package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

// facts is what this server knows about a session that is down.
type facts struct {
	sourceHere bool       // the source address is on an interface
	routeErr   error      // of asking the kernel for the way to the peer
	routeSrc   netip.Addr // the source that the kernel would choose
	dialErr    string     // of the last dial, or why the connection ended
	note       notification
	md5        md5Counters // what the kernel dropped since the session was up
	as         uint32      // of this server
}

// gather asks the kernel about the way to a peer.
func gather(p plan.Peer, as uint32, last failure) facts {
	f := facts{dialErr: last.why, note: last.note, as: as}
	if now, err := readMD5Counters(); err == nil {
		f.md5 = now.since(last.md5)
	}
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
	case f.note != notification{}:
		return noteReason(p, f)
	case has("connection refused"):
		return fmt.Sprintf("%s refuses the connection to port 179: no BGP there, or not for %s", p.Address, p.Source)
	case has("no route to host"):
		return fmt.Sprintf("no router on the way to %s delivers packets there", p.Address)
	case f.routeSrc.IsValid() && f.routeSrc != p.Source:
		return fmt.Sprintf("the way to %s is not the private one: the kernel would send from %s, the router expects %s; the route through the private gateway is missing", p.Address, f.routeSrc, p.Source)
	case has("i/o timeout", "deadline exceeded"):
		return silenceReason(p, f)
	case f.dialErr != "":
		return fmt.Sprintf("the connection to %s ended: %s", p.Address, f.dialErr)
	}
	return fmt.Sprintf("not up yet; the first try comes within %d s", connectRetry)
}

// noteReason says what a NOTIFICATION means. A wrong AS number ends a session
// before it is up, on the side that notices (RFC 4271, 6.2).
func noteReason(p plan.Peer, f facts) string {
	badAS := f.note.code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && f.note.subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS
	code := bgp.NewNotificationErrorCode(f.note.code, f.note.subcode)
	switch {
	case f.note.untold && f.note.code == 0:
		return fmt.Sprintf("AS mismatch suspected: %s answers the OPEN message with a notification, as it does when it knows this server by another AS number than %d (customer_as of the metadata); its log has the code", p.Address, f.as)
	case badAS && f.note.sent:
		return fmt.Sprintf("AS mismatch: %s has another AS number than %d, which the metadata gives it (peer_as)", p.Address, p.AS)
	case badAS:
		return fmt.Sprintf("AS mismatch: %s knows this server by another AS number than %d (customer_as of the metadata)", p.Address, f.as)
	case f.note.sent:
		return fmt.Sprintf("this server ended the session with %s with the notification %s", p.Address, code)
	}
	return fmt.Sprintf("%s ended the session with the notification %s", p.Address, code)
}

// silenceReason is for a dial that had no answer. TCP MD5 drops without a word,
// so that only counters tell: those of this kernel when the router answers, those
// of the router when it does not.
func silenceReason(p plan.Peer, f facts) string {
	switch {
	case p.Password != "" && f.md5.wrong > 0:
		return fmt.Sprintf("%s signs with another MD5 password: the kernel dropped %d segments (TcpExtTCPMD5Failure)", p.Address, f.md5.wrong)
	case p.Password != "" && f.md5.missing > 0:
		return fmt.Sprintf("%s answers without MD5: no BGP listens there, or it has no MD5 password for %s; the kernel dropped %d segments (TcpExtTCPMD5NotFound)", p.Address, p.Source, f.md5.missing)
	case p.Password == "" && f.md5.unexpected > 0:
		return fmt.Sprintf("%s answers with MD5, and the metadata has no password: the kernel dropped %d segments (TcpExtTCPMD5Unexpected)", p.Address, f.md5.unexpected)
	}
	what := "the router does not know this server, asks for an MD5 password, or packets are lost"
	if p.Password != "" {
		what = "a wrong MD5 password looks like that, as does a router that does not know this server, or where no BGP listens"
	}
	return fmt.Sprintf("no answer from %s port 179 to %s: %s", p.Address, p.Source, what)
}
