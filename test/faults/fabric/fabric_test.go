package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lab is two hosts, a and b, on a switch.
type lab struct {
	s    *Switch
	a, b string // namespaces
}

func run(t *testing.T, line string) {
	t.Helper()
	argv := strings.Fields(line)
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func newLab(t *testing.T) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is missing: apt-get install iproute2")
	}
	hub := fmt.Sprintf("fabric-%d", os.Getpid())
	l := lab{a: hub + "-a", b: hub + "-b"}
	for _, ns := range []string{hub, l.a, l.b} {
		run(t, "ip netns add "+ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	l.s = New("/run/netns/"+hub, 1)
	t.Cleanup(l.s.Close)
	for i, ns := range []string{l.a, l.b} {
		port := []string{"a", "b"}[i]
		run(t, fmt.Sprintf("ip link add p-%s netns %s type veth peer name eth0 netns %s", port, hub, ns))
		run(t, fmt.Sprintf("ip -n %s addr add 192.0.2.%d/24 dev eth0", ns, i+1))
		run(t, fmt.Sprintf("ip -n %s link set eth0 up", ns))
		run(t, fmt.Sprintf("ip -n %s link set p-%s up", hub, port))
		if err := Plain("/run/netns/"+ns, "eth0"); err != nil {
			t.Fatal(err)
		}
		if err := l.s.Attach(port, "p-"+port); err != nil {
			t.Fatal(err)
		}
	}
	// The hosts know each other, so that what is counted below is no ARP.
	if err := l.reach(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	return l
}

// reach makes one round trip from a to b: nobody listens at that port, and b says
// so.
func (l lab) reach(patience time.Duration) error {
	return In("/run/netns/"+l.a, func() error {
		c, err := net.DialTimeout("tcp4", "192.0.2.2:9", patience)
		if err == nil {
			return c.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		return err
	})
}

// udp sends count datagrams from a to b, which carry their number, and returns the
// numbers in the order in which they arrived, up to the marker that is sent after
// them without any rule.
func (l lab) udp(t *testing.T, count int, rule Rule) []int {
	t.Helper()
	var server *net.UDPConn
	var client net.Conn
	err := errors.Join(
		In("/run/netns/"+l.b, func() (err error) {
			server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2)})
			if err == nil {
				err = server.SetReadBuffer(4 << 20)
			}
			return err
		}))
	if err == nil {
		err = In("/run/netns/"+l.a, func() (err error) {
			client, err = net.Dial("udp4", server.LocalAddr().String())
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	defer client.Close()
	l.s.Set("a", "b", rule)
	before := l.s.Counted("a", "b")
	for i := range count {
		if _, err := fmt.Fprint(client, i); err != nil {
			t.Fatal(err)
		}
	}
	l.s.met(t, before, count)
	l.s.Set("a", "b", Rule{Delay: rule.Delay + rule.Jitter + 50*time.Millisecond})
	if _, err := fmt.Fprint(client, -1); err != nil {
		t.Fatal(err)
	}
	l.s.met(t, before, count+1)
	l.s.Reset()
	deadline := time.Now().Add(10 * time.Second)
	var got []int
	buffer := make([]byte, 64)
	for {
		if err := server.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, err := server.Read(buffer)
		if err != nil {
			t.Fatalf("the marker did not come: %v", err)
		}
		var i int
		if _, err := fmt.Sscan(string(buffer[:n]), &i); err != nil {
			t.Fatal(err)
		}
		if i < 0 {
			return got
		}
		got = append(got, i)
	}
}

// met waits until count frames from a to b have met their rule.
func (s *Switch) met(t *testing.T, before Counts, count int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		now := s.Counted("a", "b")
		if now.Passed+now.Dropped-before.Passed-before.Dropped >= count {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the switch saw %+v after %+v, expected %d frames more", now, before, count)
		}
	}
}

// inversions counts neighbours in the wrong order.
func inversions(numbers []int) (n int) {
	for i := 1; i < len(numbers); i++ {
		if numbers[i] < numbers[i-1] {
			n++
		}
	}
	return n
}

func TestRules(t *testing.T) {
	l := newLab(t)
	const count = 2000
	t.Run("plain", func(t *testing.T) {
		got := l.udp(t, count, Rule{})
		if len(got) != count || inversions(got) != 0 {
			t.Errorf("%d of %d datagrams, %d out of order; expected all in order", len(got), count, inversions(got))
		}
	})
	t.Run("loss", func(t *testing.T) {
		// 5 standard deviations of a binomial distribution around 20 %: 90 of 2000.
		if got := len(l.udp(t, count, Rule{Loss: 0.2})); got < 1510 || got > 1690 {
			t.Errorf("%d of %d datagrams came through a loss of 20 %%, expected 1600 +- 90", got, count)
		}
	})
	t.Run("duplicates", func(t *testing.T) {
		if got := len(l.udp(t, count, Rule{Duplicate: 0.1})); got < count+133 || got > count+267 {
			t.Errorf("%d datagrams came of %d with 10 %% doubled, expected 2200 +- 67", got, count)
		}
	})
	t.Run("reordering", func(t *testing.T) {
		got := l.udp(t, count, Rule{Jitter: 20 * time.Millisecond})
		if len(got) != count || inversions(got) < count/10 {
			t.Errorf("%d of %d datagrams, %d out of order; expected all, and many out of order", len(got), count, inversions(got))
		}
	})
	t.Run("delay", func(t *testing.T) {
		l.s.Set("a", "b", Rule{Delay: 100 * time.Millisecond})
		defer l.s.Reset()
		start := time.Now()
		if err := l.reach(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 100*time.Millisecond {
			t.Errorf("a round trip over a link of 100 ms took %v", took)
		}
	})
	t.Run("one way", func(t *testing.T) {
		l.s.Set("b", "a", Rule{Cut: true})
		defer l.s.Reset()
		before, back := l.s.Counted("a", "b").Passed, l.s.Counted("b", "a")
		if err := l.reach(time.Second); err == nil {
			t.Error("an answer came through a link that is cut")
		}
		now := l.s.Counted("b", "a")
		if l.s.Counted("a", "b").Passed == before || now.Dropped == back.Dropped || now.Passed != back.Passed {
			t.Errorf("a to b %d then %d, b to a %+v then %+v; expected frames one way and drops the other", before, l.s.Counted("a", "b").Passed, back, now)
		}
	})
	t.Run("stream", func(t *testing.T) { l.stream(t) })
}

// stream sends 4 MB by TCP through loss, reordering and duplicates: checksums must
// be right, and the bytes the same.
func (l lab) stream(t *testing.T) {
	rule := Rule{Loss: 0.01, Jitter: time.Millisecond, Duplicate: 0.01}
	l.s.Set("a", "b", rule)
	l.s.Set("b", "a", rule)
	defer l.s.Reset()
	var listener net.Listener
	var client net.Conn
	err := In("/run/netns/"+l.b, func() (err error) {
		listener, err = net.Listen("tcp4", "192.0.2.2:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan []byte, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		received <- b
	}()
	err = In("/run/netns/"+l.a, func() (err error) {
		client, err = net.Dial("tcp4", listener.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 4<<16)
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case b := <-received:
		if !bytes.Equal(b, sent) {
			t.Errorf("%d bytes came of %d, or others", len(b), len(sent))
		}
	case <-time.After(30 * time.Second):
		t.Error("the stream did not end in 30 s")
	}
}
