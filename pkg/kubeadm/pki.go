package kubeadm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/plan"
)

// WriteFile writes a file so that after a power cut either the old or the new
// content is there. It makes no directories.
type WriteFile func(path string, data []byte, perm fs.FileMode) error

// The eight files that control planes share, as kubeadm names them below
// /etc/kubernetes/pki.
const (
	caCert       = "ca.crt"
	caKey        = "ca.key"
	etcdCert     = "etcd/ca.crt"
	etcdKey      = "etcd/ca.key"
	frontCert    = "front-proxy-ca.crt"
	frontKey     = "front-proxy-ca.key"
	accountKey   = "sa.key"
	accountPub   = "sa.pub"
	sharedNumber = 8
)

// pairs are the three authorities: certificate, key and the name that kubeadm
// gives them.
var pairs = []struct{ cert, key, name string }{
	{caCert, caKey, "kubernetes"},
	{etcdCert, etcdKey, "etcd-ca"},
	{frontCert, frontKey, "front-proxy-ca"},
}

// Validity of the authorities. The beginning is fixed, before any release of
// muster: authorities are made before the clock is known to be right, and
// kubeadm gives every certificate the beginning of its authority. 10 years is
// kubeadm's own.
var notBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const authorityLife = 10 * 365 * 24 * time.Hour

// Authorities are the cluster's certificate authorities and the key that signs
// service accounts' tokens. They print as the hash of the cluster CA only.
type Authorities struct {
	files map[string][]byte // PEM by the eight names
	hash  string
}

// String names the authorities by the hash of the cluster CA.
func (a Authorities) String() string { return "authorities " + a.hash }

// GoString hides the keys from %#v.
func (a Authorities) GoString() string { return a.String() }

// CAHash is the SHA-256 of the cluster CA's public key (SubjectPublicKeyInfo) as
// kubeadm writes it: "sha256:" and 64 hex digits.
func (a Authorities) CAHash() string { return a.hash }

// CA is the certificate of the cluster CA as PEM.
func (a Authorities) CA() []byte { return bytes.Clone(a.files[caCert]) }

// EnsureAuthorities returns the authorities in dir, and makes them first when
// there are none. They appear all at once: made in a directory beside it, which
// is renamed when it is complete, so what a power cut leaves unfinished is never
// taken for authorities (an empty ca.key would make kubeadm silently go on
// without one). Once made they are never replaced, unless
// their hash is void.
func EnsureAuthorities(dir string, write WriteFile, now time.Time, void ...string) (Authorities, error) {
	a, err := ReadAuthorities(dir)
	if err == nil && !slices.Contains(void, a.hash) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if a, err = newAuthorities(now); err != nil {
		return Authorities{}, fmt.Errorf("making the cluster's certificate authorities: %w", err)
	}
	if err := publish(a, dir, write); err != nil {
		return Authorities{}, fmt.Errorf("storing the cluster's certificate authorities in %s: %w", dir, err)
	}
	return ReadAuthorities(dir)
}

// Adopt stores authorities that came from another control plane in dir, after
// checking that they are the ones that the decree pins. A set that this server
// made for a leadership that went to another one is replaced.
func Adopt(a Authorities, pinned, dir string, write WriteFile) error {
	if a.hash != pinned {
		return fmt.Errorf("the certificate authorities received are %s, the decree pins %s: they are not used; ask which server sent them (journalctl -u muster there)", a.hash, pinned)
	}
	if have, err := ReadAuthorities(dir); err == nil && have.hash == a.hash {
		return nil
	}
	if err := publish(a, dir, write); err != nil {
		return fmt.Errorf("storing the cluster's certificate authorities in %s: %w", dir, err)
	}
	return nil
}

// ReadAuthorities reads a complete set; fs.ErrNotExist when dir is not there.
func ReadAuthorities(dir string) (Authorities, error) {
	if _, err := os.Stat(dir); err != nil {
		return Authorities{}, fmt.Errorf("reading the cluster's certificate authorities: %w", err)
	}
	files := map[string][]byte{}
	for _, name := range sharedNames() {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			// Not wrapped: a hole in the set is no absence of it.
			return Authorities{}, fmt.Errorf("reading the cluster's certificate authorities: %v; the set in %s is damaged, restore it from another control plane", err, dir) //nolint:errorlint // see above
		}
		files[name] = data
	}
	a, err := assemble(files)
	if err != nil {
		return Authorities{}, fmt.Errorf("the certificate authorities in %s: %w", dir, err)
	}
	return a, nil
}

func publish(a Authorities, dir string, write WriteFile) error {
	next, old := dir+".new", dir+".old"
	for _, d := range []string{next, old} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(next, "etcd"), 0o700); err != nil {
		return err
	}
	for _, name := range sharedNames() {
		if err := write(filepath.Join(next, name), a.files[name], 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(next, dir); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lay puts the eight files where kubeadm looks for them. It changes nothing when
// they are there, mends a key that is damaged beside its right certificate, and
// refuses when another authority is in place: certificates of that one are in
// use here.
func Lay(a Authorities, dir string, write WriteFile) (changed bool, err error) {
	for _, p := range pairs {
		have, err := os.ReadFile(filepath.Join(dir, p.cert))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("looking for an authority in place: %w", err)
		}
		if !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(a.files[p.cert])) {
			return false, fmt.Errorf("%s is another authority (%s) than this cluster's (%s): this server was part of another cluster; reinstall it",
				filepath.Join(dir, p.cert), hashOf(have), hashOf(a.files[p.cert]))
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "etcd"), 0o755); err != nil {
		return false, fmt.Errorf("laying the certificate authorities: %w", err)
	}
	for _, name := range sharedNames() {
		path := filepath.Join(dir, name)
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, a.files[name]) {
			continue
		}
		if err := write(path, a.files[name], 0o600); err != nil {
			return changed, fmt.Errorf("laying the certificate authorities: %w", err)
		}
		changed = true
	}
	return changed, nil
}

// hashOf is for sentences: what cannot be read is said to be so.
func hashOf(certPEM []byte) string {
	h, err := plan.CAHash(certPEM)
	if err != nil {
		return "unreadable"
	}
	return h
}

func sharedNames() []string {
	names := []string{accountKey, accountPub}
	for _, p := range pairs {
		names = append(names, p.cert, p.key)
	}
	slices.Sort(names)
	return names
}

func newAuthorities(now time.Time) (Authorities, error) {
	files := map[string][]byte{}
	if now.Before(notBefore) {
		now = notBefore // a clock that was never set
	}
	for _, p := range pairs {
		key, keyPEM, err := newKey()
		if err != nil {
			return Authorities{}, err
		}
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return Authorities{}, err
		}
		// The fields are those of kubeadm's own authorities (NewSelfSignedCACert of
		// client-go's cert package).
		template := &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: p.name}, DNSNames: []string{p.name},
			NotBefore: notBefore, NotAfter: now.Add(authorityLife).UTC(),
			KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			BasicConstraintsValid: true, IsCA: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return Authorities{}, err
		}
		files[p.cert] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		files[p.key] = keyPEM
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return Authorities{}, err
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return Authorities{}, err
	}
	files[accountKey] = keyPEM
	files[accountPub] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
	return assemble(files)
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// assemble checks that the eight files are there, can be read and belong
// together.
func assemble(files map[string][]byte) (Authorities, error) {
	if got, want := slices.Sorted(maps.Keys(files)), sharedNames(); !slices.Equal(got, want) {
		return Authorities{}, fmt.Errorf("expected the %d files %s, got %s", sharedNumber, strings.Join(want, " "), strings.Join(got, " "))
	}
	for _, p := range pairs {
		block, _ := pem.Decode(files[p.cert])
		if block == nil {
			return Authorities{}, fmt.Errorf("%s holds no PEM", p.cert)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Authorities{}, fmt.Errorf("%s: %w", p.cert, err)
		}
		if !cert.IsCA {
			return Authorities{}, fmt.Errorf("%s is not the certificate of an authority", p.cert)
		}
		if err := belongs(files[p.key], cert.PublicKey); err != nil {
			return Authorities{}, fmt.Errorf("%s: %w", p.key, err)
		}
	}
	block, _ := pem.Decode(files[accountPub])
	if block == nil {
		return Authorities{}, fmt.Errorf("%s holds no PEM", accountPub)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Authorities{}, fmt.Errorf("%s: %w", accountPub, err)
	}
	if err := belongs(files[accountKey], pub); err != nil {
		return Authorities{}, fmt.Errorf("%s: %w", accountKey, err)
	}
	hash, err := plan.CAHash(files[caCert])
	if err != nil {
		return Authorities{}, err
	}
	return Authorities{files: files, hash: hash}, nil
}

// belongs checks a private key against its public half. Errors hold nothing of
// the key.
func belongs(keyPEM []byte, pub crypto.PublicKey) error {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return errors.New("it holds no PEM")
	}
	var key crypto.PrivateKey
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return fmt.Errorf("it is no private key (%s)", block.Type)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return errors.New("it is no signing key")
	}
	equal, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !equal.Equal(pub) {
		return errors.New("it is not the key of the certificate beside it")
	}
	return nil
}
