package election

import "fmt"

// Origin says where a server's state comes from.
type Origin string

// Origins.
const (
	Fresh   Origin = "fresh"   // no state was there, or none that is this server's: a new instance
	Kept    Origin = "kept"    // the state of this very instance
	Foreign Origin = "foreign" // another cluster's state: touch nothing
)

// Settle decides with which state a server takes part. found is nil when no
// valid state is on disk; inst is a new random instance (32 hex digits), used
// only when the state is fresh. The text, when not empty, is for a person. When
// the origin is Fresh and found is not nil, the old state must be removed before
// the new one is written.
func Settle(found *State, cfg Config, hw Hardware, inst string) (State, Origin, string) {
	fresh := State{SpecID: cfg.SpecID, Config: cfg.Hash(), N: cfg.N, Hardware: hw, Inst: inst}
	if found == nil {
		return fresh, Fresh, ""
	}
	if !found.Hardware.Same(hw) {
		return fresh, Fresh, fmt.Sprintf("the state on this disk was made on hardware %s, this is %s: a cloned or moved disk; "+
			"this server takes part as a new instance", found.Hardware.HW, hw.HW)
	}
	if found.SpecID != cfg.SpecID {
		return *found, Foreign, foreignText(*found, cfg)
	}
	s := *found
	if s.Config != cfg.Hash() && len(s.Slots) == 0 && !s.IsSealed() {
		// Nothing was promised under the old numbers, so nothing is broken.
		s.Config, s.N = cfg.Hash(), cfg.N
	}
	return s, Kept, ""
}
