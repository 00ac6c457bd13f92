package gossip

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The roll call of many, in virtual time: make bench-gossip. It takes minutes of two
// cores and is no part of go test.
var (
	scale  = flag.Int("servers", 0, "how many servers call the roll in TestScale; 0 skips it")
	spread = flag.Duration("spread", 0, "how long it takes until all of them are powered on")
)

// scaleBudget is design.md's: 1,000 agents, started together, to a quorum.
const scaleBudget = 20 * time.Second

// meter counts what a server sends.
type meter struct {
	packets, packetBytes, streams, streamBytes atomic.Int64
}

// metered is a port with a meter, and with the latency of a data centre.
type metered struct {
	*port
	meter *meter
}

// latency is 0.2 to 0.6 ms.
func latency() time.Duration { return 200*time.Microsecond + rand.N(400*time.Microsecond) }

func (m metered) WriteTo(b []byte, to string) (time.Time, error) {
	m.meter.packets.Add(1)
	m.meter.packetBytes.Add(int64(len(b)))
	packet := bytes.Clone(b)
	time.AfterFunc(latency(), func() { _, _ = m.port.WriteTo(packet, to) })
	return time.Now(), nil
}

func (m metered) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	time.Sleep(latency() + latency()) // virtual, and both ways
	c, err := m.port.DialTimeout(to, timeout)
	if err != nil {
		return nil, err
	}
	m.meter.streams.Add(1)
	return meteredConn{c, m.meter}, nil
}

// meteredConn counts both directions at the end that dialled.
type meteredConn struct {
	net.Conn
	meter *meter
}

func (c meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.meter.streamBytes.Add(int64(n))
	return n, err
}

func (c meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.meter.streamBytes.Add(int64(n))
	return n, err
}

// inSight is how many servers a group sees.
func (g *Group) inSight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.peers)
}

func TestScale(t *testing.T) {
	if *scale == 0 {
		t.Skip("make bench-gossip runs it")
	}
	synctest.Test(t, func(t *testing.T) {
		n := *scale
		quorum := n - (n-1)/3
		w := newWire(0)
		m := &meter{}
		began := time.Now()
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		var nodes []*node
		for i := range n {
			if *spread > 0 {
				time.Sleep(time.Duration(rand.Int64N(int64(2 * *spread / time.Duration(n)))))
			}
			nodes = append(nodes, start(t, w, i+1, first(3), func(c *Config) {
				c.Flags = Eligible
				c.Switch = SwitchTag(fmt.Sprint(i % 40))
				c.Transport = metered{w.plug(c.Address), m}
			}))
		}
		lastOn := time.Now()
		see := func(want int) (some, all bool) {
			all = true
			for _, x := range nodes {
				if x.inSight() >= want {
					some = true
				} else {
					all = false
				}
			}
			return some, all
		}
		report := func(what string) {
			t.Logf("%d servers, powered on within %v: %s %v after the last; sent by each: %.0f packets, %.0f KB, %.1f exchanges, %.0f KB", n, lastOn.Sub(began).Round(time.Second), what,
				time.Since(lastOn).Round(10*time.Millisecond), float64(m.packets.Load())/float64(n), float64(m.packetBytes.Load())/float64(n)/1e3,
				float64(m.streams.Load())/float64(n), float64(m.streamBytes.Load())/float64(n)/1e3)
		}
		within(t, time.Minute, "one sees a quorum", func() bool { some, _ := see(quorum); return some })
		report("the first sees a quorum")
		within(t, time.Minute, "all see a quorum", func() bool { _, all := see(quorum); return all })
		report("all see a quorum")
		if took := time.Since(lastOn); took > scaleBudget {
			t.Errorf("the roll call took %v, the budget is %v", took, scaleBudget)
		}
		within(t, 3*time.Minute, "all see all", func() bool { _, all := see(n); return all })
		report("all see all")
		runtime.GC()
		var after runtime.MemStats
		runtime.ReadMemStats(&after)
		t.Logf("%d servers: heap %.0f KB each, stacks %.0f KB each", n, float64(after.HeapAlloc-before.HeapAlloc)/float64(n)/1e3, float64(after.StackInuse-before.StackInuse)/float64(n)/1e3)
		packets, bytes, at := m.packets.Load(), m.packetBytes.Load(), time.Now()
		const calm = 30 * time.Second
		time.Sleep(calm)
		over := time.Since(at).Seconds()
		t.Logf("%d servers at rest: %.1f packets/s and %.0f bytes/s each", n, float64(m.packets.Load()-packets)/over/float64(n), float64(m.packetBytes.Load()-bytes)/over/float64(n))
		end(t, nodes...)
	})
}
