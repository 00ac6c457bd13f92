package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TCP states that hold no connection to destroy (include/net/tcp_states.h).
const (
	tcpTimeWait = 6
	tcpListen   = 10
)

// DestroySockets ends the TCP connections whose local address is a, as
// `ss -K src A` does. A kernel without CONFIG_INET_DIAG_DESTROY answers
// EOPNOTSUPP, one without the tcp_diag module ENOENT. Listeners stay: they may
// be needed when the address comes back.
func (kernelLoopback) DestroySockets(a netip.Addr) (int, error) {
	families := []uint8{unix.AF_INET6}
	if a.Is4() {
		// A dual-stack listener accepts IPv4 connections on IPv6 sockets.
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	n := 0
	var errs []error
	for _, family := range families {
		sockets, err := dump("TCP connections", func() ([]*netlink.Socket, error) { return netlink.SocketDiagTCP(family) })
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, s := range sockets {
			src, ok := netip.AddrFromSlice(s.ID.Source)
			if !ok || src.Unmap() != a || s.State == tcpListen || s.State == tcpTimeWait {
				continue
			}
			switch err := destroySocket(s); {
			case err == nil:
				n++
			case errors.Is(err, unix.ENOENT):
				// It ended by itself since the listing.
			default:
				errs = append(errs, fmt.Errorf("destroy connection %s:%d to %s:%d: %w", src.Unmap(), s.ID.SourcePort, s.ID.Destination, s.ID.DestinationPort, err))
			}
		}
	}
	return n, errors.Join(errs...)
}

func destroySocket(s *netlink.Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(socketRequest{s})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// socketRequest is struct inet_diag_req_v2 (uapi/linux/inet_diag.h) that names
// one socket. The netlink package can only name IPv4 ones.
type socketRequest struct{ s *netlink.Socket }

// Len is the size of inet_diag_req_v2.
func (socketRequest) Len() int { return 56 }

// Serialize writes the request; ports and addresses are in network order.
func (r socketRequest) Serialize() []byte {
	id := r.s.ID
	b := make([]byte, 0, r.Len())
	b = append(b, r.s.Family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // any state
	b = binary.BigEndian.AppendUint16(b, id.SourcePort)
	b = binary.BigEndian.AppendUint16(b, id.DestinationPort)
	for _, ip := range [][]byte{id.Source, id.Destination} {
		var field [16]byte
		if v4 := id.Source.To4(); r.s.Family == unix.AF_INET && v4 != nil {
			a, _ := netip.AddrFromSlice(ip)
			copy(field[:], a.Unmap().AsSlice())
		} else {
			copy(field[:], ip)
		}
		b = append(b, field[:]...)
	}
	b = binary.NativeEndian.AppendUint32(b, id.Interface)
	b = binary.NativeEndian.AppendUint32(b, id.Cookie[0])
	return binary.NativeEndian.AppendUint32(b, id.Cookie[1])
}
