// Package ledger counts what the stand-in for kubeadm does on all servers of a
// test. It is a file outside of them that each sees as /srv/faults/ledger, so that
// no partition, crash or wipe takes a line away.
package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Dir is where servers see what lies outside of them.
const Dir = "/srv/faults"

// What was done.
const (
	Init  = "init"  // kubeadm init began, past its preflight checks
	Done  = "done"  // and ended well
	Join  = "join"  // kubeadm join ended well
	Reset = "reset" // kubeadm reset
)

// Line is one deed.
type Line struct {
	Time   time.Time `json:"time"`
	What   string    `json:"what"`
	Server string    `json:"server"` // hostname
	Node   string    `json:"node,omitempty"`
	Inst   string    `json:"inst,omitempty"`
	HW     string    `json:"hw,omitempty"`
	Epoch  uint64    `json:"epoch,omitempty"` // of the decree on that server's disk
	CA     string    `json:"ca,omitempty"`    // hash of the cluster CA it was done with
}

// Append writes a line below dir and returns when it survives whatever comes.
// Lines are shorter than a page, and O_APPEND keeps those of several servers apart.
func Append(dir string, l Line) (err error) {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "ledger"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return f.Sync()
}

// Read returns all lines in the order in which they were written.
func Read(dir string) ([]Line, error) {
	b, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var lines []Line
	for raw := range bytes.Lines(b) {
		var l Line
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("ledger: %q: %w", raw, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}
