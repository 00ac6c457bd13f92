package directory

import (
	"fmt"

	"github.com/mustermetal/muster/pkg/election"
)

// Right is the permission to make a directory where there is none. The zero
// Right permits nothing; RightOfGo is the only one that makes another.
type Right struct {
	specID string
	epoch  uint64
	caHash string
}

// RightOfGo gives the right that comes from GO: the elector's durable state says
// that this very instance was decided to build the first control plane, and the
// cluster is not sealed yet. After that the other members hold the directory,
// and a new one beside theirs would be a false one. The error wraps ErrRefused.
func RightOfGo(state election.State, specID string) (Right, error) {
	if state.SpecID != specID {
		return Right{}, fmt.Errorf("%w: the election state on this server belongs to spec.id %q, the cluster file says %q; reinstall this server if it shall change clusters",
			ErrRefused, state.SpecID, specID)
	}
	if !state.HoldsGo() {
		return Right{}, fmt.Errorf("%w: this instance (%s) does not hold GO; only the server that was decided to build the first control plane makes the directory, the others join it",
			ErrRefused, state.Inst)
	}
	if state.IsSealed() {
		return Right{}, fmt.Errorf("%w: the cluster is sealed (CA %s), so GO gives no right any more; the directory must be joined at another control plane",
			ErrRefused, state.Sealed.CAHash)
	}
	leader, epoch, _ := state.Leader()
	return Right{specID: specID, epoch: epoch, caHash: leader.CAHash}, nil
}

// permits says why the right does not cover a directory, or nil.
func (r Right) permits(want decree) error {
	switch {
	case r.specID == "" || r.caHash == "":
		return fmt.Errorf("%w: the right to make it is empty", ErrRefused)
	case r.epoch != want.epoch || r.caHash != want.caHash:
		return fmt.Errorf("%w: GO is for epoch %d and cluster CA %s, asked for is epoch %d and cluster CA %s",
			ErrRefused, r.epoch, r.caHash, want.epoch, want.caHash)
	case want.generation != 0:
		return fmt.Errorf("%w: GO permits generation 0 only, asked for is generation %d", ErrRefused, want.generation)
	}
	return nil
}
