package member

import (
	"crypto/sha256"
	"encoding/hex"
)

// Spec is a revision of the cluster's spec: the cluster file without the secret and
// without what only user-data carries.
type Spec struct {
	// Revision is 0 for the spec with which the cluster formed, and one more for each
	// `bootstrap apply`.
	Revision uint64 `json:"revision"`
	// ControlPlanes is spec.servers.controlPlanes in it, by which roles are given.
	ControlPlanes int    `json:"controlPlanes"`
	Text          string `json:"text"` // YAML, byte for byte the same for the same spec
}

// Sum is the sha256 of the text, in hex: two revisions of one number may differ, where
// the directory was lost between them.
func (s Spec) Sum() string {
	sum := sha256.Sum256([]byte(s.Text))
	return hex.EncodeToString(sum[:])
}

// SpecStatus is which revision of the cluster's spec a server runs by.
type SpecStatus struct {
	Revision uint64 `json:"revision"` // 0: its own cluster file
	Newest   uint64 `json:"newest"`   // the highest that it heard of
	// Lag is why it does not run by the newest, a sentence.
	Lag string `json:"lag,omitempty"`
}
