package election

import (
	"cmp"
	"fmt"
	"slices"
)

// StateFile is one of the two files in which the state is kept, as read. Write
// n goes to file n%2, so that the newest state is never the one being replaced.
type StateFile struct {
	Path  string
	There bool
	State State
	Err   error // why what is there is no state
}

// StateFileOf says to which of the two files a write goes.
func StateFileOf(seq uint64) int { return int(seq % 2) }

// ReadStateFile judges what a file holds.
func ReadStateFile(path string, data []byte) StateFile {
	s, err := DecodeState(data)
	return StateFile{Path: path, There: true, State: s, Err: err}
}

// Newest finds the newest state, or says why there is none to trust; neither
// means that none was ever written. Writes alternate between the files, so whole
// memory is one file with the first write or two with neighbouring numbers. An
// older state is never used in place of a damaged newer one: it may lack a
// promise that was given.
func Newest(files [2]StateFile) (*State, string) {
	for _, x := range files {
		if x.There && x.Err != nil {
			return nil, fmt.Sprintf("%s: %v", x.Path, x.Err)
		}
	}
	a, b := files[0], files[1]
	switch {
	case !a.There && !b.There:
		return nil, ""
	case a.There != b.There:
		one, other := a, b
		if b.There {
			one, other = b, a
		}
		if one.State.Seq != 1 {
			return nil, fmt.Sprintf("%s holds write %d, but %s is missing, which may have held the newest", one.Path, one.State.Seq, other.Path)
		}
		return &one.State, ""
	case a.State.Seq+1 != b.State.Seq && b.State.Seq+1 != a.State.Seq:
		return nil, fmt.Sprintf("%s holds write %d and %s write %d, expected neighbours: one of them was put back from a copy",
			a.Path, a.State.Seq, b.Path, b.State.Seq)
	case a.State.Inst != b.State.Inst:
		return nil, fmt.Sprintf("%s is of instance %s, %s of %s", a.Path, a.State.Inst, b.Path, b.State.Inst)
	case a.State.Seq > b.State.Seq:
		return &a.State, ""
	}
	return &b.State, ""
}

// RemovalOrder sorts the files for the removal of a former life: the older one
// first and a damaged one last, so that what is left when a crash comes between
// never passes for whole memory.
func RemovalOrder(files [2]StateFile) []StateFile {
	order := files[:]
	slices.SortStableFunc(order, func(x, y StateFile) int {
		if (x.Err == nil) != (y.Err == nil) {
			if x.Err == nil {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.State.Seq, y.State.Seq)
	})
	return order
}
