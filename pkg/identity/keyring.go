package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Keyring holds the certificate that this server shows and the roots that it
// trusts. Its TLS configurations ask it at every handshake, so Replace takes
// effect without a restart. Live connections stay; whoever revokes cuts them.
type Keyring struct {
	current atomic.Pointer[trust]
}

type trust struct {
	cert  *tls.Certificate
	roots *x509.CertPool
	inst  string
}

// NewKeyring returns a keyring, or an error when the certificate does not come
// from one of the roots.
func NewKeyring(cert tls.Certificate, roots ...*x509.Certificate) (*Keyring, error) {
	k := &Keyring{}
	if err := k.Replace(cert, roots...); err != nil {
		return nil, err
	}
	return k, nil
}

// ParseKeyring is NewKeyring from PEM files: one or more roots, the leaf, its key.
func ParseKeyring(rootsPEM, leafPEM, keyPEM []byte) (*Keyring, error) {
	cert, roots, err := parseTrust(rootsPEM, leafPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return NewKeyring(cert, roots...)
}

// ReplacePEM is Replace from PEM files.
func (k *Keyring) ReplacePEM(rootsPEM, leafPEM, keyPEM []byte) error {
	cert, roots, err := parseTrust(rootsPEM, leafPEM, keyPEM)
	if err != nil {
		return err
	}
	return k.Replace(cert, roots...)
}

// Replace changes the certificate and the roots for all handshakes from now on.
// On an error everything stays as it was.
func (k *Keyring) Replace(cert tls.Certificate, roots ...*x509.Certificate) error {
	if len(cert.Certificate) == 0 || len(roots) == 0 {
		return errors.New("a keyring needs a certificate and at least one root")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	cert.Leaf = leaf
	next := &trust{cert: &cert, roots: x509.NewCertPool()}
	for _, root := range roots {
		next.roots.AddCert(root)
	}
	if next.inst, _, err = namesOf(leaf); err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	if err := next.verify([]*x509.Certificate{leaf}, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	k.current.Store(next)
	return nil
}

// Inst returns the instance that the current certificate names.
func (k *Keyring) Inst() string { return k.current.Load().inst }

// ServerConfig returns a configuration that demands a client certificate of the
// trusted roots. PeerOf tells whose it is.
func (k *Keyring) ServerConfig() *tls.Config {
	config := k.config()
	// Checked by VerifyConnection, against the roots of that moment. ClientCAs is
	// only what clients are told, and what dqlite's proxy takes as the sign that
	// this is the listening side.
	config.ClientAuth = tls.RequireAnyClientCert
	config.ClientCAs = k.current.Load().roots
	config.SessionTicketsDisabled = true // a resumed session would outlive a replaced root
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return k.current.Load().cert, nil
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		return k.verifyPeer(cs, x509.ExtKeyUsageClientAuth, "")
	}
	return config
}

// ClientConfig returns a configuration that accepts the instance expectInst
// only, or any server of the trusted roots when expectInst is empty.
func (k *Keyring) ClientConfig(expectInst string) *tls.Config {
	config := k.config()
	config.ServerName = ServerName
	// Checked by VerifyConnection, against the roots of that moment: RootCAs could
	// not be replaced.
	config.InsecureSkipVerify = true
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return k.current.Load().cert, nil
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		return k.verifyPeer(cs, x509.ExtKeyUsageServerAuth, expectInst)
	}
	return config
}

// DirectoryConfigs returns what go-dqlite's WithTLS wants: its proxy decides by
// ClientCAs which end of TLS it is, so listen has it and dial has not.
func (k *Keyring) DirectoryConfigs() (listen, dial *tls.Config) {
	return k.ServerConfig(), k.ClientConfig("")
}

func (k *Keyring) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       func() time.Time { return checkTime },
	}
}

func (k *Keyring) verifyPeer(cs tls.ConnectionState, usage x509.ExtKeyUsage, expectInst string) error {
	if err := k.current.Load().verify(cs.PeerCertificates, usage); err != nil {
		return err
	}
	inst, _, err := PeerOf(cs)
	if err != nil {
		return err
	}
	if expectInst != "" && inst != expectInst {
		return fmt.Errorf("instance %s answers where %s was expected", inst, expectInst)
	}
	return nil
}

func (t *trust) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("the peer showed no certificate")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:       t.roots,
		CurrentTime: checkTime,
		DNSName:     ServerName,
		KeyUsages:   []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("certificate of %q by %q is not of a CA trusted here: %w", chain[0].Subject.CommonName, chain[0].Issuer.CommonName, err)
	}
	return nil
}

func parseTrust(rootsPEM, leafPEM, keyPEM []byte) (tls.Certificate, []*x509.Certificate, error) {
	cert, err := tls.X509KeyPair(leafPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("own certificate and key: %w", err)
	}
	roots, err := parseRoots(rootsPEM)
	return cert, roots, err
}
