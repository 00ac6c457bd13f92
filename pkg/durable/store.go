// Package durable keeps what must survive power loss: the fence's state in two
// slots, the journal of steps, and single files written whole or not at all.
// docs/formats.md describes the formats.
//
// Floor 2: a hand on the file system.
package durable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/election"
)

// Slots of the state. A write goes to the slot that does not hold the newest
// state, so that the newest is never touched by it.
var slotNames = [2]string{"state.a", "state.b"}

// Store is the directory of the fence's state. It is used by one goroutine of
// one process.
type Store struct {
	dir string
	seq uint64 // of the newest state in the slots
}

// Origin says what Load found.
type Origin string

// Origins.
const (
	Fresh   Origin = "fresh"   // no state was ever written here
	Loaded  Origin = "loaded"  // the newest state is whole
	Damaged Origin = "damaged" // a state was here and cannot be trusted: this server counts as wiped
)

// Found is the result of Load.
type Found struct {
	Origin Origin
	State  *election.State // with Loaded only
	Text   string          // with Damaged: what is wrong, for a person
}

// Open makes the directory (0700) and proves that it can hold votes: it must not
// lie on a file system that forgets (tmpfs, ramfs, overlay), unless
// allowAnyFS (spec.unsafe.stateFilesystem), and must give back what was synced to it.
func Open(dir string, allowAnyFS bool) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for the fence's state: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close the directory of the fence's state to others: %w", err)
	}
	if !allowAnyFS {
		if err := checkFilesystem(dir); err != nil {
			return nil, err
		}
	}
	if err := removeTemporary(dir); err != nil {
		return nil, err
	}
	probe := filepath.Join(dir, "probe")
	if err := WriteFile(probe, []byte("muster proves that this directory can be written to\n"), 0o600); err != nil {
		return nil, fmt.Errorf("%s cannot hold votes: %w", dir, err)
	}
	if err := os.Remove(probe); err != nil {
		return nil, fmt.Errorf("remove the probe: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Filesystems that forget. Source: linux/magic.h.
var forgetful = map[int64]string{
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.RAMFS_MAGIC:           "ramfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
}

func checkFilesystem(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("ask for the file system of %s: %w", dir, err)
	}
	name, bad := forgetful[int64(st.Type)]
	if !bad {
		return nil
	}
	return fmt.Errorf("%s lies on %s, which may forget a vote at a reboot; a server that forgets its vote can make a second cluster: "+
		"put %s on a disk (on test servers only: spec.unsafe.stateFilesystem: true)", dir, name, dir)
}

// removeTemporary clears what writes left that never ended. They were never
// renamed, so nobody relied on them.
func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list the directory of the fence's state: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporaryPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove an unfinished write: %w", err)
			}
		}
	}
	return nil
}

// slotState is one slot as read.
type slotState struct {
	path  string
	there bool
	state election.State
	err   error // why it is no state
}

// Load reads both slots. Any doubt makes the result Damaged: an older state may
// lack a promise that was given, so it is never used in place of a newer one.
func (s *Store) Load() (Found, error) {
	slots, err := s.read()
	if err != nil {
		return Found{}, err
	}
	newest, problem := judge(slots)
	switch {
	case problem != "":
		return Found{Origin: Damaged, Text: problem + ": this server counts as wiped and takes part as a new instance"}, nil
	case newest == nil:
		return Found{Origin: Fresh}, nil
	}
	s.seq = newest.Seq
	return Found{Origin: Loaded, State: newest}, nil
}

func (s *Store) read() ([2]slotState, error) {
	var slots [2]slotState
	for i, name := range slotNames {
		path := filepath.Join(s.dir, name)
		slots[i].path = path
		data, err := readBounded(path, election.MaxStateSize)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			// An unreadable disk is no damage yet: a later try may succeed, and the
			// answer "wiped" could not be taken back.
			return slots, fmt.Errorf("read the fence's state: %w", err)
		}
		slots[i].there = true
		slots[i].state, slots[i].err = election.DecodeState(data)
	}
	return slots, nil
}

// judge finds the newest state, or says why there is none to trust. Writes
// alternate between the slots, so whole memory is one slot with the first write
// or two with neighbouring numbers.
func judge(slots [2]slotState) (*election.State, string) {
	for _, x := range slots {
		if x.there && x.err != nil {
			return nil, fmt.Sprintf("%s: %v", x.path, x.err)
		}
	}
	a, b := slots[0], slots[1]
	switch {
	case !a.there && !b.there:
		return nil, ""
	case a.there != b.there:
		one, other := a, b
		if b.there {
			one, other = b, a
		}
		if one.state.Seq != 1 {
			return nil, fmt.Sprintf("%s holds write %d, but %s is missing, which may have held the newest", one.path, one.state.Seq, other.path)
		}
		return &one.state, ""
	case a.state.Seq+1 != b.state.Seq && b.state.Seq+1 != a.state.Seq:
		return nil, fmt.Sprintf("%s holds write %d and %s write %d, expected neighbours: one of them was put back from a copy",
			a.path, a.state.Seq, b.path, b.state.Seq)
	case a.state.Inst != b.state.Inst:
		return nil, fmt.Sprintf("%s is of instance %s, %s of %s", a.path, a.state.Inst, b.path, b.state.Inst)
	case a.state.Seq > b.state.Seq:
		return &a.state, ""
	}
	return &b.state, ""
}

// Discard removes the state of a former life, damaged or of other hardware,
// before a new instance writes its first. It may be interrupted anywhere: what
// is left never passes for whole memory, because the older slot goes first and a
// damaged one last.
func (s *Store) Discard() error {
	slots, err := s.read()
	if err != nil {
		return err
	}
	for _, x := range removalOrder(slots) {
		if !x.there {
			continue
		}
		if err := os.Remove(x.path); err != nil {
			return fmt.Errorf("remove a former life's state: %w", err)
		}
		if err := syncDir(s.dir); err != nil {
			return err
		}
	}
	s.seq = 0
	return nil
}

// removalOrder sorts slots by age, damaged ones last.
func removalOrder(slots [2]slotState) []slotState {
	order := slots[:]
	slices.SortStableFunc(order, func(x, y slotState) int {
		if (x.err == nil) != (y.err == nil) {
			if x.err == nil {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.state.Seq, y.state.Seq)
	})
	return order
}

// Save writes a state and returns when it survives power loss. States come in
// the order of their numbers, each one more than the last. After an error
// nothing may be answered from that state: start again from Load.
func (s *Store) Save(state election.State) error {
	if state.Seq != s.seq+1 {
		return fmt.Errorf("write %d of the fence's state does not follow write %d", state.Seq, s.seq)
	}
	data, err := election.EncodeState(state)
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(s.dir, slotNames[state.Seq%2]), data, 0o600); err != nil {
		return fmt.Errorf("write the fence's state: %w", err)
	}
	s.seq = state.Seq
	return nil
}

// sameBytes reads a file back and compares it with what was written.
func sameBytes(path string, want []byte) error {
	got, err := readBounded(path, int64(len(want)))
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("read back %s: %d bytes differ from the %d written; the disk or its file system is faulty", path, len(got), len(want))
	}
	return nil
}
