// Package systemd installs units and starts them over D-Bus, and speaks to the
// service manager from inside a unit (sd_notify).
//
// It waits for the result of every job, and a failed start says what the unit
// itself said last. Floor 2.
package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// WriteFile writes a file so that after a power cut either the old or the new
// content is there.
type WriteFile func(path string, data []byte, perm fs.FileMode) error

// bus is what is used of a connection to systemd.
type bus interface {
	StartUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	RestartUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	ReloadContext(ctx context.Context) error
	EnableUnitFilesContext(ctx context.Context, files []string, runtime, force bool) (bool, []dbus.EnableUnitFileChange, error)
	ResetFailedUnitContext(ctx context.Context, name string) error
	GetAllPropertiesContext(ctx context.Context, unit string) (map[string]any, error)
	Pin(ctx context.Context, unit string) (release func())
	Connected() bool
	Close()
}

// Manager is the service manager of this server. It dials again by itself when
// the connection was lost, as it is when D-Bus is restarted by an upgrade.
type Manager struct {
	dir     string // where units are installed
	write   WriteFile
	dial    func(ctx context.Context) (bus, error)
	journal func(ctx context.Context, unit, invocation string) []string

	life context.Context // bounds every connection
	poll time.Duration   // how often a wait asks for its job
	mu   sync.Mutex
	conn bus
}

// Open connects to the service manager. Units will be installed in dir
// (/etc/systemd/system). The connection ends with ctx, which therefore is the
// life of the agent and not the deadline of one call.
func Open(ctx context.Context, dir string, write WriteFile) (*Manager, error) {
	m := &Manager{dir: dir, write: write, life: ctx, poll: lost, dial: dial, journal: readJournal}
	if _, err := m.bus(); err != nil {
		return nil, err
	}
	return m, nil
}

// Close ends the connection.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
}

func (m *Manager) bus() (bus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	c, err := m.dial(m.life)
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd over D-Bus: %w; the agent must run as root on a server whose PID 1 is systemd (systemctl is-system-running)", err)
	}
	m.conn = c
	return c, nil
}

// Install writes the units that differ from what is there (name to content) and
// makes systemd read them again when any did. It says which names changed, in
// order. Running units go on as they are.
func (m *Manager) Install(ctx context.Context, files map[string][]byte) (changed []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(m.dir, name)
		have, err := os.ReadFile(path)
		if err == nil && bytes.Equal(have, files[name]) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, fmt.Errorf("reading the installed unit: %w", err)
		}
		if err := m.write(path, files[name], 0o644); err != nil {
			return changed, fmt.Errorf("installing the unit %s: %w", name, err)
		}
		changed = append(changed, name)
	}
	if len(changed) == 0 {
		// A crash between writing and reloading leaves systemd with old text; it
		// knows that itself.
		stale, err := m.stale(ctx, files)
		if err != nil || !stale {
			return nil, err
		}
	}
	return changed, m.reload(ctx)
}

func (m *Manager) stale(ctx context.Context, files map[string][]byte) (bool, error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		o, err := m.State(ctx, name)
		if err != nil {
			return false, err
		}
		if o.NeedReload || o.LoadState == "not-found" {
			return true, nil
		}
	}
	return false, nil
}

func (m *Manager) reload(ctx context.Context) error {
	c, err := m.bus()
	if err != nil {
		return err
	}
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("making systemd read its units again (daemon-reload): %w", err)
	}
	return nil
}

// Enable makes units start at boot, as their [Install] says. It does nothing
// when they do already.
func (m *Manager) Enable(ctx context.Context, units ...string) error {
	c, err := m.bus()
	if err != nil {
		return err
	}
	_, changes, err := c.EnableUnitFilesContext(ctx, units, false, false)
	if err != nil {
		return fmt.Errorf("enabling %v: %w", units, err)
	}
	if len(changes) == 0 {
		return nil
	}
	return m.reload(ctx)
}

// ErrSkipped is wrapped by Start when the unit did not run because a condition of
// its own did not hold: a Condition…= or its ExecCondition=.
var ErrSkipped = errors.New("skipped by a condition of the unit")

// Start starts a unit and waits until it is up (or, for a oneshot, has ended). A
// start that is under way already is waited for. A failed start is a *Failure: it
// holds the result, the exit status and the last lines that the unit logged. When
// ctx ends first the job goes on: the same call later waits for it again.
func (m *Manager) Start(ctx context.Context, unit string) error {
	return m.run(ctx, "starting", unit, bus.StartUnitContext)
}

// Restart stops a unit when it runs and starts it, with the waiting and the
// errors of Start.
func (m *Manager) Restart(ctx context.Context, unit string) error {
	return m.run(ctx, "restarting", unit, bus.RestartUnitContext)
}

// Stop stops a unit and waits until it is down. A unit that does not run is fine.
func (m *Manager) Stop(ctx context.Context, unit string) error {
	c, err := m.bus()
	if err != nil {
		return err
	}
	result, err := m.wait(ctx, c, unit, bus.StopUnitContext)
	if err != nil {
		return fmt.Errorf("stopping %s: %w", unit, err)
	}
	if result != "done" && result != "" {
		return fmt.Errorf("stopping %s: systemd's job ended as %q, expected \"done\" (systemctl status %s)", unit, result, unit)
	}
	return nil
}

// ResetFailed clears the failed state of a unit, so that status shows only what
// is wrong now. A unit that is not loaded is fine.
func (m *Manager) ResetFailed(ctx context.Context, unit string) error {
	o, err := m.State(ctx, unit)
	if err != nil || o.ActiveState != "failed" {
		return err
	}
	c, err := m.bus()
	if err != nil {
		return err
	}
	if err := c.ResetFailedUnitContext(ctx, unit); err != nil {
		return fmt.Errorf("clearing the failed state of %s: %w", unit, err)
	}
	return nil
}

// State says what systemd knows of a unit. A unit that does not exist has the
// LoadState "not-found" and is no error.
func (m *Manager) State(ctx context.Context, unit string) (Outcome, error) {
	c, err := m.bus()
	if err != nil {
		return Outcome{}, err
	}
	p, err := c.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return Outcome{}, fmt.Errorf("asking systemd for the state of %s: %w", unit, err)
	}
	return outcome(unit, p), nil
}

// Active says whether a unit is up.
func (m *Manager) Active(ctx context.Context, unit string) (bool, error) {
	o, err := m.State(ctx, unit)
	return o.Active(), err
}

// Activating says whether a start of a unit is under way.
func (m *Manager) Activating(ctx context.Context, unit string) (bool, error) {
	o, err := m.State(ctx, unit)
	return o.ActiveState == "activating", err
}

type jobFunc func(b bus, ctx context.Context, name, mode string, done chan<- string) (int, error)

func (m *Manager) run(ctx context.Context, verb, unit string, job jobFunc) error {
	c, err := m.bus()
	if err != nil {
		return err
	}
	defer c.Pin(ctx, unit)()
	result, err := m.wait(ctx, c, unit, job)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	o, err := m.State(ctx, unit)
	if err != nil {
		return err
	}
	o.Job = result
	cause := o.err()
	if cause == nil {
		return nil
	}
	f := &Failure{Outcome: o, verb: verb, cause: cause}
	if !errors.Is(cause, ErrSkipped) {
		f.Journal = m.journal(ctx, unit, o.Invocation)
	}
	return f
}

// lost is how often a wait asks whether its job still exists. The signal that
// ends a job is lost when D-Bus is restarted meanwhile.
const lost = 3 * time.Second

// wait queues a job and returns its result: done, canceled, timeout, failed,
// dependency, skipped, assert; or nothing when it ended unheard.
func (m *Manager) wait(ctx context.Context, c bus, unit string, job jobFunc) (string, error) {
	done := make(chan string, 1) // buffered: the sender holds a lock that every job needs
	id, err := job(c, ctx, unit, "replace", done)
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(m.poll)
	defer tick.Stop()
	for gone := 0; gone < 2; {
		select {
		case result := <-done:
			return result, nil
		case <-ctx.Done():
			return "", fmt.Errorf("systemd's job %d is not finished: %w; it goes on, see systemctl list-jobs and journalctl -u %s", id, context.Cause(ctx), unit)
		case <-tick.C:
			o, err := m.State(ctx, unit)
			if err == nil && o.JobID != uint32(id) {
				gone++ // twice, so that a signal on its way is not overtaken
			}
		}
	}
	return "", nil
}
