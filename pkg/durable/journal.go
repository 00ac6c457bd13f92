package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Event is what happened to a step.
type Event string

// Events of a step.
const (
	Started Event = "start"
	Done    Event = "done"
	Failed  Event = "failed"
)

// Entry is one line of the journal.
type Entry struct {
	Time   time.Time `json:"time"` // the server's clock, for people only: nothing is decided by it
	Boot   string    `json:"boot"` // the kernel's boot id
	Step   string    `json:"step"`
	Event  Event     `json:"event"`
	Detail string    `json:"detail,omitempty"`
}

// Limits of the journal, in bytes.
const (
	maxLine    = 4 << 10
	maxJournal = 16 << 20
)

// Journal remembers which steps began and ended on this server, through any
// power loss: a line is on disk before the call returns. It is safe for
// concurrent use.
type Journal struct {
	path    string
	mu      sync.Mutex
	file    *os.File // nil until the first write
	boot    string
	now     func() time.Time
	entries []Entry
	size    int64 // of the whole lines
	skipped int
}

// OpenJournal reads a journal, or begins one. It writes nothing: an agent whose
// disk is read-only must come up and say so. now gives the time of entries.
func OpenJournal(path, boot string, now func() time.Time) (*Journal, error) {
	entries, whole, skipped, err := scanJournal(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &Journal{path: path, boot: boot, now: now, entries: entries, size: whole, skipped: skipped}, nil
}

// open makes the journal (0600) ready for writing. A last line that power loss
// tore is cut off: its step was not yet told to anyone.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = f.Chmod(0o600)
	if err == nil {
		err = f.Truncate(j.size)
	}
	if err == nil {
		err = syncFile(f)
	}
	if err == nil {
		err = syncDir(filepath.Dir(j.path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", j.path, err), f.Close())
	}
	j.file = f
	return nil
}

// ReadJournal returns the entries of a journal without opening it for writing;
// no file is no entries.
func ReadJournal(path string) ([]Entry, error) {
	entries, _, _, err := scanJournal(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// scanJournal reads entries, the length of the whole lines, and how many whole
// lines are none of ours (a disk error; they are left where they are).
func scanJournal(path string) (entries []Entry, whole int64, skipped int, err error) {
	data, err := readBounded(path, maxJournal)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the journal: %w", err)
	}
	if len(data) > maxJournal {
		return nil, 0, 0, fmt.Errorf("the journal %s is longer than %d bytes: move it away", path, maxJournal)
	}
	// A torn line may end in zeros or in part of a later line: whatever does not
	// parse at the very end is cut, what does not parse before that is skipped.
	rest, bad := data, 0
	for {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			break
		}
		rest = after
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Step == "" {
			bad++
			continue
		}
		entries, skipped, bad = append(entries, e), skipped+bad, 0
		whole = int64(len(data) - len(rest))
	}
	return entries, whole, skipped, nil
}

// Write adds an entry. Detail must not hold secrets; it is cut to fit a line.
func (j *Journal) Write(step string, event Event, detail string) error {
	if len(detail) > maxLine/2 {
		detail = detail[:maxLine/2]
	}
	e := Entry{Time: j.now().UTC(), Boot: j.boot, Step: step, Event: event, Detail: detail}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	n, err := j.file.Write(append(line, '\n'))
	if err != nil {
		// On a full disk half a line may be there, and the next one would become
		// part of it.
		return errors.Join(fmt.Errorf("write the journal: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(n)
	if err := syncFile(j.file); err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	j.entries = append(j.entries, e)
	return nil
}

// Forget removes all entries: they are of another server or of a former life.
func (j *Journal) Forget() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		return fmt.Errorf("empty the journal: %w", err)
	}
	if err := errors.Join(j.file.Truncate(0), syncFile(j.file)); err != nil {
		return fmt.Errorf("empty the journal: %w", err)
	}
	j.entries, j.size = nil, 0
	return nil
}

// Start notes that a step begins, with the entry on disk before it returns.
func (j *Journal) Start(step string) error { return j.Write(step, Started, "") }

// Finish notes that a step ended well.
func (j *Journal) Finish(step string) error { return j.Write(step, Done, "") }

// Fail notes that a step ended in an error, which must not hold secrets.
func (j *Journal) Fail(step string, cause error) error {
	return j.Write(step, Failed, cause.Error())
}

// stepEpoch is the step of an entry that begins a new epoch. What was done under
// an earlier decree is void: nothing before it counts as begun or done.
const stepEpoch = "epoch"

// Enter begins an epoch of the decree, unless it is the one that the journal is
// in; a new journal is in epoch 0.
func (j *Journal) Enter(epoch uint64) error {
	if j.epoch() == epoch {
		return nil
	}
	return j.Write(stepEpoch, Started, strconv.FormatUint(epoch, 10))
}

func (j *Journal) epoch() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.entries) - 1; i >= 0; i-- {
		if j.entries[i].Step == stepEpoch {
			n, err := strconv.ParseUint(j.entries[i].Detail, 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// Done says whether a step's last event is its end.
func (j *Journal) Done(step string) bool { return j.last(step) == Done }

// Started says whether a step ever began on this disk, however it went.
func (j *Journal) Started(step string) bool { return j.last(step) != "" }

// Interrupted says whether a step began and neither ended nor failed: power was
// lost, or it runs now.
func (j *Journal) Interrupted(step string) bool { return j.last(step) == Started }

func (j *Journal) last(step string) Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Last(j.entries, step)
}

// Last returns the last event of a step in the newest epoch, "" when it has none.
func Last(entries []Entry, step string) Event {
	for i := len(entries) - 1; i >= 0; i-- {
		switch entries[i].Step {
		case step:
			return entries[i].Event
		case stepEpoch:
			return ""
		}
	}
	return ""
}

// Skipped is how many lines of the journal could not be read.
func (j *Journal) Skipped() int { return j.skipped }

// Close ends the journal.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
