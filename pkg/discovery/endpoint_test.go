package discovery

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// apiServer shows a certificate that names these addresses.
func apiServer(t *testing.T, names ...string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	for _, n := range names {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(n))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestEndpoint(t *testing.T) {
	internal := prefixes("10.96.0.0/16", "fd96::/112")
	find := func(address, self string) ([]netip.Addr, error) {
		var found []netip.Addr
		err := Endpoint{Address: address, Self: at(self), Internal: internal}.Find(t.Context(), func(a netip.Addr) { found = append(found, a) })
		return found, err
	}
	kubeadm := apiServer(t, "10.96.0.1", "10.99.14.9", "127.0.0.1", "fd96::1", "fd00::9")
	if found, err := find(kubeadm, "10.99.14.30"); err != nil || !slices.Equal(found, addrs("10.99.14.9")) {
		t.Errorf("found %v, %v", found, err)
	}
	if found, err := find(kubeadm, "fd00::30"); err != nil || !slices.Equal(found, addrs("fd00::9")) {
		t.Errorf("IPv6: found %v, %v", found, err)
	}
	if _, err := find(apiServer(t, "10.96.0.1"), "10.99.14.30"); err == nil || !strings.Contains(err.Error(), "names no private address of a control plane") {
		t.Errorf("another server: %v", err)
	}
	if _, err := find("127.0.0.1:1", "10.99.14.30"); err == nil || !strings.Contains(err.Error(), "the endpoint 127.0.0.1:1: ") {
		t.Errorf("nobody: %v", err)
	}
}
