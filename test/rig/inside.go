package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/mustermetal/muster/test/rig/machine"
)

// errOff says that a server has no PID 1 (now).
var errOff = errors.New("the server is off")

// leader is the server's PID 1 as this machine sees it.
func (s *Server) leader() (machine.Process, error) {
	if supervisor := s.supervisor(); supervisor.Alive() {
		for _, nspawn := range machine.Children(supervisor.PID) {
			if leader, ok := machine.InitOf(nspawn); ok {
				return leader, nil
			}
		}
	}
	return machine.Process{}, fmt.Errorf("%s: %w", s.Name, errOff)
}

// Command returns the command line of this machine that runs argv inside the
// server as root, with env added to the environment.
func (s *Server) Command(argv []string, env ...string) ([]string, error) {
	leader, err := s.leader()
	if err != nil {
		return nil, err
	}
	return machine.Enter(leader, argv, env...), nil
}

// Exec runs a program inside the server as root and returns what it prints.
func (s *Server) Exec(ctx context.Context, argv ...string) (string, error) {
	return s.exec(ctx, nil, argv)
}

func (s *Server) exec(ctx context.Context, stdin []byte, argv []string) (string, error) {
	line, err := s.Command(argv)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	return machine.Capture(ctx, cmd, append([]string{s.Name + ":"}, argv...))
}

// ReadFile reads a file of a server that is on.
func (s *Server) ReadFile(ctx context.Context, path string) ([]byte, error) {
	out, err := s.Exec(ctx, "cat", "--", path)
	return []byte(out), err
}

// WriteFile writes a file of a server that is on, with its directories.
func (s *Server) WriteFile(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	const script = `mkdir -p "$(dirname "$1")" && umask 077 && cat > "$1" && chmod "$2" "$1"`
	if data == nil {
		data = []byte{}
	}
	_, err := s.exec(ctx, data, []string{"sh", "-c", script, "sh", path, fmt.Sprintf("%o", mode.Perm())})
	return err
}

// Journal returns what a unit said, over all boots, each line with its time.
func (s *Server) Journal(ctx context.Context, unit string) (string, error) {
	return s.Exec(ctx, "journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--unit="+unit)
}

// WaitRunning waits until every unit of the boot has started, cloud-init's too.
func (s *Server) WaitRunning(ctx context.Context) error {
	out, err := s.Exec(ctx, "systemctl", "is-system-running", "--wait")
	switch strings.TrimSpace(out) {
	case "running":
		return nil
	case "degraded":
		failed, _ := s.Exec(ctx, "systemctl", "--failed", "--plain", "--no-legend")
		return fmt.Errorf("%s has failed units: %s", s.Name, strings.TrimSpace(failed))
	}
	return fmt.Errorf("%s does not become running: %q: %w", s.Name, strings.TrimSpace(out), err)
}

// waitSystemd waits until PID 1 takes orders.
func (s *Server) waitSystemd(ctx context.Context) error {
	err := machine.Poll(ctx, s.Name+"'s systemd answers", func() bool {
		if !s.Running() {
			return true
		}
		out, _ := s.Exec(ctx, "systemctl", "is-system-running") // fails until running
		switch strings.TrimSpace(out) {
		case "starting", "running", "degraded", "maintenance":
			return true
		}
		return false
	})
	if err == nil && !s.Running() {
		err = errOff
	}
	if err != nil {
		return fmt.Errorf("booting %s: %w; its console ends with %q", s.Name, err, s.lastWords())
	}
	return nil
}

// Shell runs argv, or a login shell, inside the server on this process's terminal,
// whose type is term, and returns when it ends.
func (s *Server) Shell(ctx context.Context, term string, argv ...string) error {
	if len(argv) == 0 {
		argv = []string{"bash", "--login"}
	}
	line, err := s.Command(argv, "TERM="+term)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}
