// Package durable keeps what must survive power loss: the fence's state in two
// slots, the journal of steps, and single files written whole or not at all.
// docs/formats.md describes the formats.
//
// Floor 2: a hand on the file system.
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// Open makes the directory (0700) and looks whether it may hold votes: it must
// not lie on a file system that forgets (tmpfs, ramfs, overlay), unless
// allowAnyFS (spec.unsafe.stateFilesystem). What is in it stays as it is.
func Open(dir string, allowAnyFS bool) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for the fence's state: %w", err)
	}
	if !allowAnyFS {
		if err := checkFilesystem(dir); err != nil {
			return nil, err
		}
	}
	return &Store{dir: dir}, nil
}

// Prove shows, before anybody counts on it, that the directory takes a state of
// any size, keeps it, and gives it back. It also closes the directory to others
// and clears what writes left that never ended.
func (s *Store) Prove() error {
	if err := s.prove(); err != nil {
		return fmt.Errorf("%s cannot hold votes, so this server does not vote: %w%s", s.dir, err, remedy(err))
	}
	return nil
}

func (s *Store) prove() error {
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return err
	}
	if err := removeTemporary(s.dir); err != nil {
		return err
	}
	probe := filepath.Join(s.dir, "probe")
	if err := WriteFile(probe, make([]byte, election.MaxStateSize), 0o600); err != nil {
		return err
	}
	return os.Remove(probe)
}

// remedy says what to do about a disk that takes no writes.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Sprintf("; make room for %d KiB (df -h, df -i): it goes on by itself", election.MaxStateSize>>10)
	case errors.Is(err, unix.EROFS):
		return "; a file system goes read-only when its disk fails (dmesg), or was mounted so (/etc/fstab): remount it writable, it goes on by itself"
	}
	return ""
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

// Load reads both slots. Any doubt makes the result Damaged (see
// election.Newest).
func (s *Store) Load() (Found, error) {
	slots, err := s.read()
	if err != nil {
		return Found{}, err
	}
	newest, problem := election.Newest(slots)
	switch {
	case problem != "":
		return Found{Origin: Damaged, Text: problem + ": this server counts as wiped and takes part as a new instance"}, nil
	case newest == nil:
		return Found{Origin: Fresh}, nil
	}
	s.seq = newest.Seq
	return Found{Origin: Loaded, State: newest}, nil
}

func (s *Store) read() ([2]election.StateFile, error) {
	var slots [2]election.StateFile
	for i, name := range slotNames {
		path := filepath.Join(s.dir, name)
		slots[i].Path = path
		data, err := readBounded(path, election.MaxStateSize)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			// An unreadable disk is no damage yet: a later try may succeed, and the
			// answer "wiped" could not be taken back.
			return slots, fmt.Errorf("the fence's state cannot be read, which does not mean that it is lost, so this server does not vote: %w; "+
				"dmesg tells what the disk has; if it is dead, replace it and reinstall this server", err)
		}
		slots[i] = election.ReadStateFile(path, data)
	}
	return slots, nil
}

// Discard removes the state of a former life, damaged or of other hardware,
// before a new instance writes its first. It may be interrupted anywhere (see
// election.RemovalOrder).
func (s *Store) Discard() error {
	slots, err := s.read()
	if err != nil {
		return err
	}
	for _, x := range election.RemovalOrder(slots) {
		if !x.There {
			continue
		}
		if err := os.Remove(x.Path); err != nil {
			return fmt.Errorf("remove a former life's state: %w", err)
		}
		if err := syncDir(s.dir); err != nil {
			return err
		}
	}
	s.seq = 0
	return nil
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
	if err := WriteFile(filepath.Join(s.dir, slotNames[election.StateFileOf(state.Seq)]), data, 0o600); err != nil {
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
