package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

const (
	askTime = 3 * time.Second // for one try, from the dial to the router's word
	// askPause lies between tries: a router that has refused a session takes no other
	// connection for a time, BIRD for a minute. askTries go beyond that.
	askPause = 2 * time.Second
	askTries = 35
	// askRest keeps what is known, or that it is not, before it is asked again.
	askRest = 10 * time.Minute
)

// errTaken says that the router refuses nothing now.
var errTaken = errors.New("the router takes the session")

// askWhy finds out what a router says to our OPEN message, since GoBGP drops the code of
// a notification that comes before the session is up. It ends when the session is no
// longer refused; else it rests.
func (s *speaker) askWhy(ctx context.Context, peer plan.Peer, p plan.Announcement) {
	for range askTries {
		note, err := ask(ctx, peer, p.AS, p.RouterID)
		if err == nil {
			s.dials.told(peer.Address, note)
			break
		}
		pause(ctx, askPause)
		if ctx.Err() != nil || !s.dials.failure(peer.Address).note.untold {
			return
		}
	}
	pause(ctx, askRest)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// asker returns what starts askWhy for a peer, once at a time.
func (s *speaker) asker(ctx context.Context, p plan.Announcement) func(peer string) {
	var mu sync.Mutex
	asking := map[string]bool{}
	return func(address string) {
		i := slices.IndexFunc(p.Peers, func(peer plan.Peer) bool { return peer.Address.String() == address })
		mu.Lock()
		defer mu.Unlock()
		if i < 0 || asking[address] {
			return
		}
		asking[address] = true
		go func() {
			s.askWhy(ctx, p.Peers[i], p)
			mu.Lock()
			defer mu.Unlock()
			delete(asking, address)
		}()
	}
}

// ask begins a session with a router in the place of GoBGP, and returns the
// notification that the router ends it with.
func ask(ctx context.Context, peer plan.Peer, as uint32, id netip.Addr) (notification, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	dialer := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(peer.Source, 0)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			return errors.Join(raw.Control(func(fd uintptr) { err = dialAs(int(fd), peer, as) }), err)
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(peer.Address, bgp.BGP_PORT).String())
	if err != nil {
		return notification{}, fmt.Errorf("ask %s why it refuses the session: %w", peer.Address, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	note, err := converse(conn, peer, as, id)
	if err != nil {
		return notification{}, fmt.Errorf("ask %s why it refuses the session: %w", peer.Address, err)
	}
	return note, nil
}

// dialAs gives a socket what GoBGP gives its own: the password, and the TTL of a router
// of another AS.
func dialAs(fd int, peer plan.Peer, as uint32) error {
	level, hops := unix.IPPROTO_IP, unix.IP_TTL
	var sig unix.TCPMD5Sig
	sig.Addr.Family = unix.AF_INET
	address := sig.Addr.Data[2:] // after the port (struct sockaddr_in)
	if peer.Address.Is6() {
		level, hops = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
		sig.Addr.Family = unix.AF_INET6
		address = sig.Addr.Data[6:] // after the flow label too (struct sockaddr_in6)
	}
	copy(address, peer.Address.AsSlice())
	if peer.AS != as {
		ttl := 1
		if peer.Multihop {
			ttl = multihopTTL
		}
		if err := unix.SetsockoptInt(fd, level, hops, ttl); err != nil {
			return fmt.Errorf("set the TTL: %w", err)
		}
	}
	if peer.Password == "" {
		return nil
	}
	sig.Keylen = uint16(copy(sig.Key[:], peer.Password.Reveal()))
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("set the MD5 password: %w", err)
	}
	return nil
}

// converse sends an OPEN message and reads until the router refuses it or takes it.
func converse(conn io.ReadWriter, peer plan.Peer, as uint32, id netip.Addr) (notification, error) {
	short := uint16(bgp.AS_TRANS)
	if as <= 1<<16-1 {
		short = uint16(as)
	}
	family := bgp.RF_IPv4_UC
	if peer.Address.Is6() {
		family = bgp.RF_IPv6_UC
	}
	open, err := bgp.NewBGPOpenMessage(short, holdTime, id, []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{bgp.NewCapMultiProtocol(family), bgp.NewCapFourOctetASNumber(as)}),
	})
	if err == nil {
		err = say(conn, open)
	}
	if err != nil {
		return notification{}, err
	}
	for {
		m, err := hear(conn)
		if err != nil {
			return notification{}, err
		}
		switch body := m.Body.(type) {
		case *bgp.BGPNotification:
			return notification{code: body.ErrorCode, subcode: body.ErrorSubcode}, nil
		case *bgp.BGPOpen: // its own, said before it read ours
		default:
			return notification{}, errors.Join(errTaken, say(conn, bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_CONNECTION_REJECTED, nil)))
		}
	}
}

func say(w io.Writer, m *bgp.BGPMessage) error {
	b, err := m.Serialize()
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func hear(r io.Reader) (*bgp.BGPMessage, error) {
	b := make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH)
	if _, err := io.ReadFull(r, b[:bgp.BGP_HEADER_LENGTH]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(b[16:])) // after the marker (RFC 4271, 4.1)
	if length < bgp.BGP_HEADER_LENGTH || length > len(b) {
		return nil, fmt.Errorf("a message of %d bytes, expected %d to %d", length, bgp.BGP_HEADER_LENGTH, len(b))
	}
	if _, err := io.ReadFull(r, b[bgp.BGP_HEADER_LENGTH:length]); err != nil {
		return nil, err
	}
	return bgp.ParseBGPMessage(b[:length])
}
