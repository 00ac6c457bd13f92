package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig/machine"
)

// Exec runs a program inside the server as root and returns what it prints.
func (s *Server) Exec(ctx context.Context, argv ...string) (string, error) {
	init, err := s.pid1()
	if err != nil {
		return "", err
	}
	line := machine.Enter(init, argv)
	return machine.Capture(ctx, exec.CommandContext(ctx, line[0], line[1:]...), append([]string{s.Name + ":"}, argv...))
}

// All returns what the server's agent answers to `bootstrap status`: every server
// that it knows of.
func (s *Server) All(ctx context.Context) ([]member.Status, error) {
	var list struct {
		Servers []member.Status `json:"servers"`
	}
	err := s.ask(ctx, "/v1/servers", &list)
	return list.Servers, err
}

// Peers returns what the server's agent answers to `bootstrap peers`.
func (s *Server) Peers(ctx context.Context) (found member.Discovery, err error) {
	err = s.ask(ctx, "/v1/peers", &found)
	return found, err
}

// ask reads a document from the agent's socket.
func (s *Server) ask(ctx context.Context, path string, into any) error {
	init, err := s.pid1()
	if err != nil {
		return err
	}
	// The socket through the eyes of PID 1: no program has to be started.
	socket := fmt.Sprintf("/proc/%d/root%s", init.PID, layout.Socket)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the agent of %s: %w", s.Name, err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", s.Name, err)
	}
	return nil
}

// Status is what the server's agent says of itself.
func (s *Server) Status(ctx context.Context) (member.Status, error) {
	all, err := s.All(ctx)
	if err != nil {
		return member.Status{}, err
	}
	for _, one := range all {
		// A former life of this server may be listed too, from the directory: without
		// the time at which it answered.
		if one.Address == s.Address && !one.Time.IsZero() || len(all) == 1 {
			return one, nil
		}
	}
	return member.Status{}, fmt.Errorf("%s does not list itself", s.Name)
}

// ReadFile reads a file of a server that is on.
func (s *Server) ReadFile(path string) ([]byte, error) {
	init, err := s.pid1()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(fmt.Sprintf("/proc/%d/root%s", init.PID, path))
}

// Signal sends a signal to every process of a unit. A unit that does not run has
// none, which is no error.
func (s *Server) Signal(unit string, sig syscall.Signal) error {
	pids, err := s.processes(unit)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("%v to %s of %s: %w", sig, unit, s.Name, err)
		}
	}
	return nil
}

// processes are those of a unit, as this host numbers them.
func (s *Server) processes(unit string) ([]int, error) {
	var pids []int
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + machine.CgroupParent + "/" + s.machine())
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		err := filepath.WalkDir(group, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went meanwhile
			}
			if err != nil || !e.IsDir() || e.Name() != unit {
				return err
			}
			b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil //nolint:nilerr // it went meanwhile
			}
			for _, field := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return err
				}
				pids = append(pids, pid)
			}
			return fs.SkipDir
		})
		if err != nil {
			return nil, fmt.Errorf("looking for the processes of %s: %w", unit, err)
		}
		if len(pids) > 0 {
			return pids, nil // the same in every hierarchy
		}
	}
	return nil, nil
}

// Journal returns what the server logged in all its boots, with the time in
// microseconds, in the words of journalctl -o json.
func (s *Server) Journal(ctx context.Context, args ...string) (string, error) {
	return machine.Output(ctx, append([]string{"journalctl", "--no-pager", "--quiet", "--directory=" + s.path("journal")}, args...)...)
}

// CollectLogs saves into dir the journal and the console of every server, and the
// ledger.
func (l *Lab) CollectLogs(ctx context.Context, dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return fmt.Errorf("saving logs: %w", err)
	}
	var errs []error
	save := func(name string, b []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, s := range l.servers() {
		out, err := s.Journal(ctx, "--output=short-precise")
		save(s.Name+".journal", []byte(out), err)
		b, err := os.ReadFile(s.path("console"))
		save(s.Name+".console", b, err)
	}
	b, err := os.ReadFile(l.path("shared", "ledger"))
	save("ledger", b, err)
	return errors.Join(errs...)
}

// WaitRunning waits until every unit of the boot has started.
func (s *Server) WaitRunning(ctx context.Context) error {
	var last error
	err := machine.Poll(ctx, s.Name+" is up", func() bool {
		_, last = s.Exec(ctx, "systemctl", "is-system-running", "--quiet")
		return last == nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// Started is when the first process of a unit that is still alive was started, to
// 10 ms.
func (s *Server) Started(unit string) (time.Time, error) {
	pids, err := s.processes(unit)
	if err != nil {
		return time.Time{}, err
	}
	if len(pids) == 0 {
		return time.Time{}, fmt.Errorf("%s of %s does not run", unit, s.Name)
	}
	p, err := machine.Identify(slices.Min(pids))
	if err != nil {
		return time.Time{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, err
	}
	// Field 22 of /proc/PID/stat counts hundredths of a second since the boot.
	const tick = 10 * time.Millisecond
	return time.Now().Add(time.Duration(p.Start)*tick - time.Duration(now.Nano())), nil
}
