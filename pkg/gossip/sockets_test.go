package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRealSockets(t *testing.T) {
	// Two runs at once on one machine have other addresses.
	pid := os.Getpid()
	local := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 97 + byte(pid>>8&63), byte(pid), byte(i)}) }
	var log syncBuffer
	config := func(i int) Config {
		return Config{
			Inst: inst(i), HW: hw(i), Address: local(i), Port: 19760, Label: "0123456789abcdef", Key: testKey,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
	}
	var groups []*Group
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for i := range 3 {
		g, err := Join(ctx, config(i+1))
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
		go func() { ended <- g.Run(ctx, func() []netip.Addr { return []netip.Addr{local(1), local(9)} }, nil) }()
	}
	deadline := time.After(20 * time.Second)
	for _, g := range groups {
		for len(g.Peers()) < 3 {
			select {
			case <-g.Changes():
			case <-deadline:
				t.Fatalf("not all found; %s sees %v", g.config.Inst, g.Peers())
			}
		}
	}

	again := config(4)
	again.Address = local(1)
	if _, err := Join(ctx, again); err == nil || !strings.Contains(err.Error(), local(1).String()+":19760 is in use by another process") {
		t.Errorf("port in use: %v", err)
	}
	again.Address = netip.MustParseAddr("192.0.2.77")
	if _, err := Join(ctx, again); err == nil || !strings.Contains(err.Error(), "192.0.2.77 is not an address of this server") {
		t.Errorf("foreign address: %v", err)
	}

	cancel()
	for range groups {
		<-ended
	}
	for _, g := range groups {
		short, stop := context.WithTimeout(t.Context(), time.Second)
		_ = g.Leave(short) // the last one has nobody left to tell
		stop()
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("an ordinary life was logged as trouble:\n%s", log.String())
	}
}

// syncBuffer may be written by goroutines that outlive the read.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
