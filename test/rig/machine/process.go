package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process names one process for good: a number alone may be another's by now.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// Identify names the process that has a number now.
func Identify(pid int) (Process, error) {
	_, start, err := stat(pid)
	return Process{PID: pid, Start: start}, err
}

// stat reads state and start time of a process, proc(5).
func stat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command name in parentheses may hold anything, so count from its end.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields after the name; expected at least 20", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// Alive says whether the process runs; one that only waits to be reaped does not.
func (p Process) Alive() bool {
	if p.PID == 0 {
		return false
	}
	state, start, err := stat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

func (p Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// Gone waits until the process has ended.
func (p Process) Gone(ctx context.Context) error {
	return Poll(ctx, fmt.Sprintf("process %d ends", p.PID), func() bool { return !p.Alive() })
}

// End asks the process to end, and after five seconds makes it.
func (p Process) End(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if p.Gone(short) == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.Gone(ctx)
}

// Rest is how long to wait after a look that took so long: four times that, so that
// looking takes no more than a fifth of a busy machine, within least and a second.
func Rest(took, least time.Duration) time.Duration {
	return max(least, min(4*took, time.Second))
}

// Poll asks until done, every 20 ms where asking costs little; ctx bounds it. Used where
// the kernel or another program offers nothing to wait on.
func Poll(ctx context.Context, until string, done func() bool) error {
	for {
		began := time.Now()
		if done() {
			return nil
		}
		pause := time.NewTimer(Rest(time.Since(began), 20*time.Millisecond))
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("waiting until %s: %w", until, context.Cause(ctx))
		case <-pause.C:
		}
	}
}

// Spawn starts a program that outlives this one, in a session of its own, with
// its output appended to the file log.
func Spawn(log string, argv ...string) (Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Process{}, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	p, err := Identify(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // reaps it, should this process live longer
	if err != nil {
		return Process{}, fmt.Errorf("%s ended at once, see %s: %w", argv[0], log, err)
	}
	return p, nil
}

// Output runs a program and returns what it prints. The error holds the command
// line and its talk.
func Output(ctx context.Context, argv ...string) (string, error) {
	return OutputOf(ctx, nil, argv...)
}

// OutputOf is Output of a program that reads stdin.
func OutputOf(ctx context.Context, stdin io.Reader, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = stdin
	return Capture(ctx, cmd, argv)
}

// Capture runs a command as Output does; argv is what an error calls it.
func Capture(ctx context.Context, cmd *exec.Cmd, argv []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The group, for nsenter forks; and not for ever, should a grandchild keep the pipe.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	const enough = 2000
	talk := strings.TrimSpace(stderr.String())
	if len(talk) > enough {
		talk = "…" + talk[len(talk)-enough:]
	}
	return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, talk)
}
