package durable

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mustermetal/muster/pkg/election"
)

// framed puts before a body the first line of a state that belongs to it, so that
// the fuzzer gets behind the sum.
func framed(t testing.TB, body []byte) []byte {
	t.Helper()
	sample, err := election.EncodeState(state(1))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(sample), " crc32c=")
	return fmt.Appendf(nil, "%s crc32c=%08x bytes=%d\n%s", head, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)), len(body), body)
}

// memory is a directory where a sync costs nothing, if the machine has one.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "muster-judge-") //nolint:usetesting // t.TempDir may lie on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FuzzJudge gives the store two slots of any content. Nothing panics, and what it
// takes for its memory is the newest of what was there, with no slot in doubt.
func FuzzJudge(f *testing.F) {
	encode := func(seq uint64, change func([]byte) []byte) []byte {
		data, err := election.EncodeState(state(seq))
		if err != nil {
			f.Fatal(err)
		}
		return change(data)
	}
	whole := func(b []byte) []byte { return b }
	body := func(b []byte) []byte { _, rest, _ := bytes.Cut(b, []byte("\n")); return rest }
	seq := regexp.MustCompile(`"seq":\d+`)
	f.Add(encode(4, whole), encode(5, whole), false, true, true)
	f.Add(encode(6, whole), encode(5, whole), false, true, true)
	f.Add(encode(4, whole), encode(5, func(b []byte) []byte { return b[:len(b)-1] }), false, true, true)
	f.Add(encode(4, whole), encode(9, whole), false, true, true)
	f.Add(encode(4, whole), []byte(nil), false, true, true)
	f.Add(encode(4, whole), []byte(nil), false, true, false)
	f.Add([]byte(nil), encode(1, whole), false, false, true)
	f.Add(encode(2, body), encode(3, body), true, true, true)
	f.Add(encode(4, body), seq.ReplaceAll(encode(3, body), []byte(`"seq":18446744073709551615`)), true, true, true)
	f.Add(bytes.Replace(encode(2, body), []byte(`"inst":"inst"`), []byte(`"inst":"other"`), 1), encode(3, body), true, true, true)

	f.Fuzz(func(t *testing.T, a, b []byte, sum, aThere, bThere bool) {
		dir := memory(t)
		var states []election.State
		doubt, seen := false, 0
		for i, data := range [][]byte{a, b} {
			if !([]bool{aThere, bThere}[i]) {
				continue
			}
			if sum {
				data = framed(t, data)
			}
			if err := os.WriteFile(filepath.Join(dir, slotNames[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
			seen++
			if s, err := election.DecodeState(data); err != nil {
				doubt = true
			} else {
				states = append(states, s)
			}
		}
		s, err := Open(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		switch found.Origin {
		case Fresh:
			if seen > 0 || found.State != nil {
				t.Errorf("%d slots are there: %+v", seen, found)
			}
		case Damaged:
			if seen == 0 || found.State != nil || found.Text == "" {
				t.Errorf("%d slots are there: %+v", seen, found)
			}
		case Loaded:
			if doubt {
				t.Errorf("a damaged slot is there, and write %d is used", found.State.Seq)
			}
			for _, x := range states {
				if x.Seq > found.State.Seq || x.Inst != found.State.Inst || found.State.Seq > x.Seq+1 {
					t.Errorf("write %d of %s is there, and write %d of %s is used", x.Seq, x.Inst, found.State.Seq, found.State.Inst)
				}
			}
			if len(states) == 1 && found.State.Seq != 1 {
				t.Errorf("a slot is missing, and write %d is used", found.State.Seq)
			}
			again, err := Read(dir)
			if diff := cmp.Diff(found, again, addresses); err != nil || diff != "" {
				t.Errorf("another process reads something else: %v %s", err, diff)
			}
		default:
			t.Errorf("%+v", found)
		}
		// However it was, a new life can begin here, and nothing of the old is left.
		if err := s.Discard(); err != nil {
			t.Fatal(err)
		}
		if found, err := s.Load(); err != nil || found.Origin != Fresh {
			t.Errorf("after the state was discarded: %+v, %v", found, err)
		}
	})
}

// addresses compares netip.Addr by ==.
var addresses = cmpopts.EquateComparable(netip.Addr{})
