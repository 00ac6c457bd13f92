package identity

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

// SealKey is a key pair that others seal to: the one who shall receive private
// keys makes it, gives away Public, and opens what comes back.
type SealKey struct {
	private hpke.PrivateKey
}

// NewSealKey makes a random key pair. It lives in memory for one hand-over.
func NewSealKey() (*SealKey, error) {
	private, err := sealKEM().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making a key to seal to: %w", err)
	}
	return &SealKey{private: private}, nil
}

// Public returns the public half, 32 bytes.
func (k *SealKey) Public() []byte { return k.private.PublicKey().Bytes() }

// Open returns what Seal was given for this key and this info.
func (k *SealKey) Open(info string, sealed []byte) ([]byte, error) {
	plaintext, err := hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), sealed)
	if err != nil {
		return nil, fmt.Errorf("opening %d sealed bytes for %q: they are damaged, or were sealed to another key or for another purpose: %w", len(sealed), info, err)
	}
	return plaintext, nil
}

// Seal encrypts to the holder of receiverPublic (RFC 9180, base mode: X25519,
// HKDF-SHA256, AES-256-GCM). It says nothing about the sender: send it over mTLS.
// info names the purpose and the parties; Open must be given the same.
func Seal(receiverPublic []byte, info string, plaintext []byte) ([]byte, error) {
	public, err := sealKEM().NewPublicKey(receiverPublic)
	if err != nil {
		return nil, fmt.Errorf("the receiver's public key (%d bytes): %w", len(receiverPublic), err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), plaintext)
	if err != nil {
		return nil, fmt.Errorf("sealing for %q: %w", info, err)
	}
	return sealed, nil
}

func sealKEM() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }
