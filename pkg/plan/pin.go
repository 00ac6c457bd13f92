package plan

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// CAHash is the hash that kubeadm pins: "sha256:" and the SHA-256 of the
// certificate's public key (SubjectPublicKeyInfo) in hex.
func CAHash(caPEM []byte) (string, error) {
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return "", errors.New("no PEM block in the CA certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("reading the CA certificate: %w", err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// PinnedCA says whether a CA certificate is the one that the decree pins.
func PinnedCA(caPEM []byte, pinned string) error {
	got, err := CAHash(caPEM)
	if err != nil {
		return err
	}
	if got != pinned {
		return fmt.Errorf("the CA offered has the hash %s, the decree pins %s: it is another cluster's; "+
			"find out who answers at that address before anything else", got, pinned)
	}
	return nil
}
