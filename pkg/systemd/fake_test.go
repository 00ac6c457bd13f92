package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/dbus"
)

// fake is a service manager with state: it reads unit files from a directory and
// runs their commands, as far as the suite needs (oneshot units only).
type fake struct {
	dir string

	mu      sync.Mutex
	loaded  map[string]string // text at the last reload
	props   map[string]map[string]any
	running map[string]chan struct{} // jobs under way
	waiters map[string][]chan<- string
	jobs    uint32
	enabled map[string]bool
	reloads int
	lost    bool // connection lost
	deaf    bool // ends of jobs are not signalled
}

func newFake(dir string) *fake {
	return &fake{
		dir: dir, loaded: map[string]string{}, props: map[string]map[string]any{},
		running: map[string]chan struct{}{}, waiters: map[string][]chan<- string{}, enabled: map[string]bool{},
	}
}

func (f *fake) Connected() bool { return !f.lost }
func (f *fake) Close()          {}

func (f *fake) Pin(context.Context, string) func() { return func() {} }

func (f *fake) ReloadContext(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads++
	names, err := filepath.Glob(filepath.Join(f.dir, "*.service"))
	if err != nil {
		return err
	}
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			return err
		}
		f.loaded[filepath.Base(n)] = string(text)
	}
	return nil
}

func (f *fake) EnableUnitFilesContext(_ context.Context, files []string, _, _ bool) (bool, []dbus.EnableUnitFileChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var changes []dbus.EnableUnitFileChange
	for _, n := range files {
		if f.loaded[n] == "" {
			return false, nil, fmt.Errorf("Unit file %s does not exist.", n)
		}
		if !f.enabled[n] {
			changes = append(changes, dbus.EnableUnitFileChange{Type: "symlink", Filename: n})
		}
		f.enabled[n] = true
	}
	return true, changes, nil
}

func (f *fake) ResetFailedUnitContext(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(name, map[string]any{"ActiveState": "inactive", "Result": "success"})
	return nil
}

func (f *fake) set(name string, p map[string]any) {
	if f.props[name] == nil {
		f.props[name] = map[string]any{"ActiveState": "inactive", "Result": "success", "ConditionResult": false, "AssertResult": false}
	}
	for k, v := range p {
		f.props[name][k] = v
	}
}

func (f *fake) GetAllPropertiesContext(_ context.Context, unit string) (map[string]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(unit, map[string]any{"LoadState": "loaded"})
	text := f.loaded[unit]
	if text == "" {
		f.set(unit, map[string]any{"LoadState": "not-found"})
	}
	disk, _ := os.ReadFile(filepath.Join(f.dir, unit))
	f.set(unit, map[string]any{"NeedDaemonReload": text != "" && text != string(disk)})
	p := map[string]any{}
	for k, v := range f.props[unit] {
		p[k] = v
	}
	return p, nil
}

func (f *fake) StopUnitContext(ctx context.Context, name, _ string, done chan<- string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(name, map[string]any{"ActiveState": "inactive"})
	done <- "done"
	return 0, nil
}

func (f *fake) RestartUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error) {
	f.mu.Lock()
	f.set(name, map[string]any{"ActiveState": "inactive"})
	f.mu.Unlock()
	return f.StartUnitContext(ctx, name, mode, done)
}

func (f *fake) StartUnitContext(ctx context.Context, name, _ string, done chan<- string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := f.loaded[name]
	if text == "" {
		return 0, errors.New("Unit " + name + " not found.")
	}
	if f.props[name]["ActiveState"] == "active" {
		done <- "done"
		return 0, nil
	}
	if !f.deaf {
		f.waiters[name] = append(f.waiters[name], done)
	}
	if f.running[name] == nil {
		f.jobs++
		f.running[name] = make(chan struct{})
		f.set(name, map[string]any{"Job": []any{f.jobs, "/job"}, "ActiveState": "activating"})
		go f.run(name, text, f.jobs)
	}
	return int(f.props[name]["Job"].([]any)[0].(uint32)), nil
}

func (f *fake) run(name, text string, job uint32) {
	result, p := execute(text)
	f.mu.Lock()
	defer f.mu.Unlock()
	p["Job"] = []any{uint32(0), "/"}
	f.set(name, p)
	for _, w := range f.waiters[name] {
		w <- result
	}
	f.waiters[name] = nil
	close(f.running[name])
	f.running[name] = nil
}

// execute runs the commands of a unit and returns the job's result and the
// properties that follow, in the way systemd 252 was seen to set them.
func execute(text string) (string, map[string]any) {
	p := map[string]any{
		"ActiveState": "inactive", "SubState": "dead", "Result": "success", "ExecMainStatus": int32(0),
		"ConditionResult": true, "AssertResult": true, "ConditionTimestamp": uint64(1), "ExecCondition": [][]any{}, "ExecStartPre": [][]any{},
	}
	remain := strings.Contains(text, "RemainAfterExit=yes")
	scan := bufio.NewScanner(strings.NewReader(text))
	for scan.Scan() {
		key, value, _ := strings.Cut(scan.Text(), "=")
		switch key {
		case "ConditionPathExists", "AssertPathExists":
			if _, err := os.Stat(value); err != nil {
				if key[0] == 'A' {
					p["AssertResult"] = false
					return "assert", p
				}
				p["ConditionResult"] = false
				return "done", p
			}
		case "ExecCondition", "ExecStartPre", "ExecStart":
			status := shell(value)
			path, _, _ := strings.Cut(value, " ")
			if key != "ExecStart" {
				p[key] = [][]any{{path, []string{path}, false, uint64(0), uint64(0), uint64(0), uint64(0), uint32(1), int32(1), int32(status)}}
			} else {
				p["ExecMainStatus"] = int32(status)
			}
			switch {
			case status == 0:
			case key == "ExecCondition":
				p["Result"] = "exec-condition"
				return "done", p
			default:
				p["Result"], p["ActiveState"], p["SubState"] = "exit-code", "failed", "failed"
				return "failed", p
			}
		}
	}
	if remain {
		p["ActiveState"], p["SubState"] = "active", "exited"
	}
	return "done", p
}

func shell(line string) int {
	err := exec.Command("/bin/sh", "-c", line).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
