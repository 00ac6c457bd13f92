package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/election"
)

func state(seq uint64) election.State {
	return election.State{
		Seq: seq, SpecID: "spec", Config: "config", N: 3, Inst: "inst", Round: seq,
		Hardware: election.Hardware{HW: "hw"},
		Slots:    []election.Slot{{Promised: election.Ballot{Round: seq, Inst: "inst"}}},
	}
}

// written returns a store's directory after some writes.
func written(t *testing.T, writes uint64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "elect")
	s, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prove(); err != nil {
		t.Fatal(err)
	}
	for seq := range writes {
		if err := s.Save(state(seq + 1)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, dir string) (*Store, Found) {
	t.Helper()
	s, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s, found
}

func TestSaveAndLoad(t *testing.T) {
	for writes := range uint64(6) {
		_, found := load(t, written(t, writes))
		if writes == 0 {
			if found.Origin != Fresh || found.State != nil {
				t.Errorf("nothing written: %+v, expected fresh", found)
			}
			continue
		}
		want := state(writes)
		if diff := cmp.Diff(Found{Origin: Loaded, State: &want}, found, addresses); diff != "" {
			t.Errorf("after %d writes: %s", writes, diff)
		}
	}
}

func TestPermissions(t *testing.T) {
	dir := written(t, 2)
	for path, want := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, dir + "/state.a": 0o600, dir + "/state.b": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %s, expected %s", path, info.Mode(), want)
		}
	}
}

// TestDamage: whatever happens to a slot, the older one never takes its place.
func TestDamage(t *testing.T) {
	edit := func(name string, change func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// After five writes, state.b holds the fifth and state.a the fourth.
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string
	}{
		{"newest empty", edit("state.b", func([]byte) []byte { return nil }), "state.b: the state is cut off in its first line (0 bytes)"},
		{"newest torn", edit("state.b", func(b []byte) []byte { return b[:len(b)-20] }), "torn or damaged"},
		{"newest zeroed", edit("state.b", func(b []byte) []byte { return make([]byte, len(b)) }), "cut off in its first line"},
		{"newest with a flipped bit", edit("state.b", func(b []byte) []byte { b[len(b)-9] ^= 1; return b }), "CRC32C"},
		{"older with a flipped bit", edit("state.a", func(b []byte) []byte { b[len(b)-9] ^= 1; return b }), "state.a: the state's CRC32C"},
		{"newest of a later version", edit("state.b", func(b []byte) []byte { return []byte(strings.Replace(string(b), "v2", "v3", 1)) }), "written by another version"},
		{"newest gone", remove("state.b"), "state.a holds write 4, but"},
		{"older gone", remove("state.a"), "which may have held the newest"},
		{"older put in place of the newest", func(t *testing.T, dir string) {
			if err := os.Rename(dir+"/state.a", dir+"/state.b"); err != nil {
				t.Fatal(err)
			}
		}, "state.b holds write 4, but"},
		{"newest put back from a copy", func(t *testing.T, dir string) {
			old, err := os.ReadFile(filepath.Join(written(t, 1), "state.b"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/state.b", old, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "expected neighbours: one of them was put back from a copy"},
		{"longer than any state", edit("state.b", func([]byte) []byte { return make([]byte, election.MaxStateSize+100) }), "expected at most 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := written(t, 5)
			c.damage(t, dir)
			s, found := load(t, dir)
			if found.Origin != Damaged || found.State != nil || !strings.Contains(found.Text, c.want) ||
				!strings.HasSuffix(found.Text, "this server counts as wiped and takes part as a new instance") {
				t.Fatalf("found %s: %q, expected damaged with %q", found.Origin, found.Text, c.want)
			}
			if err := s.Discard(); err != nil {
				t.Fatal(err)
			}
			if err := s.Save(state(1)); err != nil {
				t.Fatal(err)
			}
			if _, found := load(t, dir); found.Origin != Loaded || found.State.Seq != 1 {
				t.Errorf("after a new life began: %+v", found)
			}
		})
	}
}

// TestDiscardInterrupted: a crash between the removals never leaves memory that
// passes for whole.
func TestDiscardInterrupted(t *testing.T) {
	for _, writes := range []uint64{1, 2, 3, 4} {
		for _, damaged := range []string{"", "state.a", "state.b"} {
			dir := written(t, writes)
			if damaged != "" {
				if err := os.WriteFile(filepath.Join(dir, damaged), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			// Find the slot that goes first by letting the removal run on a copy.
			first := firstRemoved(t, dir)
			if len(before) < 2 {
				continue
			}
			if err := os.Remove(filepath.Join(dir, first)); err != nil {
				t.Fatal(err)
			}
			if _, found := load(t, dir); found.Origin != Damaged {
				t.Errorf("%d writes, %q damaged, %s removed: %s, expected damaged", writes, damaged, first, found.Origin)
			}
		}
	}
}

func firstRemoved(t *testing.T, dir string) string {
	t.Helper()
	s := &Store{dir: dir}
	slots, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(election.RemovalOrder(slots)[0].Path)
}

func TestSaveOutOfOrder(t *testing.T) {
	s, found := load(t, written(t, 3))
	if found.State.Seq != 3 {
		t.Fatalf("loaded write %d", found.State.Seq)
	}
	for _, seq := range []uint64{1, 3, 5} {
		if err := s.Save(state(seq)); err == nil || !strings.Contains(err.Error(), "does not follow write 3") {
			t.Errorf("Save(%d) after 3: %v", seq, err)
		}
	}
	if err := s.Save(state(4)); err != nil {
		t.Error(err)
	}
}

func TestUnfinishedWriteIsRemoved(t *testing.T) {
	dir := written(t, 2)
	torn := filepath.Join(dir, temporaryPrefix+"state.b-123")
	if err := os.WriteFile(torn, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	store, found := load(t, dir)
	if found.Origin != Loaded {
		t.Errorf("found %+v", found)
	}
	if err := store.Prove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(torn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished write is still there: %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, content := range []string{"first", "second, longer", ""} {
		if err := WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v, expected %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v, expected 0644 whatever the umask is", info.Mode(), err)
	}
	if err := WriteFile(filepath.Join(dir, "missing", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile into a missing directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("WriteFile over a directory succeeded")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: expected f and d and no temporary file", entries, err)
	}
}

func clock() time.Time { return time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC) }

func journal(t *testing.T, path, boot string) *Journal {
	t.Helper()
	j, err := OpenJournal(path, boot, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := journal(t, path, "boot1")
	for _, err := range []error{j.Start("init"), j.Fail("init", errors.New("etcd is slow")), j.Start("init"), j.Finish("init"), j.Start("join")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	j = journal(t, path, "boot2")
	for _, c := range []struct {
		step                       string
		done, started, interrupted bool
	}{{"init", true, true, false}, {"join", false, true, true}, {"other", false, false, false}} {
		if j.Done(c.step) != c.done || j.Started(c.step) != c.started || j.Interrupted(c.step) != c.interrupted {
			t.Errorf("%s: done %v, started %v, interrupted %v", c.step, j.Done(c.step), j.Started(c.step), j.Interrupted(c.step))
		}
	}
	if err := j.Start("init"); err != nil {
		t.Fatal(err)
	}
	if j.Done("init") {
		t.Error("a step that began again counts as done")
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-08-01T12:00:00Z","boot":"boot1","step":"init","event":"start"}
{"time":"2026-08-01T12:00:00Z","boot":"boot1","step":"init","event":"failed","detail":"etcd is slow"}
{"time":"2026-08-01T12:00:00Z","boot":"boot1","step":"init","event":"start"}
{"time":"2026-08-01T12:00:00Z","boot":"boot1","step":"init","event":"done"}
{"time":"2026-08-01T12:00:00Z","boot":"boot1","step":"join","event":"start"}
{"time":"2026-08-01T12:00:00Z","boot":"boot2","step":"init","event":"start"}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if entries, err := ReadJournal(path + ".none"); entries != nil || err != nil {
		t.Errorf("no journal: %v, %v", entries, err)
	}
}

// TestJournalTorn cuts the file at every byte, as power loss may.
func TestJournalTorn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j := journal(t, path, "b")
	if err := errors.Join(j.Start("one"), j.Finish("one"), j.Start("two")); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		for _, tail := range []string{"", "\x00\x00\x00", "\x00\x00\n"} {
			torn := filepath.Join(dir, "torn")
			if err := os.WriteFile(torn, append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := strings.Count(string(whole[:cut]), "\n")
			if cut > 0 && cut < len(whole) && whole[cut] == '\n' && strings.HasSuffix(tail, "\n") {
				continue // JSON whole, then rubbish and a newline: not whole as a line, checked below
			}
			j, err := OpenJournal(torn, "b", clock)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(j.Start("three"), j.Close()); err != nil {
				t.Fatal(err)
			}
			entries, err := ReadJournal(torn)
			if err != nil || len(entries) != lines+1 || Last(entries, "three") != Started {
				t.Fatalf("cut at %d with tail %q: %d entries, %v; expected %d", cut, tail, len(entries), err, lines+1)
			}
		}
	}
}

// TestJournalDamagedInside skips what a disk error made of a line, and says so.
func TestJournalDamagedInside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := journal(t, path, "b")
	if err := errors.Join(j.Start("one"), j.Finish("one"), j.Start("two")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	lines[1] = "rubbish\n"
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	j = journal(t, path, "b")
	if j.Skipped() != 1 || j.Done("one") || !j.Interrupted("two") {
		t.Errorf("skipped %d, done %v, interrupted %v; expected 1, false, true", j.Skipped(), j.Done("one"), j.Interrupted("two"))
	}
}

// TestJournalForget: a new life does not know what the former one did.
func TestJournalForget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := journal(t, path, "b").Finish("init"); err != nil {
		t.Fatal(err)
	}
	j := journal(t, path, "b")
	if err := errors.Join(j.Forget(), j.Start("join")); err != nil {
		t.Fatal(err)
	}
	for name, j := range map[string]*Journal{"at once": j, "after a restart": journal(t, path, "b")} {
		if j.Started("init") || !j.Interrupted("join") || j.Skipped() != 0 {
			t.Errorf("%s: init started %v, join %v, %d lines skipped", name, j.Started("init"), j.Interrupted("join"), j.Skipped())
		}
	}
}

// TestJournalConcurrent: lines of several goroutines never mix.
func TestJournalConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := journal(t, path, "b")
	var group errgroup.Group
	for i := range 8 {
		step := fmt.Sprintf("step %d", i)
		group.Go(func() error {
			return errors.Join(j.Start(step), j.Finish(step))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadJournal(path)
	if err != nil || len(entries) != 16 || j.Skipped() != 0 {
		t.Errorf("%d entries, %v; expected 16", len(entries), err)
	}
	for i := range 8 {
		if step := fmt.Sprintf("step %d", i); !j.Done(step) || Last(entries, step) != Done {
			t.Errorf("%s is not done", step)
		}
	}
}

// TestReadWhileWriting: another process never takes writes under way for damage.
func TestReadWhileWriting(t *testing.T) {
	dir := written(t, 1)
	s, _ := load(t, dir)
	done := make(chan error, 1)
	go func() {
		var err error
		for seq := uint64(2); seq < 30 && err == nil; seq++ {
			err = s.Save(state(seq))
		}
		done <- err
	}()
	last := uint64(0)
	for {
		found, err := Read(dir)
		if err != nil || found.Origin != Loaded || found.State.Seq < last {
			t.Fatalf("%+v, %v after write %d", found, err, last)
		}
		last = found.State.Seq
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
