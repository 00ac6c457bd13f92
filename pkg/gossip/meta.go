package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
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
// flags, the 16 bytes of the hardware id, and since version 2 the 4 bytes of a
// switch. A later version may append, and must leave these in place.
const (
	metaVersion = 2
	metaOldest  = 1
	metaSize    = 1 + 1 + 16 // of version 1
	switchSize  = 4
)

// said is what a server says of itself.
type said struct {
	flags Flags
	hw    string
	// onSwitch tells top-of-rack switches apart: SwitchTag of the platform's name.
	onSwitch string
}

// SwitchTag is what gossip carries of a switch: 8 hex digits, the same for servers
// on the same switch. It is empty for an unknown one.
func SwitchTag(name string) string {
	if name == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("muster switch " + name))
	return hex.EncodeToString(sum[:switchSize])
}

func encodeMeta(s said) ([]byte, error) {
	id, err := hex.DecodeString(s.hw)
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("hardware id is %q; expected 32 hex digits", s.hw)
	}
	tag, err := hex.DecodeString(s.onSwitch)
	if err != nil || len(tag) != switchSize {
		tag = make([]byte, switchSize) // unknown
	}
	return slices.Concat([]byte{metaVersion, byte(s.flags)}, id, tag), nil
}

func decodeMeta(meta []byte) (said, error) {
	if len(meta) < metaSize || meta[0] < metaOldest {
		return said{}, fmt.Errorf("meta data are %d bytes (%x); expected version %d or later and at least %d bytes", len(meta), meta, metaOldest, metaSize)
	}
	s := said{flags: Flags(meta[1]), hw: hex.EncodeToString(meta[2:metaSize])}
	if tag := meta[metaSize:]; meta[0] >= 2 && len(tag) >= switchSize && !bytes.Equal(tag[:switchSize], make([]byte, switchSize)) {
		s.onSwitch = hex.EncodeToString(tag[:switchSize])
	}
	return s, nil
}
