package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/layout"
)

// readBoot returns the name of this boot: random, made by the first who asks, on
// a tmpfs that a reboot empties. The kernel's own boot id would do on a real
// server, but in a container it is the host's, and a unit's sandbox may show
// another one than its neighbour's.
func readBoot() (string, error) {
	data, err := os.ReadFile(layout.Boot)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the name of this boot: %w", err)
	}
	boot := identity.NewInst()
	return boot, durable.WriteFile(layout.Boot, []byte(boot+"\n"), 0o600)
}

// goStands is the content of layout.GoStands: which GO enough electors confirmed
// since this boot. The file lies on a tmpfs, so a boot forgets it.
type goStands struct {
	Version int    `json:"version"`
	Inst    string `json:"inst"`
	Epoch   uint64 `json:"epoch"`
}

const goStandsVersion = 1

func writeGoStands(path, inst string, epoch uint64) error {
	data, err := json.Marshal(goStands{Version: goStandsVersion, Inst: inst, Epoch: epoch})
	if err != nil {
		return fmt.Errorf("encoding that GO stands: %w", err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// confirms says whether the mark is of the GO that a state holds, in this boot.
func (s *goStands) confirms(state election.State) bool {
	_, epoch, ok := state.Leader()
	return s != nil && ok && s.Inst == state.Inst && s.Epoch == epoch
}

// readGoStands returns nil when nothing was confirmed in this boot.
func readGoStands(path string) (*goStands, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading whether GO stands: %w", err)
	}
	var s goStands
	if err := json.Unmarshal(data, &s); err != nil || s.Version != goStandsVersion {
		return nil, nil // what cannot be read grants nothing
	}
	return &s, nil
}
