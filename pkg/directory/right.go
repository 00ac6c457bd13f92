package directory

import (
	"fmt"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/plan"
)

// Right is the permission to make a directory where there is none. The zero
// Right permits nothing; RightOfGo and RightOfLease make another.
type Right struct {
	specID     string
	epoch      uint64
	generation uint64
	caHash     string
	lease      bool // of the Lease, else of GO
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

// RightOfLease gives the right that comes from the Lease: Kubernetes, the authority
// once the cluster is sealed, says that this very instance may make a generation
// that was not made yet. Only one instance wins a generation, and its right ends
// with the first renewal, which says that the directory answers. The error wraps
// ErrRefused.
func RightOfLease(state election.State, specID string, l plan.Lease) (Right, error) {
	switch {
	case state.SpecID != specID:
		return Right{}, fmt.Errorf("%w: the election state on this server belongs to spec.id %q, the cluster file says %q; reinstall this server if it shall change clusters",
			ErrRefused, state.SpecID, specID)
	case !state.IsSealed():
		return Right{}, fmt.Errorf("%w: the cluster is not sealed as far as this server knows, so only GO permits to make the directory", ErrRefused)
	case l.CAHash != state.Sealed.CAHash || l.Epoch != state.Sealed.Epoch:
		return Right{}, fmt.Errorf("%w: the Lease is for epoch %d and cluster CA %s, the cluster was sealed with epoch %d and CA %s",
			ErrRefused, l.Epoch, l.CAHash, state.Sealed.Epoch, state.Sealed.CAHash)
	case l.Generation == 0 || !l.Mine(state.Inst):
		return Right{}, fmt.Errorf("%w: the Lease gives generation %d to instance %s (%d renewals), this is %s; only the one that won a generation makes it, and only once",
			ErrRefused, l.Generation, l.Holder, l.Beat, state.Inst)
	}
	return Right{specID: specID, epoch: l.Epoch, generation: l.Generation, caHash: l.CAHash, lease: true}, nil
}

// permits says why the right does not cover a directory, or nil.
func (r Right) permits(want decree) error {
	switch {
	case r.specID == "" || r.caHash == "":
		return fmt.Errorf("%w: the right to make it is empty", ErrRefused)
	case !r.lease && (r.epoch != want.epoch || r.caHash != want.caHash):
		return fmt.Errorf("%w: GO is for epoch %d and cluster CA %s, asked for is epoch %d and cluster CA %s",
			ErrRefused, r.epoch, r.caHash, want.epoch, want.caHash)
	case !r.lease && want.generation != 0:
		return fmt.Errorf("%w: GO permits generation 0 only, asked for is generation %d", ErrRefused, want.generation)
	case r.lease && (decree{r.epoch, r.generation, r.caHash}) != want:
		return fmt.Errorf("%w: the Lease is for epoch %d, generation %d and cluster CA %s, asked for is epoch %d, generation %d and cluster CA %s",
			ErrRefused, r.epoch, r.generation, r.caHash, want.epoch, want.generation, want.caHash)
	}
	return nil
}
