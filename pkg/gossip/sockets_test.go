package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRealSockets(t *testing.T) {
	// Two runs at once on one machine have other addresses.
	pid := os.Getpid()
	testSockets(t, netip.MustParseAddr("192.0.2.77"), func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{127, 97 + byte(pid>>8&63), byte(pid), byte(i)})
	})
}

// TestRealSocketsIPv6 runs itself in a network namespace of its own, because lo has
// one IPv6 address.
func TestRealSocketsIPv6(t *testing.T) {
	local := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd66::%d:1", i)) }
	if os.Getenv("MUSTER_GOSSIP_NETNS") != "" {
		testSockets(t, netip.MustParseAddr("2001:db8::77"), local)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace: gossip over IPv6 was left out")
	}
	script := "ip link set lo up"
	for i := range 3 {
		script += fmt.Sprintf("; ip addr add %s dev lo nodad", local(i+1))
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--", "sh", "-ec", script+`; exec "$@"`, "sh", os.Args[0], "-test.run=^TestRealSocketsIPv6$", "-test.v")
	cmd.Env = append(os.Environ(), "MUSTER_GOSSIP_NETNS=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRealSocketsIPv6") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// testSockets has three servers find each other; foreign is no address of this host.
func testSockets(t *testing.T, foreign netip.Addr, local func(i int) netip.Addr) {
	t.Helper()
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
	if _, err := Join(ctx, again); err == nil || !strings.Contains(err.Error(), netip.AddrPortFrom(local(1), 19760).String()+" is in use by another process") {
		t.Errorf("port in use: %v", err)
	}
	again.Address = foreign
	if _, err := Join(ctx, again); err == nil || !strings.Contains(err.Error(), foreign.String()+" is not an address of this server") {
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
