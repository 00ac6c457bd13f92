// Package fabric is a switch in user space between network namespaces, with faults
// for each ordered pair of its ports: cut, loss, delay, reordering, duplicates. The
// kernel's own netem is not everywhere.
package fabric

import (
	"container/heap"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Rule is what happens to frames from one port to another. The zero Rule lets them
// pass.
type Rule struct {
	Cut       bool
	Loss      float64 // 0 to 1, for each frame
	Duplicate float64 // likewise
	Delay     time.Duration
	Jitter    time.Duration // added to Delay, evenly from 0; frames overtake each other by it
}

// Counts are frames from one port to another since the switch was made.
type Counts struct{ Passed, Dropped, Doubled int }

type pair struct{ from, to string }

// mac is a hardware address as a key.
type mac [6]byte

// Switch forwards frames between its ports; where an address is it learns from
// the frames that come from there.
type Switch struct {
	netns string

	mu     sync.Mutex
	random *rand.Rand
	ports  map[string]*os.File
	rules  map[pair]Rule
	counts map[pair]*Counts
	where  map[mac]string
	late   delayed
	wake   chan struct{} // what is due first has changed
	closed chan struct{}
}

// New makes a switch whose ports lie in the network namespace of that path. Its
// random choices follow from the seed; their order follows from the traffic.
func New(netns string, seed uint64) *Switch {
	s := &Switch{
		netns: netns, random: rand.New(rand.NewPCG(seed, 0)),
		ports: map[string]*os.File{}, rules: map[pair]Rule{}, counts: map[pair]*Counts{}, where: map[mac]string{},
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	go s.deliverLate()
	return s
}

// Attach makes the link of the switch's namespace a port. A port of that name is
// replaced. It ends by itself when the link goes.
func (s *Switch) Attach(name, link string) error {
	s.Detach(name)
	var file *os.File
	err := In(s.netns, func() (err error) {
		file, err = openLink(link)
		return err
	})
	if err != nil {
		return fmt.Errorf("attaching %s as port %s: %w", link, name, err)
	}
	s.mu.Lock()
	s.ports[name] = file
	s.mu.Unlock()
	go s.read(name, file)
	return nil
}

// openLink opens a packet socket on a link of the current namespace.
func openLink(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// What this switch sends must not come back; and a burst is no loss.
	const burst = 8 << 20
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, burst),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Detach ends a port, if there is one.
func (s *Switch) Detach(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if port := s.ports[name]; port != nil {
		_ = port.Close()
		delete(s.ports, name)
	}
}

// Set makes frames from one port to another follow a rule from now on.
func (s *Switch) Set(from, to string, r Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules[pair{from, to}] = r
}

// Reset lets all frames pass from now on.
func (s *Switch) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.rules)
}

// Counted returns the frames between two ports so far.
func (s *Switch) Counted(from, to string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.count(pair{from, to})
}

func (s *Switch) count(p pair) *Counts {
	c := s.counts[p]
	if c == nil {
		c = &Counts{}
		s.counts[p] = c
	}
	return c
}

// Close ends all ports.
func (s *Switch) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, port := range s.ports {
		_ = port.Close()
		delete(s.ports, name)
	}
	close(s.closed)
}

// read forwards what comes in at a port until it ends.
func (s *Switch) read(name string, port *os.File) {
	frame := make([]byte, 1<<16)
	for {
		n, err := port.Read(frame)
		if errors.Is(err, unix.ENETDOWN) {
			continue // the link is down and may come up
		}
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "fabric: port %s: %v\n", name, err)
			}
			return
		}
		const header = 14 // destination, source, type
		if n >= header {
			s.forward(name, frame[:n])
		}
	}
}

// forward sends a frame to the port of its destination, or to all others.
func (s *Switch) forward(from string, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to, source := mac(frame[0:6]), mac(frame[6:12])
	s.where[source] = from
	if port, known := s.where[to]; known && to[0]&1 == 0 {
		if port != from {
			s.apply(pair{from, port}, frame)
		}
		return
	}
	for port := range s.ports {
		if port != from {
			s.apply(pair{from, port}, frame)
		}
	}
}

// apply lets a frame meet the rule of its pair.
func (s *Switch) apply(p pair, frame []byte) {
	r, c := s.rules[p], s.count(p)
	if r.Cut || s.random.Float64() < r.Loss {
		c.Dropped++
		return
	}
	copies := 1
	if s.random.Float64() < r.Duplicate {
		copies, c.Doubled = 2, c.Doubled+1
	}
	c.Passed++
	for range copies {
		after := r.Delay
		if r.Jitter > 0 {
			after += time.Duration(s.random.Int64N(int64(r.Jitter)))
		}
		if after == 0 {
			s.send(p.to, frame)
			continue
		}
		heap.Push(&s.late, due{time.Now().Add(after), p.to, append([]byte(nil), frame...)})
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// send puts a frame on a link. One that does not take it has lost it.
func (s *Switch) send(port string, frame []byte) {
	if file := s.ports[port]; file != nil {
		_, _ = file.Write(frame)
	}
}
