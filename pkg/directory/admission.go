package directory

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// admittedFile is the list of the control planes' instances as last read, so
// that nodes let each other in when all start at once and nobody leads yet.
const admittedFile = "control-planes.json"

// admission lets only control planes connect to the database. Every server's
// leaf comes from the agent CA, but whoever speaks to dqlite reads and writes all
// rows: a worker could make itself a control plane.
type admission struct {
	self string // this instance, whose driver dials its own node
	peer func(tls.ConnectionState) (inst string, err error)
	file string

	mu    sync.Mutex
	known []string              // sorted
	ask   func() ([]row, error) // set when the node is ready
	warn  func(text string, err error)
}

// newAdmission starts with what the file says; none is an empty list.
func newAdmission(c Config) (*admission, error) {
	a := &admission{self: c.Inst, peer: c.PeerInst, file: filepath.Join(c.Dir, admittedFile)}
	a.warn = func(text string, err error) { c.Log.Warn(text, "error", err) }
	data, err := os.ReadFile(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &a.known)
	}
	if err != nil {
		return nil, fmt.Errorf("read the control planes that may connect: %w", err)
	}
	return a, nil
}

// guard returns listen with the check added after its own.
func (a *admission) guard(listen *tls.Config) *tls.Config {
	guarded := listen.Clone()
	before := listen.VerifyConnection
	guarded.VerifyConnection = func(cs tls.ConnectionState) error {
		if before != nil {
			if err := before(cs); err != nil {
				return err
			}
		}
		return a.check(cs)
	}
	return guarded
}

func (a *admission) check(cs tls.ConnectionState) error {
	inst, err := a.peer(cs)
	if err != nil {
		return err
	}
	a.mu.Lock()
	ask, ok := a.ask, a.allows(inst)
	a.mu.Unlock()
	if ok {
		return nil
	}
	if ask != nil {
		rows, err := ask() // it may have got its role a moment ago
		if err != nil {
			return fmt.Errorf("instance %s is not known here as a control plane: %w", inst, err)
		}
		a.learn(rows)
		a.mu.Lock()
		ok = a.allows(inst)
		a.mu.Unlock()
	}
	if !ok {
		return fmt.Errorf("instance %s is no control plane; only those connect to the directory", inst)
	}
	return nil
}

func (a *admission) allows(inst string) bool {
	_, found := slices.BinarySearch(a.known, inst)
	return found || inst == a.self
}

// learn takes the control planes from rows that were just read.
func (a *admission) learn(rows []row) {
	known := controlPlanes(rows)
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(known, a.known) {
		return
	}
	a.known = known
	if err := writeAdmitted(a.file, known); err != nil {
		a.warn("the list of control planes is not on disk; it matters only if all of them start at once", err)
	}
}

// open lets admission ask the database, whose connection ends with ctx.
func (a *admission) open(ctx context.Context, s *store) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ask = func() ([]row, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var rows []row
		err := retry(ctx, "read the control planes", func(ctx context.Context) (err error) {
			rows, err = s.rows(ctx)
			return err
		})
		return rows, err
	}
}

func controlPlanes(rows []row) []string {
	known := []string{}
	for _, r := range rows {
		if r.Role == member.ControlPlane {
			known = append(known, r.Inst)
		}
	}
	slices.Sort(known)
	return known
}

func writeAdmitted(path string, known []string) error {
	data, err := json.Marshal(known)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'))
}
