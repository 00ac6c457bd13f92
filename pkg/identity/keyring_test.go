package identity

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// handshake runs TLS between two configurations over a pipe and returns who the
// server saw, and the errors of both ends.
func handshake(t *testing.T, server, client *tls.Config) (inst string, serverErr, clientErr error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer near.Close()
		conn := tls.Server(near, server)
		if serverErr = conn.Handshake(); serverErr != nil {
			return
		}
		inst, _, serverErr = PeerOf(conn.ConnectionState())
		_, err := conn.Write([]byte("x"))
		serverErr = errors.Join(serverErr, err)
	}()
	conn := tls.Client(far, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		// With TLS 1.3 a refused client certificate shows at the first read.
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	far.Close()
	<-done
	return inst, serverErr, clientErr
}

func keyring(t *testing.T, a *Authority) (*Keyring, string) {
	t.Helper()
	s := subject()
	cert, err := a.Issue(s)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeyring(cert, a.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return k, s.Inst
}

func TestHandshake(t *testing.T) {
	a := enrolment(t)
	foreign, err := NewAuthority(testSpec)
	if err != nil {
		t.Fatal(err)
	}
	server, serverInst := keyring(t, a)
	client, clientInst := keyring(t, a)
	stranger, _ := keyring(t, foreign)
	if server.Inst() != serverInst {
		t.Errorf("Inst = %s; want %s", server.Inst(), serverInst)
	}

	nameless := client.ClientConfig("")
	nameless.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	old := client.ClientConfig("")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	listen, dial := server.DirectoryConfigs()
	if listen.ClientCAs == nil || dial.ClientCAs != nil {
		t.Error("dqlite's proxy tells the ends of TLS apart by ClientCAs: set on listen, nil on dial")
	}

	tests := []struct {
		name                 string
		server, client       *tls.Config
		serverErr, clientErr string
	}{
		{name: "any peer", server: server.ServerConfig(), client: client.ClientConfig("")},
		{name: "the expected peer", server: server.ServerConfig(), client: client.ClientConfig(serverInst)},
		{name: "directory", server: listen, client: client.ClientConfig("")},
		{name: "directory dialing", server: client.ServerConfig(), client: dial},
		{name: "another peer", server: server.ServerConfig(), client: client.ClientConfig(clientInst), clientErr: "instance " + serverInst + " answers where " + clientInst + " was expected"},
		{name: "client of another CA", server: server.ServerConfig(), client: stranger.ClientConfig(""), clientErr: "is not of a CA trusted here"},
		{name: "server of another CA", server: stranger.ServerConfig(), client: client.ClientConfig(""), clientErr: "is not of a CA trusted here"},
		{name: "client without certificate", server: server.ServerConfig(), client: nameless, serverErr: "client didn't provide a certificate"},
		{name: "TLS 1.2", server: server.ServerConfig(), client: old, serverErr: "unsupported versions"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inst, serverErr, clientErr := handshake(t, tt.server, tt.client)
			if tt.serverErr == "" && tt.clientErr == "" {
				if serverErr != nil || clientErr != nil || (inst != clientInst && inst != serverInst) {
					t.Errorf("server saw %q, errors %v, %v", inst, serverErr, clientErr)
				}
				return
			}
			if serverErr == nil || clientErr == nil {
				t.Fatalf("errors %v, %v; want both ends to fail", serverErr, clientErr)
			}
			if !strings.Contains(serverErr.Error(), tt.serverErr) || !strings.Contains(clientErr.Error(), tt.clientErr) {
				t.Errorf("errors %v, %v; want %q, %q", serverErr, clientErr, tt.serverErr, tt.clientErr)
			}
		})
	}
}

// A client of the right CA whose certificate the server no longer trusts must be
// refused even though it accepts the server.
func TestClientOfAnotherCA(t *testing.T) {
	old, fresh := enrolment(t), mustAuthority(t)
	server, _ := keyring(t, fresh)
	cert, err := old.Issue(subject())
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewKeyring(cert, old.Certificate(), fresh.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	_, serverErr, clientErr := handshake(t, server.ServerConfig(), client.ClientConfig(""))
	if serverErr == nil || clientErr == nil || !strings.Contains(serverErr.Error(), "is not of a CA trusted here") {
		t.Errorf("errors %v, %v", serverErr, clientErr)
	}
}

// Replace takes effect on configurations that are in use.
func TestReplace(t *testing.T) {
	a, b := enrolment(t), mustAuthority(t)
	server, _ := keyring(t, a)
	client, _ := keyring(t, a)
	serverConfig, clientConfig := server.ServerConfig(), client.ClientConfig("")
	expect := func(step string, want bool) {
		t.Helper()
		_, serverErr, clientErr := handshake(t, serverConfig, clientConfig)
		if ok := serverErr == nil && clientErr == nil; ok != want {
			t.Fatalf("%s: handshake ok = %v, errors %v, %v", step, ok, serverErr, clientErr)
		}
	}
	replace := func(k *Keyring, with *Authority) {
		t.Helper()
		cert, err := with.Issue(subject())
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Replace(cert, with.Certificate()); err != nil {
			t.Fatal(err)
		}
	}
	expect("before", true)
	replace(server, b)
	expect("only the server has changed", false)
	replace(client, b)
	expect("both have changed", true)

	cert, err := a.Issue(subject())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Replace(cert, b.Certificate()); err == nil || !strings.Contains(err.Error(), "own certificate") {
		t.Errorf("a certificate of a CA that is no root: %v", err)
	}
	if err := server.Replace(cert); err == nil {
		t.Error("a keyring without roots")
	}
	expect("after refused replacements", true)
}

func TestParseKeyring(t *testing.T) {
	a := mustAuthority(t)
	keyPEM, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := Request(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := subject()
	leafPEM, err := a.Sign(csr, s)
	if err != nil {
		t.Fatal(err)
	}
	roots := append(enrolment(t).CertPEM(), a.CertPEM()...)
	k, err := ParseKeyring(roots, leafPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if k.Inst() != s.Inst {
		t.Errorf("Inst = %s; want %s", k.Inst(), s.Inst)
	}
	if err := k.ReplacePEM(enrolment(t).CertPEM(), leafPEM, keyPEM); err == nil {
		t.Error("replaced by a leaf of another CA")
	}
	otherKey, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][3][]byte{
		"no roots":    {nil, leafPEM, keyPEM},
		"foreign key": {roots, leafPEM, otherKey},
		"no leaf":     {roots, nil, keyPEM},
		"a CA's leaf": {roots, a.CertPEM(), keyPEM},
	} {
		if _, err := ParseKeyring(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func mustAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(testSpec)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
