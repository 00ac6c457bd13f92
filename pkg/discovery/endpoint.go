package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Endpoint finds a control plane of a cluster that has formed: the API server at
// the cluster's endpoint shows a certificate that names its server's private
// address. That proves nothing, and nothing is believed: gossip and the agents'
// certificates decide who is there.
type Endpoint struct {
	Address  string         // host:port
	Self     netip.Addr     // this server's private address
	Internal []netip.Prefix // ranges of Services and pods, which the certificate names too
}

// Name is that of the key.
func (Endpoint) Name() string { return "eip" }

// Pace is patient: a route to the endpoint may come late.
func (Endpoint) Pace() Pace { return Pace{Deadline: 5 * time.Second, Every: 10 * time.Second} }

// Find looks at the certificate once.
func (e Endpoint) Find(ctx context.Context, found func(netip.Addr)) error {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // the certificate is read, and no word is exchanged
	}}
	conn, err := dialer.DialContext(ctx, "tcp", e.Address)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the endpoint %s does not answer: no control plane announces it yet, or no route leads there", e.Address)
		}
		return fmt.Errorf("the endpoint %s: %w", e.Address, err)
	}
	defer conn.Close()
	secure, ok := conn.(*tls.Conn)
	if !ok || len(secure.ConnectionState().PeerCertificates) == 0 {
		return fmt.Errorf("the endpoint %s shows no certificate", e.Address)
	}
	named := e.servers(secure.ConnectionState().PeerCertificates[0].IPAddresses)
	if len(named) == 0 {
		return fmt.Errorf("the certificate at the endpoint %s names no private address of a control plane; is an API server of kubeadm there?", e.Address)
	}
	for _, a := range named {
		found(a)
	}
	return nil
}

// servers are the addresses of a certificate that may be a server's private one.
func (e Endpoint) servers(ips []net.IP) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	host, _, _ := net.SplitHostPort(e.Address)
	return slices.DeleteFunc(ofFamily(e.Self, addrs), func(a netip.Addr) bool {
		return a.String() == strings.Trim(host, "[]") || a.IsLoopback() ||
			slices.ContainsFunc(e.Internal, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}
