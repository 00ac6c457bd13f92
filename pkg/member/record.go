package member

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
)

// Record is what a lost directory is made again from: a member, or one that was
// removed, as Kubernetes keeps it for that day. It says nothing of phases, which the members tell anew.
type Record struct {
	Inst    string     `json:"inst"`
	HW      string     `json:"hw"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Role    Role       `json:"role"`
	First   bool       `json:"first,omitempty"`   // has the place that is kept for the holder of GO
	Key     string     `json:"key,omitempty"`     // sha256:… of the key that the instance enrolled with
	Removed bool       `json:"removed,omitempty"` // it was removed for ever; no role then
	Phase   Phase      `json:"phase,omitempty"`   // empty: the row is as after a claim
	// Extra is none of the servers that the cluster file expects: it was approved, or
	// has joining user-data.
	Extra bool `json:"extra,omitempty"`
}

// UnknownHW is the hardware of a record whose instance nobody knows.
const UnknownHW = "00000000000000000000000000000000"

// UnknownInst is the instance of a node that is in the cluster while no record
// says which one it is: it keeps the name and the place, and no certificate is
// ever made for it.
func UnknownInst(name string) string {
	sum := sha256.Sum256([]byte("muster node " + name))
	return hex.EncodeToString(sum[:16])
}
