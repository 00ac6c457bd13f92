package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// NewKey makes the private key of this instance's leaf, PEM (PKCS #8). It is
// random, never derived, and never leaves the server.
func NewKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return encodeKey(key)
}

// Request returns a certificate request, PEM, for a key of NewKey. It names
// nobody: the authority knows whom it signs for.
func Request(keyPEM []byte) ([]byte, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return encodePEM("CERTIFICATE REQUEST", der), nil
}

// ParseCertificate reads one certificate, PEM.
func ParseCertificate(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM block CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	return cert, nil
}

// parseRoots reads one or more certificates, PEM.
func parseRoots(rootsPEM []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for block, rest := pem.Decode(rootsPEM); block != nil; block, rest = pem.Decode(rest) {
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading root %d: %w", len(roots)+1, err)
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// PeerOf returns the instance and the hardware id that the other side of a
// connection proved to have. It reads the leaf only; the TLS configurations of
// Keyring have checked it.
func PeerOf(cs tls.ConnectionState) (inst, hw string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return "", "", errors.New("the peer showed no certificate")
	}
	return namesOf(cs.PeerCertificates[0])
}

// namesOf reads muster:///<spec id>/<hw>/<inst>.
func namesOf(leaf *x509.Certificate) (inst, hw string, err error) {
	for _, u := range leaf.URIs {
		if u.Scheme != "muster" {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
		if len(parts) != 3 {
			return "", "", fmt.Errorf("certificate names %q; expected muster:///spec-id/hw/inst", u)
		}
		hw, inst = parts[1], parts[2]
		if err := errors.Join(checkID("instance", inst), checkID("hardware id", hw)); err != nil {
			return "", "", fmt.Errorf("certificate names %q: %w", u, err)
		}
		if inst != leaf.Subject.CommonName {
			return "", "", fmt.Errorf("certificate of %q names %q", leaf.Subject.CommonName, u)
		}
		return inst, hw, nil
	}
	return "", "", fmt.Errorf("certificate of %q is none of muster's: it has no muster: URI", leaf.Subject)
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return encodePEM("PRIVATE KEY", der), nil
}

func parseKey(keyPEM []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key is %T; expected Ed25519", parsed)
	}
	return key, nil
}
