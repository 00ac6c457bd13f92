// Package identity holds who a server is towards its peers: keys derived from
// the cluster's secret, the two certificate authorities, the leaf of this
// instance, TLS configurations that follow rotation, and sealing of private keys
// to one receiver. It also reads from the kernel what hardware this is.
//
// Whoever reads user-data holds the secret, so what is derived from it only
// enrols: the enrolment CA lets a server knock. The agent CA is random and made
// by the leader; its leaves are what agents and the directory trust.
//
// Floor 2. It never decides who gets a leaf, and stores nothing itself.
package identity

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// ServerName is a DNS name that every leaf carries and every client asks for.
// Servers have no names in DNS that could be checked; which server answers is
// checked by its instance. dqlite needs a DNS name.
const ServerName = "muster"

// Certificates are valid for ever and are checked as of checkTime: a server at
// its first boot may have a clock of 1970 or 2038, and must still be able to
// talk to its peers. Trust ends by replacing roots and leaves, not by dates.
var (
	notBefore = time.Unix(0, 0).UTC()
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	checkTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewInst returns a new instance id: 128 random bits as 32 hex digits. An
// instance is one life of one disk.
func NewInst() string {
	b := make([]byte, 16)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails
	return hex.EncodeToString(b)
}

// checkID says whether s has the form of an instance or hardware id.
func checkID(what, s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 || hex.EncodeToString(b) != s {
		return fmt.Errorf("%s is %q; expected 32 lower-case hex digits", what, s)
	}
	return nil
}
