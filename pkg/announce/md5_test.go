package announce

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMD5Counters: the kernel counts as the sentences of silenceReason say. A dial
// is under way; a router that is made by hand answers it without a signature, with
// a wrong one, and with one that nobody asked for.
func TestMD5Counters(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		t.Skip("the kernel's counters are tested as root only, in a network namespace")
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	here, router := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9")
	// With a third password nothing is let in and nothing refused.
	silent := socket(t, netip.AddrPortFrom(router, 179))
	defer func() { must(t, unix.Close(silent)) }()
	setPassword(t, silent, here, "another")
	must(t, unix.Listen(silent, 1))
	for i, tc := range []struct {
		name             string
		password, signed bool
		want             md5Counters
	}{
		{"unsigned, and a password is set", true, false, md5Counters{missing: 1}},
		{"signed with another password", true, true, md5Counters{wrong: 1}},
		{"signed, and none is set", false, true, md5Counters{unexpected: 1}},
		{"unsigned, and none is set", false, false, md5Counters{}},
	} {
		port := uint16(40000 + i)
		end := dial(t, netip.AddrPortFrom(here, port), router, tc.password)
		before, err := readMD5Counters()
		must(t, err)
		reply(t, netip.AddrPortFrom(router, 179), netip.AddrPortFrom(here, port), tc.signed)
		after, err := readMD5Counters()
		must(t, err)
		end()
		if got := after.since(before); got != tc.want {
			t.Errorf("%s: the kernel counted %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// dial begins a connection to port 179 of the router and leaves it under way until
// the returned function ends it.
func dial(t *testing.T, from netip.AddrPort, router netip.Addr, password bool) (end func()) {
	t.Helper()
	fd := socket(t, from)
	if password {
		setPassword(t, fd, router, "s3cret")
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: router.As4(), Port: 179}); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("connect: %v, want it under way", err)
	}
	return func() { must(t, unix.Close(fd)) }
}

func socket(t *testing.T, local netip.AddrPort) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: local.Addr().As4(), Port: int(local.Port())}))
	return fd
}

func setPassword(t *testing.T, fd int, peer netip.Addr, password string) {
	t.Helper()
	var s unix.TCPMD5Sig
	s.Addr.Family = unix.AF_INET
	copy(s.Addr.Data[2:], peer.AsSlice()) // a sockaddr without its family
	s.Keylen = uint16(copy(s.Key[:], password))
	must(t, unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &s))
}

// reply sends a segment with RST, with an MD5 option or none. The kernel looks at
// the signature before all else, so that sequence numbers do not matter.
func reply(t *testing.T, from, to netip.AddrPort, signed bool) {
	t.Helper()
	segment := make([]byte, 20, 40)
	binary.BigEndian.PutUint16(segment[0:], from.Port())
	binary.BigEndian.PutUint16(segment[2:], to.Port())
	segment[13] = 4 // RST
	if signed {
		segment = append(segment, 19, 18) // kind and length (RFC 2385)
		segment = append(segment, make([]byte, 16)...)
		segment = append(segment, 1, 1) // no-operations up to a full word
	}
	segment[12] = byte(len(segment)/4) << 4
	binary.BigEndian.PutUint16(segment[16:], checksum(from.Addr(), to.Addr(), segment))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	must(t, err)
	defer func() { must(t, unix.Close(fd)) }()
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Addr().As4()}))
	must(t, unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}))
}

// checksum is TCP's, over the pseudo header and the segment.
func checksum(from, to netip.Addr, segment []byte) uint16 {
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	var sum uint32
	for all := append(pseudo, segment...); len(all) > 0; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
