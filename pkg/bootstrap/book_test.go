package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// book is the directory of the world, the same on every control plane, and what
// Kubernetes keeps of it. One generation lives at a time.
type book struct {
	generation uint64
	epoch      uint64
	lost       bool     // all copies of it are
	made       []string // the ledger: which generation was made again, by whom

	lease   plan.Lease
	version int // of the Lease; 0: there is none
	mirror  map[string]member.Record

	spec       *member.Spec // of the directory
	configMaps map[string]versioned
}

// loseDirectory damages all copies.
func (w *world) loseDirectory() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.book.lost = true
	w.rows, w.bound, w.holder, w.book.spec = nil, map[string]string{}, "", nil
}

// fakeDirectory is one server's view of the book.
type fakeDirectory struct{ s *testServer }

func (f fakeDirectory) Generation(uint64) (uint64, error) {
	f.s.world.mu.Lock()
	defer f.s.world.mu.Unlock()
	return f.s.generation, nil
}

func (f fakeDirectory) Stop(context.Context) error {
	f.s.world.mu.Lock()
	defer f.s.world.mu.Unlock()
	f.s.directoryDown.Store(true)
	return nil
}

func (f fakeDirectory) Start(ctx context.Context, run DirectoryRun) error {
	if err := sleep(ctx, 100*time.Millisecond); err != nil {
		return err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	f.s.directoryPeers, f.s.generation = run.Peers, run.Generation
	if run.Epoch > w.book.epoch && f.s.state.HoldsGo() {
		w.book.epoch, w.book.generation = run.Epoch, 0
	}
	if run.Make && (w.book.lease.Generation != run.Generation || !w.book.lease.Mine(f.s.inst)) {
		w.t.Errorf("%s makes generation %d without the Lease", f.s.name, run.Generation)
	}
	if run.Make && run.Generation != w.book.generation {
		w.book.generation, w.book.lost = run.Generation, false
		w.book.made = append(w.book.made, fmt.Sprintf("%d by %s", run.Generation, f.s.name))
		for _, r := range plan.Refill(slices.Collect(maps.Values(w.book.mirror)), nil) {
			if r.Removed {
				continue
			}
			w.rows = append(w.rows, member.Member{Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, Role: r.Role, Phase: member.Ready, Epoch: run.Epoch})
			w.bound[r.Inst] = r.Key
		}
	}
	if f.s.directoryFails {
		return errors.New("muster-directory.service ended with 78")
	}
	if len(run.Peers) == 0 && !f.s.state.HoldsGo() && !run.Make && f.s.generation != w.book.generation {
		return errors.New("no right to make a directory")
	}
	return f.answers()
}

// answers says why the directory of this server does not answer; the world is
// locked.
func (f fakeDirectory) answers() error {
	b := f.s.world.book
	if b.lost || f.s.generation != b.generation {
		return fmt.Errorf("the directory does not answer: generation %d runs here", f.s.generation)
	}
	return nil
}

// open locks the world for an operation of the directory.
func (f fakeDirectory) open() (w *world, end func(), err error) {
	w = f.s.world
	w.mu.Lock()
	return w, w.mu.Unlock, f.answers()
}

func (f fakeDirectory) BindKey(_ context.Context, inst, _, key string) error {
	w, end, err := f.open()
	defer end()
	if err != nil {
		return err
	}
	if before, ok := w.bound[inst]; ok && before != key {
		return fmt.Errorf("the instance enrolled with another key: %w", agent.ErrRefused)
	}
	w.bound[inst] = key
	return nil
}

func (f fakeDirectory) ClaimRole(_ context.Context, m member.Member, eligible, first bool, k, expect int) (member.Role, error) {
	w, end, err := f.open()
	defer end()
	if err != nil {
		return member.NoRole, err
	}
	w.rows = slices.DeleteFunc(w.rows, func(row member.Member) bool { return row.Epoch < m.Epoch }) // another epoch's directory
	planes := 0
	for _, row := range w.rows {
		if row.Inst == m.Inst {
			return row.Role, nil
		}
		if row.Name == m.Name {
			return member.NoRole, fmt.Errorf("the node name is taken by %s", row.Inst)
		}
		if row.Role == member.ControlPlane {
			planes++
		}
	}
	if planes == 0 && !first {
		return member.NoRole, agent.ErrNotReady
	}
	hardware := map[string]bool{}
	for _, row := range w.rows {
		hardware[row.HW] = !w.approved[row.HW]
	}
	if expect == 0 && !hardware[m.HW] { // it joins a formed cluster, and takes no expected server's place
		w.approved[m.HW] = true
	}
	maps.DeleteFunc(hardware, func(_ string, expected bool) bool { return !expected })
	if expect > 0 && len(hardware) >= expect && !hardware[m.HW] && !w.approved[m.HW] {
		return member.NoRole, fmt.Errorf("%w: expects %d", agent.ErrSurplus, expect)
	}
	m.Role = member.Worker
	if w.book.spec != nil {
		k = w.book.spec.ControlPlanes
	}
	if eligible && planes < k {
		m.Role = member.ControlPlane
	}
	w.rows = append(w.rows, m)
	return m.Role, nil
}

func (f fakeDirectory) Approve(_ context.Context, hw string) error {
	w, end, err := f.open()
	defer end()
	w.approved[hw] = err == nil
	return err
}

func (f fakeDirectory) Remove(_ context.Context, who string, do bool) (member.Removal, error) {
	w, end, err := f.open()
	defer end()
	for i, row := range w.rows {
		if err != nil || row.Name != who && row.Inst != who {
			continue
		}
		out := member.Removal{Role: row.Role, Member: member.Revoked{Inst: row.Inst, HW: row.HW, Name: row.Name, Address: row.Address}}
		if row.Role == member.ControlPlane {
			out.Node, out.Voters = "voter", 2
		}
		if do {
			w.rows, w.removed = slices.Delete(w.rows, i, i+1), row.Inst
			w.graves.expelled = append(w.graves.expelled, row.Inst)
			if w.holder == row.Inst {
				w.holder = ""
			}
			delete(w.book.mirror, row.Inst)
		}
		return out, nil
	}
	return member.Removal{}, errors.Join(err, fmt.Errorf("nobody: %w", agent.ErrRefused))
}

func (f fakeDirectory) Members(context.Context) ([]member.Member, error) {
	w, end, err := f.open()
	defer end()
	return slices.Clone(w.rows), err
}

func (f fakeDirectory) Records(context.Context) ([]member.Record, error) {
	w, end, err := f.open()
	defer end()
	var out []member.Record
	for _, row := range w.rows {
		out = append(out, member.Record{Inst: row.Inst, HW: row.HW, Name: row.Name, Address: row.Address, Role: row.Role, Key: w.bound[row.Inst]})
	}
	for _, inst := range w.graves.expelled {
		out = append(out, member.Record{Inst: inst, Removed: true})
	}
	return out, err
}

func (f fakeDirectory) Restore(_ context.Context, records []member.Record) error {
	w, end, err := f.open()
	defer end()
	for _, r := range records {
		if err == nil && r.Inst != w.removed && !slices.ContainsFunc(w.rows, func(m member.Member) bool { return m.Inst == r.Inst }) {
			w.rows = append(w.rows, member.Member{Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, Role: r.Role, Epoch: w.book.epoch})
			w.bound[r.Inst] = r.Key
		}
	}
	return err
}

func (f fakeDirectory) SetPhase(_ context.Context, inst string, p member.Phase, _ string) error {
	w, end, err := f.open()
	defer end()
	if err != nil {
		return err
	}
	for i, row := range w.rows {
		if row.Inst == inst {
			w.rows[i].Phase = p
			return nil
		}
	}
	return fmt.Errorf("no row: %w", agent.ErrRefused)
}

func (f fakeDirectory) AcquireJoin(_ context.Context, inst string) (agent.JoinTurn, error) {
	w, end, err := f.open()
	defer end()
	if err != nil {
		return agent.JoinTurn{}, err
	}
	if w.holder == "" || w.holder == inst {
		w.holder = inst
		w.token++
		return agent.JoinTurn{Granted: true, Holder: inst, Token: w.token}, nil
	}
	return agent.JoinTurn{Holder: w.holder}, nil
}

func (f fakeDirectory) RenewJoin(_ context.Context, inst string, token int64) error {
	w, end, err := f.open()
	defer end()
	if err == nil && (w.holder != inst || w.token != token) {
		err = errors.New("the turn is not held")
	}
	return err
}

func (f fakeDirectory) ReleaseJoin(_ context.Context, inst string, token int64) error {
	w, end, err := f.open()
	defer end()
	if err != nil {
		return err
	}
	if w.releaseFails || w.holder != inst || w.token != token {
		return errors.New("the turn is not held")
	}
	w.holder = ""
	return nil
}

// fakeAuthority is the Kubernetes API as one control plane reaches it.
type fakeAuthority struct{ s *testServer }

func (f fakeAuthority) Lease(ctx context.Context) (plan.Lease, bool, error) {
	if err := f.s.Healthy(ctx); err != nil {
		return plan.Lease{}, false, err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.book.lease, w.book.version > 0, nil
}

// WriteLease takes as long as a call does, so that two may be on their way at once.
func (f fakeAuthority) WriteLease(ctx context.Context, l plan.Lease) (bool, error) {
	if err := errors.Join(f.s.Healthy(ctx), sleep(ctx, time.Millisecond)); err != nil {
		return false, err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.Version != w.book.lease.Version {
		return false, nil
	}
	w.book.version++
	l.Version = strconv.Itoa(w.book.version)
	w.book.lease = l
	return true, nil
}

func (f fakeAuthority) Mirrored(ctx context.Context) ([]member.Record, error) {
	if err := f.s.Healthy(ctx); err != nil {
		return nil, err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.book.mirror)), nil
}

func (f fakeAuthority) Mirror(ctx context.Context, records []member.Record, gone ...string) error {
	if err := f.s.Healthy(ctx); err != nil {
		return err
	}
	w := f.s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		w.book.mirror[r.Inst] = r
	}
	for _, inst := range gone {
		delete(w.book.mirror, inst)
	}
	return nil
}
