package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// mdnsService is the name that servers ask for and answer to (RFC 6763).
const mdnsService = "_muster._tcp"

// Multicast asks on the link of the private address by mDNS (RFC 6762).
type Multicast struct {
	Self  netip.Addr
	Label string // tells clusters apart on one link
	Inst  string // this instance
	Port  uint16 // of gossip
}

// Name is that of the key.
func (Multicast) Name() string { return "multicast" }

// Pace keeps a thousand servers on one link from filling it.
func (Multicast) Pace() Pace { return Pace{Deadline: 3 * time.Second, Every: 10 * time.Second} }

// listening is how long one question waits for answers.
const listening = time.Second

// Find asks once and listens for a second. The question goes out of one socket at
// the private address, on its link: the library's own asks where the default route
// leads, and fails where there is none.
func (m Multicast) Find(ctx context.Context, found func(netip.Addr)) error {
	link, err := linkOf(m.Self)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.Self, 0)))
	if err != nil {
		return fmt.Errorf("asking by multicast on %s: %w", link.Name, err)
	}
	defer func() { _ = conn.Close() }() // nothing is left to send
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if err := m.question(conn, link); err != nil {
		return fmt.Errorf("asking by multicast on %s: %w", link.Name, err)
	}
	buffer := make([]byte, maxAnswer)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return fmt.Errorf("listening for answers on %s: %w", link.Name, err)
		}
		for _, a := range ofFamily(m.Self, m.read(buffer[:n])) {
			found(a)
		}
	}
}

// maxAnswer is the largest packet of mDNS in bytes (RFC 6762, 17).
const maxAnswer = 9000

func (m Multicast) question(conn *net.UDPConn, link *net.Interface) error {
	to := netip.MustParseAddrPort("224.0.0.251:5353")
	var err error
	if m.Self.Is6() {
		// By number: Go remembers the names of links for a minute.
		to = netip.AddrPortFrom(netip.MustParseAddr("ff02::fb").WithZone(strconv.Itoa(link.Index)), to.Port())
		err = ipv6.NewPacketConn(conn).SetMulticastInterface(link)
	} else {
		err = ipv4.NewPacketConn(conn).SetMulticastInterface(link)
	}
	if err != nil {
		return err
	}
	q := new(dns.Msg)
	q.SetQuestion(mdnsService+".local.", dns.TypePTR)
	q.RecursionDesired = false
	q.Question[0].Qclass |= 1 << 15 // a unicast answer, please (RFC 6762, 5.4)
	packet, err := q.Pack()
	if err != nil {
		return err
	}
	if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Now().Add(listening))
}

// read returns the addresses of an answer of the same cluster. Anybody on the link
// may send anything.
func (m Multicast) read(packet []byte) []netip.Addr {
	var answer dns.Msg
	if answer.Unpack(packet) != nil {
		return nil
	}
	var addrs []netip.Addr
	ours := false
	for _, r := range answer.Answer {
		var ip net.IP
		switch r := r.(type) {
		case *dns.TXT:
			ours = ours || slices.Contains(r.Txt, m.Label)
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a)
		}
	}
	if !ours {
		return nil
	}
	return addrs
}

// Answer answers others until ctx ends.
func (m Multicast) Answer(ctx context.Context) error {
	link, err := linkOf(m.Self)
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0) // it logs whatever else is on the link
	zone, err := mdns.NewMDNSService(m.Inst, mdnsService, "local.", m.Inst+".local.", int(m.Port), []net.IP{m.Self.AsSlice()}, []string{m.Label})
	if err != nil {
		return fmt.Errorf("answering by multicast: %w", err)
	}
	server, err := mdns.NewServer(&mdns.Config{Zone: zone, Iface: link, Logger: quiet})
	if err != nil {
		return fmt.Errorf("listening for multicast on %s, port 5353: %w", link.Name, err)
	}
	<-ctx.Done()
	return server.Shutdown()
}

// linkOf is the interface with an address.
func linkOf(a netip.Addr) (*net.Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("reading the links: %w", err)
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue // it went away
		}
		for _, have := range addrs {
			if p, err := netip.ParsePrefix(have.String()); err == nil && p.Addr() == a {
				if l.Flags&net.FlagMulticast == 0 {
					return nil, fmt.Errorf("the link %s of %s takes no multicast", l.Name, a)
				}
				return &l, nil
			}
		}
	}
	return nil, errors.New("no link has the private address " + a.String())
}
