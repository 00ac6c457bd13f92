package revocation

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
)

func leaf(t *testing.T, name string) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func peer(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	return cs.PeerCertificates[0].Subject.CommonName, nil
}

// echo serves what it reads, under a configuration, and returns its address.
func echo(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				conn := tls.Server(raw, config) // as go-dqlite's proxy does
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func serverConfig(t *testing.T) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{leaf(t, "server")}, ClientAuth: tls.RequireAnyClientCert}
}

func clientConfig(t *testing.T, name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{leaf(t, name)}, InsecureSkipVerify: true}
}

// speak sends a byte and waits for it to come back.
func speak(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func dial(t *testing.T, address, name string) (*tls.Conn, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, clientConfig(t, name))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, speak(conn)
}

func TestGuardCutsAndRefuses(t *testing.T) {
	l := NewList(peer, "old")
	address := echo(t, l.Guard(serverConfig(t)))
	good, err := dial(t, address, "good")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := dial(t, address, "bad")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, address, "old"); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("revoked before: %v, want a refusal", err)
	}
	began := time.Now()
	if cut := l.Add("bad", "other"); cut != 1 {
		t.Errorf("%d connections cut, want 1", cut)
	}
	if _, err := bad.Read(make([]byte, 1)); err == nil || time.Since(began) > time.Second {
		t.Errorf("the live connection: %v after %s, want its end within a second", err, time.Since(began))
	}
	if _, err := dial(t, address, "bad"); err == nil {
		t.Error("it connects again")
	}
	if err := speak(good); err != nil {
		t.Errorf("the connection of another: %v", err)
	}
	if got := l.Insts(); !slices.Equal(got, []string{"bad", "old", "other"}) {
		t.Errorf("revoked are %v", got)
	}
	if l.Check("good") != nil || l.Check("bad") == nil {
		t.Errorf("Check: good %v, bad %v", l.Check("good"), l.Check("bad"))
	}
}

// Connections that ended do not pile up.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	l := NewList(peer)
	address := echo(t, l.Guard(serverConfig(t)))
	for range 20 {
		conn, err := dial(t, address, "good")
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		// The server answers the end by closing its side.
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("the server did not close")
		}
	}
	if _, err := dial(t, address, "good"); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.live); n > 3 { // the last ones may still be closing
		t.Errorf("%d connections are remembered, 1 is alive", n)
	}
}

// With Track the handshake goes well, so that a server can say why it refuses.
func TestTrackCutsOnly(t *testing.T) {
	l := NewList(peer)
	special := serverConfig(t)
	ready := false
	address := echo(t, l.Track(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !ready {
			return nil, errors.New("not enrolled yet")
		}
		return special, nil
	}}))
	if _, err := dial(t, address, "bad"); err == nil {
		t.Error("the configuration's own refusal is gone")
	}
	ready = true
	conn, err := dial(t, address, "bad")
	if err != nil {
		t.Fatal(err)
	}
	if cut := l.Add("bad"); cut != 1 {
		t.Errorf("%d connections cut, want 1", cut)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the live connection was not cut")
	}
	if _, err := dial(t, address, "bad"); err != nil {
		t.Errorf("another connection: %v, want that it may be told why it is refused", err)
	}
}

// A revoked server is not called, and calls to it are cut.
func TestClient(t *testing.T) {
	l := NewList(peer)
	address := echo(t, serverConfig(t))
	call := func() (net.Conn, error) {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = raw.Close() })
		conn := tls.Client(raw, l.Client(clientConfig(t, "client"), raw))
		return conn, speak(conn)
	}
	conn, err := call()
	if err != nil {
		t.Fatal(err)
	}
	if cut := l.Add("server"); cut != 1 {
		t.Errorf("%d connections cut, want 1", cut)
	}
	if err := speak(conn); err == nil {
		t.Error("the call goes on")
	}
	if _, err := call(); err == nil || !strings.Contains(err.Error(), "instance server was removed") {
		t.Errorf("another call: %v, want the sentence", err)
	}
}

func TestFile(t *testing.T) {
	list := []member.Revoked{
		{Inst: "a", HW: "b", Name: "cp1", Address: netip.MustParseAddr("10.0.0.1"), First: true, Epoch: 2}, {Inst: "c", Address: netip.MustParseAddr("fd00::1")},
	}
	data, err := Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if diff := cmp.Diff(list, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("Parse: %v, (-want +got):\n%s", err, diff)
	}
	if got := Insts(list); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("Insts = %v", got)
	}
	for name, text := range map[string]string{
		"nothing":         ``,
		"half":            string(data[:len(data)-3]),
		"twice":           string(data) + string(data),
		"another version": `{"version":2,"revoked":[]}`,
		"a field":         `{"version":1,"revoked":[{"inst":"a","until":1}]}`,
		"nobody":          `{"version":1,"revoked":[{}]}`,
	} {
		if got, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	if data, err := Marshal(nil); err != nil || string(data) != "{\"version\":1,\"revoked\":[]}\n" {
		t.Errorf("an empty list: %s, %v", data, err)
	}
}
