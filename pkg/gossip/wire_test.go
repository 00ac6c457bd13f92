package gossip

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is a network in memory: a packet to a node that is down, or whose queue
// is full, is lost, as UDP loses it. A dial to a node that is down hangs until
// its time-out, as one to a server that is powered off does.
type wire struct {
	mu    sync.Mutex
	loss  float64 // share of packets that get lost
	seed  *rand.Rand
	cut   map[netip.Addr]bool // these reach only each other
	nodes map[netip.Addr]*port
}

type port struct {
	wire    *wire
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func newWire(loss float64) *wire {
	return &wire{loss: loss, seed: rand.New(rand.NewPCG(1, 2)), nodes: map[netip.Addr]*port{}}
}

func (w *wire) plug(a netip.Addr) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &port{wire: w, at: netip.AddrPortFrom(a, testPort), packets: make(chan *memberlist.Packet, 64), streams: make(chan net.Conn, 64)}
	w.nodes[a] = p
	return p
}

// isolate cuts the given addresses off from all others; none heals the network.
func (w *wire) isolate(addrs ...netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = map[netip.Addr]bool{}
	for _, a := range addrs {
		w.cut[a] = true
	}
}

func (p *port) peer(to string, lossy bool) *port {
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil
	}
	w := p.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	here, there := p.at.Addr(), at.Addr()
	if w.nodes[here] != p || w.cut[here] != w.cut[there] || (lossy && w.seed.Float64() < w.loss) {
		return nil
	}
	return w.nodes[there]
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.at.Addr().AsSlice(), int(p.at.Port()), nil
}
func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	if q := p.peer(to, true); q != nil {
		select {
		case q.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(p.at), Timestamp: now}:
		default:
		}
	}
	return now, nil
}

func (p *port) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	q := p.peer(to, false)
	if q == nil {
		<-time.After(timeout)
		return nil, errors.New("i/o timeout")
	}
	near, far := net.Pipe()
	select {
	case q.streams <- addressed{far, net.TCPAddrFromAddrPort(p.at)}:
		return near, nil
	default:
		return nil, errors.New("connection refused")
	}
}

func (p *port) Shutdown() error {
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	if p.wire.nodes[p.at.Addr()] == p {
		delete(p.wire.nodes, p.at.Addr())
	}
	return nil
}

// addressed is a pipe that knows who is at the other end.
type addressed struct {
	net.Conn
	from net.Addr
}

func (c addressed) RemoteAddr() net.Addr { return c.from }
