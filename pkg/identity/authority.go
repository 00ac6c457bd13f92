package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
)

// Authority is a certificate authority with an Ed25519 key. Its subject carries
// the spec id, which its leaves repeat.
type Authority struct {
	specID string
	cert   *x509.Certificate
	key    ed25519.PrivateKey
}

// Subject is whom a leaf names. The authority takes it from what it knows of
// the asking server, never from the request.
type Subject struct {
	Inst string // 32 hex digits
	HW   string // 32 hex digits
	Name string // node name; for people who look at the certificate
	IPs  []netip.Addr
}

// EnrolmentAuthority returns the CA that the secret gives: the same bytes on
// every server, so that none has to be the first.
func EnrolmentAuthority(keys Keys) (*Authority, error) {
	if len(keys.seed) != ed25519.SeedSize {
		return nil, errors.New("no keys; Derive makes them")
	}
	return newAuthority("muster enrolment CA", keys.specID, ed25519.NewKeyFromSeed(keys.seed))
}

// NewAuthority returns a random agent CA for the cluster with this spec id.
func NewAuthority(specID string) (*Authority, error) {
	if specID == "" {
		return nil, errors.New("agent CA without a spec id")
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the agent CA: %w", err)
	}
	return newAuthority("muster agent CA", specID, key)
}

func newAuthority(name, specID string, key ed25519.PrivateKey) (*Authority, error) {
	public := key.Public()
	id, err := spkiHash(public)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1), // fixed, as the dates are: the certificate must not differ between servers
		Subject:               pkix.Name{CommonName: name, SerialNumber: specID},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, fmt.Errorf("making the %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the %s: %w", name, err)
	}
	return &Authority{specID: specID, cert: cert, key: key}, nil
}

// ParseAuthority reads back what CertPEM and KeyPEM wrote.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("agent CA: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("agent CA: %w", err)
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("agent CA: certificate and key do not belong together")
	}
	if !cert.IsCA || cert.Subject.SerialNumber == "" {
		return nil, fmt.Errorf("%q is no CA of muster", cert.Subject)
	}
	return &Authority{specID: cert.Subject.SerialNumber, cert: cert, key: key}, nil
}

// Certificate returns the CA's certificate, a root for Keyring.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// CertPEM returns the certificate for a file.
func (a *Authority) CertPEM() []byte { return encodePEM("CERTIFICATE", a.cert.Raw) }

// KeyPEM returns the private key (PKCS #8) for a file that is 0600, or sealed.
func (a *Authority) KeyPEM() ([]byte, error) { return encodeKey(a.key) }

// Hash returns the pin of the CA: sha256: and the hex digits of SHA-256 over its
// public key, in the form of kubeadm's discovery-token-ca-cert-hash.
func (a *Authority) Hash() string { return Hash(a.cert) }

// Hash returns the pin of any CA certificate, as Authority.Hash does.
func Hash(cert *x509.Certificate) string {
	return hashOf(cert.RawSubjectPublicKeyInfo)
}

func hashOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// RequestKey returns the hash of the public key of a certificate request (PEM or
// DER), in the form of Hash, and only when the request is signed with that key.
func RequestKey(csr []byte) (string, error) {
	request, err := parseRequest(csr)
	if err != nil {
		return "", fmt.Errorf("certificate request: %w", err)
	}
	return hashOf(request.RawSubjectPublicKeyInfo), nil
}

// parseRequest decodes a request that is signed with its own Ed25519 key.
func parseRequest(csr []byte) (*x509.CertificateRequest, error) {
	if block, _ := pem.Decode(csr); block != nil {
		csr = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("it cannot be decoded: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("it is not signed with its own key: %w", err)
	}
	if _, ok := request.PublicKey.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("it is for a %s key; expected Ed25519", request.PublicKeyAlgorithm)
	}
	return request, nil
}

// Sign returns the leaf, PEM, for a certificate request (PEM or DER). From the
// request it takes the public key alone, and only when the request is signed
// with it.
func (a *Authority) Sign(csr []byte, s Subject) ([]byte, error) {
	request, err := parseRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request of %s: %w", s.Inst, err)
	}
	return a.sign(request.PublicKey.(ed25519.PublicKey), s)
}

// Issue makes a fresh key and its leaf in one go: for the enrolment CA, whose
// key every server holds.
func (a *Authority) Issue(s Subject) (tls.Certificate, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key: %w", err)
	}
	leaf, err := a.sign(key.Public().(ed25519.PublicKey), s)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(leaf, keyPEM)
}

func (a *Authority) sign(public ed25519.PublicKey, s Subject) ([]byte, error) {
	if err := errors.Join(checkID("instance", s.Inst), checkID("hardware id", s.HW)); err != nil {
		return nil, fmt.Errorf("signing a leaf: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("signing a leaf: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{CommonName: s.Inst},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              []string{ServerName},
		URIs:                  []*url.URL{{Scheme: "muster", Path: "/" + a.specID + "/" + s.HW + "/" + s.Inst}},
	}
	if s.Name != "" {
		template.Subject.OrganizationalUnit = []string{s.Name}
	}
	for _, ip := range s.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the leaf of %s: %w", s.Inst, err)
	}
	return encodePEM("CERTIFICATE", der), nil
}

func spkiHash(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}
