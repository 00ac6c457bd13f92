package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/identity"
)

// EnsureAgentCA makes the agent CA this server would lead with, once. It signs
// nothing until a decree names its hash.
func (t *trust) EnsureAgentCA() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ca != nil {
		return t.ca.Hash(), nil
	}
	cert, errCert := os.ReadFile(t.path(candidateCA))
	key, errKey := os.ReadFile(t.path(candidateCAKey))
	if errCert == nil && errKey == nil {
		ca, err := identity.ParseAuthority(cert, key)
		if err != nil {
			return "", fmt.Errorf("reading the agent CA made beforehand: %w (if this server never led, remove %s)", err, t.path(candidateCA))
		}
		if ca.Certificate().Subject.SerialNumber == t.specID { // else another cluster's
			return ca.Hash(), nil
		}
	}
	ca, err := identity.NewAuthority(t.specID)
	if err != nil {
		return "", err
	}
	if key, err = ca.KeyPEM(); err != nil {
		return "", err
	}
	// The certificate comes last: a pair without it was never proposed.
	if err := t.write(candidateCAKey, key); err != nil {
		return "", err
	}
	return ca.Hash(), t.write(candidateCA, ca.CertPEM())
}

// AgentCA returns certificate and key for another control plane.
func (t *trust) AgentCA() ([]byte, error) {
	ca := t.authority()
	if ca == nil {
		return nil, fmt.Errorf("this server does not hold the agent CA: %w", agent.ErrNotReady)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	return append(ca.CertPEM(), key...), nil
}

// AdoptAgentCA stores the agent CA, if it is the pinned one.
func (t *trust) AdoptAgentCA(bundle []byte, pinned string) error {
	cert, key, err := splitPair(bundle)
	if err != nil {
		return err
	}
	ca, err := identity.ParseAuthority(cert, key)
	if err != nil {
		return err
	}
	return t.adopt(ca, pinned)
}

// splitPair takes apart what AgentCA put together: certificate, then key.
func splitPair(bundle []byte) (cert, key []byte, err error) {
	block, rest := pem.Decode(bundle)
	if block == nil {
		return nil, nil, errors.New("the agent CA that was handed over is no PEM")
	}
	return pem.EncodeToMemory(block), rest, nil
}

func (t *trust) adopt(ca *identity.Authority, pinned string) error {
	if ca.Hash() != pinned {
		return fmt.Errorf("the agent CA has the hash %s, the decree pins %s", ca.Hash(), pinned)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	if err := t.write(agentCAKeyFile, key); err != nil {
		return err
	}
	if err := t.write(agentCAFile, ca.CertPEM()); err != nil {
		return err
	}
	t.mu.Lock()
	t.ca = ca
	t.mu.Unlock()
	return nil
}

func (t *trust) authority() *identity.Authority {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ca
}

// CanSign says whether this server holds the agent CA.
func (t *trust) CanSign() bool { return t.authority() != nil }

// Lead makes the candidate agent CA the agent CA, once the decree names it.
func (t *trust) Lead(pinned string) error {
	if ca := t.authority(); ca != nil {
		if ca.Hash() != pinned {
			return fmt.Errorf("this server's agent CA has the hash %s, the decree pins %s", ca.Hash(), pinned)
		}
		return nil
	}
	cert, err := os.ReadFile(t.path(candidateCA))
	if err != nil {
		return fmt.Errorf("reading the agent CA made beforehand: %w", err)
	}
	key, err := os.ReadFile(t.path(candidateCAKey))
	if err != nil {
		return fmt.Errorf("reading the agent CA made beforehand: %w", err)
	}
	ca, err := identity.ParseAuthority(cert, key)
	if err != nil {
		return err
	}
	return t.adopt(ca, pinned)
}

// Keep drops the leaf and the agent CA that are not of the pinned one: a decree
// was superseded, and what its leader signed is worth nothing any more. The key
// of the leaf stays: it is this instance's.
func (t *trust) Keep(pinned string) error {
	root, err := os.ReadFile(t.path(agentCAFile))
	if errors.Is(err, fs.ErrNotExist) || pinned == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the agent CA: %w", err)
	}
	ca, err := identity.ParseCertificate(root)
	if err != nil {
		return fmt.Errorf("reading the agent CA in %s: %w (remove %s to enrol again)", t.dir, err, agentCAFile)
	}
	if identity.Hash(ca) == pinned {
		return nil
	}
	t.mu.Lock()
	t.agents, t.ca = nil, nil
	t.mu.Unlock()
	return t.remove(agentCAKeyFile, leafFile, agentCAFile)
}
