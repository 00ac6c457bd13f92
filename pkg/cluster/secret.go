package cluster

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Secret is a string that never shows itself: formatting and logging print
// [redacted]. Reveal is the one way to the value.
type Secret string

// Reveal returns the value. Call it only where the value is used.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SecretSource is where `userdata render` gets the secret, when it is not NAME.secret
// beside the cluster file. At most one field is set; paths and commands are those of
// the machine that renders.
type SecretSource struct {
	// Exec is a command and its arguments; what it prints is the secret.
	Exec []string `yaml:"exec,omitempty"`
	// Env is a variable that your secret store sets.
	Env string `yaml:"env,omitempty"`
	// File is relative to the cluster file; one that ends in .age is opened with
	// `--identity`.
	File string `yaml:"file,omitempty"`
}

// IsZero says that nothing is set.
func (s SecretSource) IsZero() bool { return len(s.Exec) == 0 && s.Env == "" && s.File == "" }

// secretBytes is the length of a cluster's secret before base64: the strength
// of the keys that are derived from it.
const secretBytes = 32

// NewSecret makes a cluster's secret from random (crypto/rand.Reader, or a fixed
// stream in tests): 32 bytes in base64.
func NewSecret(random io.Reader) (Secret, error) {
	b := make([]byte, secretBytes)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("reading random bytes for a secret: %w", err)
	}
	return Secret(base64.StdEncoding.EncodeToString(b)), nil
}

// NewID makes a spec.id from random: 32 hex digits.
func NewID(random io.Reader) (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("reading random bytes for a cluster id: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// ParseSecret reads a secret file: the secret on the one line that is neither
// empty nor a comment. Its errors never show the value.
func ParseSecret(data []byte) (Secret, error) {
	line, err := onlyLine(data)
	if err != nil {
		return "", fmt.Errorf("the secret file %w: the secret as `userdata init` wrote it", err)
	}
	s := Secret(line)
	return s, s.check()
}

// onlyLine is the one line that is neither empty nor a comment.
func onlyLine(data []byte) (string, error) {
	var found []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("has %d lines that are no comment, expected exactly one", len(found))
	}
	return found[0], nil
}

// check says whether s can be a cluster's secret.
func (s Secret) check() error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(s))
	switch {
	case err != nil:
		return errors.New("the secret is not base64; expected 32 random bytes in base64 (44 characters), as `userdata init` makes them")
	case len(b) != secretBytes:
		return fmt.Errorf("the secret has %d bytes, expected %d in base64 (44 characters), as `userdata init` makes them", len(b), secretBytes)
	}
	return nil
}
