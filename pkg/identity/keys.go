package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"

	"github.com/mustermetal/muster/pkg/cluster"
)

// minSecret is the least length of a secret in characters: 32 characters of hex
// are 128 bits.
const minSecret = 32

// Info strings separate the keys that come from one secret. The version moves
// when the meaning of a key changes, so that old and new never meet.
const (
	infoGossip    = "muster v1 gossip key"
	infoEnrolment = "muster v1 enrolment ca"
	infoSeal      = "muster v1 seal key"
)

// Keys are what the secret of the cluster file gives. They show themselves to
// nobody who prints or logs them.
type Keys struct {
	specID string
	gossip []byte
	seed   []byte
	seal   []byte
}

// Derive makes the keys of one generation of a cluster with HKDF-SHA256; the
// spec id is the salt, so that a secret used twice still gives other keys.
func Derive(secret cluster.Secret, specID string) (Keys, error) {
	if len(secret.Reveal()) < minSecret {
		return Keys{}, fmt.Errorf("the cluster's secret has %d characters; expected at least %d: userdata init makes one", len(secret.Reveal()), minSecret)
	}
	if specID == "" {
		return Keys{}, errors.New("spec.id is empty; userdata init makes one")
	}
	keys := Keys{specID: specID}
	for _, k := range []struct {
		info string
		into *[]byte
		size int
	}{
		{infoGossip, &keys.gossip, 32},
		{infoEnrolment, &keys.seed, ed25519.SeedSize},
		{infoSeal, &keys.seal, 32},
	} {
		key, err := hkdf.Key(sha256.New, []byte(secret.Reveal()), []byte(specID), k.info, k.size)
		if err != nil {
			return Keys{}, fmt.Errorf("deriving the %s: %w", k.info, err)
		}
		*k.into = key
	}
	return keys, nil
}

// Gossip returns the AES-256 key of the gossip.
func (k Keys) Gossip() []byte { return append([]byte(nil), k.gossip...) }

// Seal returns the key for blobs that lie in the directory until the agent CA
// takes over.
func (k Keys) Seal() []byte { return append([]byte(nil), k.seal...) }

// String hides the keys.
func (k Keys) String() string { return "[redacted keys]" }

// GoString hides the keys from %#v.
func (k Keys) GoString() string { return k.String() }

// LogValue hides the keys from log/slog.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
