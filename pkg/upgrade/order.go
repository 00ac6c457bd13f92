// Package upgrade exchanges the agent's program for another one, on trial: the former
// one is kept beside it, watches the new one from a unit of its own, and takes its
// place back when the new one is not ready in time.
//
// It decides nothing of who exchanges when. Floor 2.
package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Stage is how far an exchange is. Each is on the disk before what it stands for
// begins, so that a boot in the middle goes on.
type Stage string

// Stages, in order; an exchange that fails leaves them for Back.
const (
	Lay       Stage = "lay"       // the new program takes the place
	Trial     Stage = "trial"     // the new agent has to be ready in time
	Directory Stage = "directory" // and so has the directory's process, from the new program
	Back      Stage = "back"      // the former program takes its place back
	Kept      Stage = "kept"      // over: the new one stays
	Returned  Stage = "returned"  // over: the former one is back
)

// Over says that nothing is left to do.
func (s Stage) Over() bool { return s == Kept || s == Returned }

// Order is one exchange, as it lies on the disk. Version 1 (docs/formats.md).
type Order struct {
	Version int       `json:"version"`
	From    string    `json:"from"` // sha256 of the former program
	To      string    `json:"to"`   // sha256 of the new one
	Stage   Stage     `json:"stage"`
	Since   time.Time `json:"since"`         // of the stage, this server's clock
	Why     string    `json:"why,omitempty"` // it went back, a sentence
	// FormerEnv and Env are fetch.env before and after: what muster-fetch accepts at the
	// next boot has to be the program that is in place.
	FormerEnv string `json:"formerEnv"`
	Env       string `json:"env"`
}

const orderVersion = 1

// Read returns the last order, nil when there was none. One that cannot be read is
// an error: what it would have said of the program in place is not known.
func Read(path string) (*Order, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var o Order
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err == nil && o.Version != orderVersion {
		err = fmt.Errorf("it has version %d, this agent knows version %d", o.Version, orderVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the exchange of agents %s: %w; remove it, and compare sha256sum $(command -v bootstrap) with /etc/muster/fetch.env", path, err)
	}
	return &o, nil
}

// WriteFile writes a file so that after a power cut either the old or the new
// content is there.
type WriteFile func(path string, data []byte, perm fs.FileMode) error

// Write puts an order on the disk.
func (o Order) Write(path string, write WriteFile) error {
	o.Version = orderVersion
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encoding the exchange of agents: %w", err)
	}
	return write(path, append(data, '\n'), 0o600)
}
