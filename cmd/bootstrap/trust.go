package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/identity"
)

// Files of the agent's keys below layout.PKI, all 0600 (docs/formats.md).
const (
	agentCAFile    = "agent-ca.crt"
	agentCAKeyFile = "agent-ca.key"
	candidateCA    = "candidate-agent-ca.crt" // of an agent CA that no decree names yet
	candidateCAKey = "candidate-agent-ca.key"
	leafFile       = "agent.crt"
	leafKeyFile    = "agent.key"
)

// sealInfo names the purpose of what agents seal to each other.
const sealInfo = "muster authorities v1"

// trust keeps this server's keys on disk and gives TLS its configurations. The
// enrolment leaf is made anew at every start; the agent leaf is got once.
type trust struct {
	dir       string
	self      identity.Subject
	specID    string
	enrolment *identity.Keyring

	mu     sync.Mutex
	agents *identity.Keyring // nil until enrolled
	ca     *identity.Authority
	seal   *identity.SealKey
}

// openTrust reads what an earlier run left in dir, layout.PKI on a server.
// While the secret changes accept are the keys of the other one.
func openTrust(dir string, keys identity.Keys, accept []identity.Keys, specID string, self identity.Subject) (*trust, error) {
	enrolment, err := enrolmentRing(keys, append([]identity.Keys{keys}, accept...), self)
	if err != nil {
		return nil, err
	}
	t := &trust{dir: dir, self: self, specID: specID, enrolment: enrolment}
	return t, t.load()
}

// enrolmentRing is a certificate by one secret, for the port where all of those of
// the roots are believed.
func enrolmentRing(keys identity.Keys, roots []identity.Keys, self identity.Subject) (*identity.Keyring, error) {
	ca, err := identity.EnrolmentAuthority(keys)
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(self)
	if err != nil {
		return nil, err
	}
	var believed []*x509.Certificate
	for _, r := range roots {
		root, err := identity.EnrolmentAuthority(r)
		if err != nil {
			return nil, err
		}
		believed = append(believed, root.Certificate())
	}
	return identity.NewKeyring(leaf, believed...)
}

// load reads what an earlier run got: the agent leaf, and on control planes the
// agent CA.
func (t *trust) load() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of keys: %w", err)
	}
	root, err := os.ReadFile(t.path(agentCAFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the agent CA: %w", err)
	}
	ca, err := identity.ParseCertificate(root)
	if err != nil {
		return fmt.Errorf("reading the agent CA in %s: %w (remove %s to enrol again)", t.dir, err, agentCAFile)
	}
	if ca.Subject.SerialNumber != t.specID {
		// Another cluster's; its CA goes last, because by it the rest is known.
		return t.remove(agentCAKeyFile, leafFile, leafKeyFile, agentCAFile)
	}
	if key, err := os.ReadFile(t.path(agentCAKeyFile)); err == nil {
		if t.ca, err = identity.ParseAuthority(root, key); err != nil {
			return fmt.Errorf("reading the agent CA in %s: %w (remove %s; another control plane signs meanwhile)", t.dir, err, agentCAKeyFile)
		}
	}
	return t.loadLeaf(root)
}

func (t *trust) loadLeaf(root []byte) error {
	leaf, err := os.ReadFile(t.path(leafFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the agent's certificate: %w", err)
	}
	key, err := os.ReadFile(t.path(leafKeyFile))
	if err != nil {
		return fmt.Errorf("reading the agent's key: %w (remove %s to enrol again)", err, leafFile)
	}
	ring, err := identity.ParseKeyring(root, leaf, key)
	if err != nil {
		return fmt.Errorf("reading the agent's certificate in %s: %w (remove %s to enrol again)", t.dir, err, leafFile)
	}
	if ring.Inst() != t.self.Inst {
		// Of another life of this disk, or of the disk that this one was copied
		// from: that server may still run, with this key.
		return t.remove(leafKeyFile, leafFile)
	}
	t.agents = ring
	return nil
}

// remove deletes files in that order.
func (t *trust) remove(names ...string) error {
	for _, name := range names {
		if err := os.Remove(t.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing keys of a former life: %w", err)
		}
	}
	return nil
}

func (t *trust) path(name string) string { return filepath.Join(t.dir, name) }

func (t *trust) write(name string, data []byte) error {
	return durable.WriteFile(t.path(name), data, 0o600)
}

// KeyOf returns the hash of a request's key, which must have signed it.
func (t *trust) KeyOf(csr []byte) (string, error) { return identity.RequestKey(csr) }

// Sign issues a leaf for a caller at the address it called from.
func (t *trust) Sign(from agent.Caller, csr []byte) (agent.Enrolment, error) {
	ca := t.authority()
	if ca == nil {
		return agent.Enrolment{}, fmt.Errorf("this server does not hold the agent CA: %w", agent.ErrNotReady)
	}
	var ips []netip.Addr
	if from.Address.IsValid() {
		ips = []netip.Addr{from.Address}
	}
	leaf, err := ca.Sign(csr, identity.Subject{Inst: from.Inst, HW: from.HW, IPs: ips})
	if err != nil {
		return agent.Enrolment{}, err
	}
	return agent.Enrolment{Leaf: leaf, CA: ca.CertPEM()}, nil
}

// CSR asks for a certificate for this instance's key, which is made once.
func (t *trust) CSR() ([]byte, error) {
	key, err := os.ReadFile(t.path(leafKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = identity.NewKey(); err == nil {
			err = t.write(leafKeyFile, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making this server's key: %w", err)
	}
	return identity.Request(key)
}

// Install stores the leaf, if its CA is the pinned one, and uses it from then on.
func (t *trust) Install(e agent.Enrolment, pinned string) error {
	ca, err := identity.ParseCertificate(e.CA)
	if err != nil {
		return err
	}
	if got := identity.Hash(ca); got != pinned {
		return fmt.Errorf("the agent CA offered has the hash %s, the decree pins %s: another cluster answered", got, pinned)
	}
	key, err := os.ReadFile(t.path(leafKeyFile))
	if err != nil {
		return fmt.Errorf("reading this server's key: %w", err)
	}
	ring, err := identity.ParseKeyring(e.CA, e.Leaf, key)
	if err != nil {
		return err
	}
	if err := t.write(agentCAFile, e.CA); err != nil {
		return err
	}
	if err := t.write(leafFile, e.Leaf); err != nil {
		return err
	}
	t.mu.Lock()
	t.agents = ring
	t.mu.Unlock()
	return nil
}

// Enrolled says whether this server has a leaf of the agent CA.
func (t *trust) Enrolled() bool { return t.ring() != nil }

func (t *trust) ring() *identity.Keyring {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.agents
}

// agentServer is the agent port's TLS: it refuses until this server enrolled.
func (t *trust) agentServer() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			ring := t.ring()
			if ring == nil {
				return nil, errors.New("not enrolled yet")
			}
			return ring.ServerConfig(), nil
		},
	}
}

// agentClient is the TLS of a call to the agent port.
func (t *trust) agentClient(inst string) *tls.Config {
	if ring := t.ring(); ring != nil {
		return ring.ClientConfig(inst)
	}
	// Trusts nobody: the call fails with a sentence of TLS.
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), ServerName: identity.ServerName}
}

// Receiver returns the key that others seal to; it lives in memory only.
func (t *trust) Receiver() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seal == nil {
		key, err := identity.NewSealKey()
		if err != nil {
			return nil, err
		}
		t.seal = key
	}
	return t.seal.Public(), nil
}

// Seal encrypts to a receiver.
func (t *trust) Seal(public, plaintext []byte) ([]byte, error) {
	return identity.Seal(public, sealInfo, plaintext)
}

// Open opens what was sealed to Receiver.
func (t *trust) Open(sealed []byte) ([]byte, error) {
	t.mu.Lock()
	key := t.seal
	t.mu.Unlock()
	if key == nil {
		return nil, errors.New("nothing was asked for")
	}
	return key.Open(sealInfo, sealed)
}

// identify reads the caller of a verified connection.
func identify(cs tls.ConnectionState) (agent.Caller, error) {
	inst, hw, err := identity.PeerOf(cs)
	return agent.Caller{Inst: inst, HW: hw}, err
}
