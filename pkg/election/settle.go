package election

import (
	"fmt"
	"slices"
	"strings"
)

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
	if found.SpecID != cfg.SpecID { // whatever the hardware: nothing of another cluster is touched
		return *found, Foreign, foreignText(*found, cfg)
	}
	if !found.Hardware.Same(hw) {
		return fresh, Fresh, clonedText(found.Hardware, hw)
	}
	s := *found
	s.Hardware.UUID, s.Hardware.MACs = hw.UUID, union(found.Hardware.MACs, hw.MACs)
	if s.Config != cfg.Hash() && len(s.Slots) == 0 && !s.IsSealed() {
		// Nothing was promised under the old numbers, so nothing is broken.
		s.Config, s.N = cfg.Hash(), cfg.N
	}
	return s, Kept, ""
}

// maxCards bounds the memory of network cards: more than any server has, few
// enough for the state's size.
const maxCards = 64

// union keeps what this server's cards were: one that is late today was its own
// all the same, and cards that are replaced one after the other leave it who it
// is. Those that are here now come first when it gets too many.
func union(before, now []string) []string {
	all := slices.Clone(now)
	for _, mac := range before {
		if !slices.Contains(all, mac) {
			all = append(all, mac)
		}
	}
	all = all[:min(len(all), maxCards)]
	slices.Sort(all)
	return all
}

func clonedText(was, is Hardware) string {
	if was.HW == is.HW {
		return fmt.Sprintf("the state on this disk was made on a server with the same hardware id %s and other network cards (%s, here %s): "+
			"a disk cloned to a board with the same UUID, or all cards were replaced; this server takes part as a new instance",
			is.HW, strings.Join(was.MACs, " "), strings.Join(is.MACs, " "))
	}
	return fmt.Sprintf("the state on this disk was made on hardware %s, this is %s: a cloned or moved disk, or spec.identity.source was changed; "+
		"this server takes part as a new instance", was.HW, is.HW)
}
