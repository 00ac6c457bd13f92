package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace is set in the environment of the copy of this test binary that runs
// in a network namespace of its own, which is the server's.
const inNamespace = "MUSTER_FIREWALL_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
}

func needNamespace(t *testing.T) {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("the real nft is tested as root only, in network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed: test/need.sh test installs nftables")
	}
}

// namespace is another network namespace; the zero value is the server's own.
type namespace struct{ fd int }

// do runs f in the namespace: on a thread of its own, which ends with it.
func (n namespace) do(f func()) {
	if n.fd == 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

// newNamespace makes one that ends with the test.
func newNamespace(t *testing.T) namespace {
	t.Helper()
	var fd int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return namespace{fd}
}

// ip runs lines of ip(8).
func (n namespace) ip(t *testing.T, lines ...string) {
	t.Helper()
	n.run(t, strings.Join(lines, "\n"), "ip", "-batch", "-")
}

func (n namespace) run(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	var out []byte
	var err error
	n.do(func() {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// echo serves tcp and udp on a port of all addresses: what comes goes back.
func (n namespace) echo(t *testing.T, port int) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	var err, errUDP error
	n.do(func() {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		p, errUDP = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	})
	if err != nil || errUDP != nil {
		t.Fatal(err, errUDP)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 1)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(b, from) // the other end sees what is missing
		}
	}()
}

// dial connects from an address of the namespace and has one byte come back.
func (n namespace) dial(network string, from netip.Addr, to netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: limit}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	n.do(func() { c, err = d.Dial(network, to.String()) })
	if err != nil {
		return nil, err
	}
	if err := talk(c, limit); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func talk(c net.Conn, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// ping sends an echo request and waits for the reply.
func (n namespace) ping(from, to netip.Addr) (err error) {
	network, request, reply := "ip4:icmp", byte(8), byte(0) // RFC 792
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129 // RFC 4443; the kernel sets the checksum
	}
	var c net.Conn
	n.do(func() { c, err = (&net.Dialer{LocalAddr: &net.IPAddr{IP: from.AsSlice()}}).Dial(network, to.String()) })
	if err != nil {
		return err
	}
	defer c.Close()
	message := []byte{request, 0, 0, 0, 0, 7, 0, 1} // identifier 7, sequence number 1
	if to.Is4() {
		sum := ^(uint16(request)<<8 + 7 + 1)
		message[2], message[3] = byte(sum>>8), byte(sum)
	}
	if err := c.SetDeadline(time.Now().Add(open)); err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	b := make([]byte, 1500)
	for {
		// Unlike Read, this leaves the IPv4 header out.
		if _, _, err := c.(*net.IPConn).ReadFrom(b); err != nil {
			return err
		}
		if b[0] == reply { // other ICMPv6 comes too, neighbours for example
			return nil
		}
	}
}
