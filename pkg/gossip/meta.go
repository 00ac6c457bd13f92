package gossip

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Flags are hints that a server gives about itself. They save questions; no
// decision rests on them.
type Flags uint8

// Flags.
const (
	Eligible     Flags = 1 << iota // may become a control plane
	Decided                        // knows a decree
	Sealed                         // knows that the first control plane is up
	ControlPlane                   // is one, and can be asked for the directory
	Joining                        // booted with joining user-data: neither votes nor counts
)

// Has says whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

// String lists the flags for a log.
func (f Flags) String() string {
	var set []string
	for i, name := range []string{"eligible", "decided", "sealed", "control-plane", "joining"} {
		if f.Has(1 << i) {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

// The meta data of a node ride in every alive message, and the time until N
// servers that start together know each other grows with their size: version,
// flags, and the 16 bytes of the hardware id. A later version may append, and
// must leave these in place.
const (
	metaVersion = 1
	metaSize    = 1 + 1 + 16
)

func encodeMeta(flags Flags, hw string) ([]byte, error) {
	id, err := hex.DecodeString(hw)
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("hardware id is %q; expected 32 hex digits", hw)
	}
	return append([]byte{metaVersion, byte(flags)}, id...), nil
}

func decodeMeta(meta []byte) (Flags, string, error) {
	if len(meta) < metaSize || meta[0] < metaVersion {
		return 0, "", fmt.Errorf("meta data are %d bytes (%x); expected version %d or later and at least %d bytes", len(meta), meta, metaVersion, metaSize)
	}
	return Flags(meta[1]), hex.EncodeToString(meta[2:metaSize]), nil
}
