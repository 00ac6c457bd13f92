package kubeadm

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// NewToken makes a bootstrap token: 6 characters that name it and 16 that prove
// it, of [a-z0-9] (80 random bits in the second part).
func NewToken(random io.Reader) (cluster.Secret, error) {
	raw := make([]byte, 14)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("making a bootstrap token: %w", err)
	}
	text := func(b []byte) string {
		return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
	}
	return cluster.Secret(text(raw[:4])[:6] + "." + text(raw[4:])), nil
}
