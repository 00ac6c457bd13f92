package systemd

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Outcome is what a job came to, and what systemd knows of the unit after it.
// The words are systemd's own (systemd.service(5), org.freedesktop.systemd1(5)).
type Outcome struct {
	Unit        string
	Job         string // done, failed, timeout, canceled, dependency, skipped, assert; empty when none was waited for
	LoadState   string // loaded, not-found, masked, …
	ActiveState string // active, activating, inactive, failed, …
	SubState    string // running, exited, dead, auto-restart, …
	Result      string // success, exit-code, timeout, exec-condition, …
	StatusText  string // what the service said of itself by STATUS=
	NeedReload  bool   // its file differs from what systemd has read
	Condition   bool   // no Condition…= of the last start failed
	Assert      bool   // no Assert…= of the last start failed
	JobID       uint32 // of the job that waits or runs now, 0 for none
	Invocation  string // id of the last run, 32 hex digits

	// ExecMainStatus is the exit status of the main process; that of a command
	// before it is in Failed.
	ExecMainStatus int
	// Failed is the ExecCondition= or ExecStartPre= that ended other than well.
	Failed *Command
}

// Command is one line of a unit that was run.
type Command struct {
	Path   string
	Status int // exit status, or the signal's number when Signal
	Signal bool
}

// Active says that the unit is up.
func (o Outcome) Active() bool { return o.ActiveState == "active" }

// ExitStatus is the status that counts: that of the command that failed before
// the main process, or else that of the main process.
func (o Outcome) ExitStatus() int {
	if o.Failed != nil {
		return o.Failed.Status
	}
	return o.ExecMainStatus
}

// err judges a start. Its sentences name what a person can look at.
func (o Outcome) err() error {
	switch {
	case o.LoadState == "not-found":
		return fmt.Errorf("there is no such unit; the agent installs it, or the image lacks it")
	case o.LoadState == "masked":
		return fmt.Errorf("the unit is masked; systemctl unmask %s", o.Unit)
	case o.Job == "assert" || !o.Assert && o.Job != "done":
		return fmt.Errorf("an Assert…= of the unit does not hold (systemctl status %s)", o.Unit)
	case o.Result == "exec-condition":
		if o.Failed != nil {
			return fmt.Errorf("%w: its ExecCondition %s ended with %d", ErrSkipped, o.Failed.Path, o.Failed.Status)
		}
		return fmt.Errorf("%w: its ExecCondition", ErrSkipped)
	case !o.Condition && !o.Active():
		return fmt.Errorf("%w: a Condition…= does not hold (systemctl status %s)", ErrSkipped, o.Unit)
	case o.Job == "dependency":
		return fmt.Errorf("a unit that it requires failed (systemctl list-dependencies %s)", o.Unit)
	case o.Job == "canceled":
		return fmt.Errorf("the job was cancelled by another one, such as a stop by hand or a shutdown")
	case o.ActiveState == "failed" || o.Job == "failed" || o.Job == "timeout" || o.Result != "success":
		return o.failure()
	}
	return nil
}

func (o Outcome) failure() error {
	switch {
	case o.Failed != nil && o.Failed.Signal:
		return fmt.Errorf("%s was ended by signal %d (result %s)", o.Failed.Path, o.Failed.Status, o.Result)
	case o.Failed != nil:
		return fmt.Errorf("%s ended with %d (result %s)", o.Failed.Path, o.Failed.Status, o.Result)
	case o.Result == "timeout":
		return errors.New("it was not up within the unit's TimeoutStartSec (result timeout)")
	}
	return fmt.Errorf("the main process ended with %d (result %s)", o.ExecMainStatus, o.Result)
}

// outcome picks what is used out of the properties of a unit and its service.
func outcome(unit string, p map[string]any) Outcome {
	text := func(key string) string { s, _ := p[key].(string); return s }
	flag := func(key string) bool { b, _ := p[key].(bool); return b }
	o := Outcome{
		Unit: unit, LoadState: text("LoadState"), ActiveState: text("ActiveState"), SubState: text("SubState"),
		Result: text("Result"), StatusText: text("StatusText"), NeedReload: flag("NeedDaemonReload"),
		Condition: flag("ConditionResult"), Assert: flag("AssertResult"),
	}
	// A unit that systemd has just loaded (anew) has judged nothing yet.
	if at, _ := p["ConditionTimestamp"].(uint64); at == 0 {
		o.Condition, o.Assert = true, true
	}
	if n, ok := p["ExecMainStatus"].(int32); ok {
		o.ExecMainStatus = int(n)
	}
	if job, ok := p["Job"].([]any); ok && len(job) > 0 {
		o.JobID, _ = job[0].(uint32)
	}
	if id, ok := p["InvocationID"].([]byte); ok {
		o.Invocation = hex.EncodeToString(id)
	}
	for _, key := range []string{"ExecCondition", "ExecStartPre"} {
		if c := failed(p[key]); c != nil && o.Failed == nil {
			o.Failed = c
		}
	}
	return o
}

// failed finds the first command with another end than exit status 0. The D-Bus
// type is a(sasbttttuii): path, argv, ignore-failure, four times, pid, code,
// status; code is si_code of waitid(2), 1 for an exit.
func failed(v any) *Command {
	lines, _ := v.([][]any)
	for _, l := range lines {
		if len(l) < 10 {
			continue
		}
		path, _ := l[0].(string)
		ignore, _ := l[2].(bool)
		code, _ := l[8].(int32)
		status, _ := l[9].(int32)
		const exited = 1
		if code == 0 || ignore || code == exited && status == 0 {
			continue
		}
		return &Command{Path: path, Status: int(status), Signal: code != exited}
	}
	return nil
}

// Bounds of what an error quotes.
const (
	journalLines = 15
	journalBytes = 4 << 10
)

// Failure is the error of a start that did not come to what was asked for.
type Failure struct {
	Outcome Outcome
	Journal []string // the last lines that the unit logged in this run
	verb    string
	cause   error
}

// Error says what failed, how, and what the unit logged last.
func (f *Failure) Error() string {
	s := fmt.Sprintf("%s %s: %v", f.verb, f.Outcome.Unit, f.cause)
	if len(f.Journal) > 0 {
		s += "; it logged last:\n  " + strings.Join(f.Journal, "\n  ")
	}
	return s
}

// Unwrap gives ErrSkipped when the unit was skipped.
func (f *Failure) Unwrap() error { return f.cause }

// ExitStatus is the exit status of the command that failed, such as 78.
func (f *Failure) ExitStatus() int { return f.Outcome.ExitStatus() }

// readJournal returns the last lines that a unit logged in one invocation. It is
// best effort: a journal that cannot be read must not hide the failure itself.
func readJournal(ctx context.Context, unit, invocation string) []string {
	// 5 s: journald may be busy syncing just then, and nothing depends on it.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	match := "_SYSTEMD_UNIT=" + unit
	if strings.Trim(invocation, "0") != "" {
		match = "_SYSTEMD_INVOCATION_ID=" + invocation
	}
	out, err := exec.CommandContext(ctx, "journalctl", "--no-pager", "--quiet", "--output=cat", fmt.Sprintf("--lines=%d", journalLines), match).Output()
	if err != nil {
		return nil
	}
	return tail(out)
}

func tail(out []byte) []string {
	out = bytes.TrimSpace(out)
	if len(out) == 0 {
		return nil
	}
	if len(out) > journalBytes {
		out = out[len(out)-journalBytes:]
		out = append([]byte("…"), out...)
	}
	lines := strings.Split(strings.ToValidUTF8(string(out), "…"), "\n")
	return lines[max(0, len(lines)-journalLines):]
}
