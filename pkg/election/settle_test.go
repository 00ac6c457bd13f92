package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSettle: whose state it is decides with which one a server takes part.
func TestSettle(t *testing.T) {
	cfg := testConfig(3, "")
	hw := Hardware{HW: "h", MACs: []string{"0c:42:a1:00:00:01"}}
	fresh := State{SpecID: testSpec, Config: cfg.Hash(), N: 3, Hardware: hw, Inst: "new"}
	kept := State{Seq: 4, SpecID: testSpec, Config: cfg.Hash(), N: 3, Hardware: hw, Inst: "old", Slots: []Slot{{Promised: Ballot{Round: 1, Inst: "x"}}}}
	change := func(f func(*State)) *State {
		s := kept
		f(&s)
		return &s
	}
	unused := change(func(s *State) { s.Slots, s.Config, s.N = nil, "older", 7 })
	voted := change(func(s *State) { s.Config, s.N = "older", 7 })
	for _, c := range []struct {
		name   string
		found  *State
		now    Hardware
		state  State
		origin Origin
		text   string
	}{
		{"no state", nil, hw, fresh, Fresh, ""},
		{"its own", &kept, hw, kept, Kept, ""},
		{"its cards do not answer", &kept, Hardware{HW: "h"}, kept, Kept, ""},
		{"a card came beside", &kept, Hardware{HW: "h", UUID: "u", MACs: []string{"0c:42:a1:00:00:01", "0c:42:a1:00:00:00"}},
			*change(func(s *State) {
				s.Hardware = Hardware{HW: "h", UUID: "u", MACs: []string{"0c:42:a1:00:00:00", "0c:42:a1:00:00:01"}}
			}), Kept, ""},
		{"cloned to other hardware", &kept, Hardware{HW: "i"}, State{SpecID: testSpec, Config: cfg.Hash(), N: 3, Hardware: Hardware{HW: "i"}, Inst: "new"}, Fresh, "a cloned or moved disk, or spec.identity.source was changed"},
		{"cloned to a board with the same UUID", &kept, Hardware{HW: "h", MACs: []string{"0c:42:a1:00:00:02"}},
			State{SpecID: testSpec, Config: cfg.Hash(), N: 3, Hardware: Hardware{HW: "h", MACs: []string{"0c:42:a1:00:00:02"}}, Inst: "new"}, Fresh,
			"with the same hardware id h and other network cards (0c:42:a1:00:00:01, here 0c:42:a1:00:00:02): a disk cloned to a board with the same UUID, or all cards were replaced"},
		{"another cluster's", change(func(s *State) { s.SpecID = "other" }), hw, *change(func(s *State) { s.SpecID = "other" }), Foreign, "belongs to cluster other, the user-data to cluster " + testSpec},
		{"another cluster's, of other hardware", change(func(s *State) { s.SpecID, s.Hardware.HW = "other", "i" }), hw,
			*change(func(s *State) { s.SpecID, s.Hardware.HW = "other", "i" }), Foreign, "nothing is touched"},
		{"another config, nothing promised", unused, hw, *change(func(s *State) { s.Slots = nil }), Kept, ""},
		{"another config, something promised", voted, hw, *voted, Kept, ""},
	} {
		state, origin, text := Settle(c.found, cfg, c.now, "new")
		if diff := cmp.Diff(c.state, state, addresses); diff != "" || origin != c.origin || !strings.Contains(text, c.text) || (text == "") != (c.text == "") {
			t.Errorf("%s: %s, %q, %s", c.name, origin, text, diff)
		}
	}
}

// TestCardsAreBounded: whatever comes and goes, the state stays small and knows
// the cards that are here.
func TestCardsAreBounded(t *testing.T) {
	cfg := testConfig(3, "")
	s := State{Seq: 1, SpecID: testSpec, Config: cfg.Hash(), N: 3, Hardware: Hardware{HW: "h"}, Inst: "i"}
	for boot := range 200 {
		now := Hardware{HW: "h", MACs: []string{"02:00:00:00:00:01", fmt.Sprintf("02:00:00:00:01:%02x", boot)}}
		next, origin, text := Settle(&s, cfg, now, "new")
		if origin != Kept || text != "" || len(next.Hardware.MACs) > maxCards {
			t.Fatalf("boot %d: %s, %q, %d cards", boot, origin, text, len(next.Hardware.MACs))
		}
		for _, mac := range now.MACs {
			if !slices.Contains(next.Hardware.MACs, mac) {
				t.Fatalf("boot %d: %s is not remembered", boot, mac)
			}
		}
		s = next
	}
}
