package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(path string, data []byte, perm fs.FileMode) error {
	return os.WriteFile(path, data, perm)
}

func withFake(t *testing.T) (*Manager, *fake) {
	t.Helper()
	dir := t.TempDir()
	f := newFake(dir)
	m := &Manager{
		dir: dir, write: write, life: t.Context(), poll: 100 * time.Millisecond,
		dial:    func(context.Context) (bus, error) { f.lost = false; return f, nil },
		journal: func(context.Context, string, string) []string { return []string{"this server holds no GO"} },
	}
	return m, f
}

func TestManagerOnFake(t *testing.T) {
	m, _ := withFake(t)
	suite(t, m)
}

// The same suite on the real thing, where PID 1 is systemd.
func TestManagerOnSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and systemd as PID 1: the fake alone was tested")
	}
	m, err := Open(t.Context(), "/run/systemd/system", write)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	suite(t, m)
}

func unit(lines ...string) []byte {
	return []byte("[Unit]\nDescription=test of package systemd\n" + strings.Join(lines, "\n") + "\n")
}

func suite(t *testing.T, m *Manager) {
	const oneshot = "[Service]\nType=oneshot"
	name := func(s string) string { return "muster-test-" + s + ".service" }
	files := map[string][]byte{
		name("ok"):        unit(oneshot, "RemainAfterExit=yes", "ExecStart=/bin/true"),
		name("once"):      unit(oneshot, "ExecStart=/bin/true"),
		name("fence"):     unit(oneshot, "ExecStartPre=/bin/sh -c 'echo this server holds no GO; exit 78'", "ExecStart=/bin/true"),
		name("main"):      unit(oneshot, "ExecStart=/bin/sh -c 'exit 3'"),
		name("skip"):      unit(oneshot, "ExecCondition=/bin/sh -c 'exit 78'", "ExecStart=/bin/true"),
		name("condition"): unit("ConditionPathExists=/nonexistent", oneshot, "ExecStart=/bin/true"),
		name("assert"):    unit("AssertPathExists=/nonexistent", oneshot, "ExecStart=/bin/true"),
		name("slow"):      unit(oneshot, "RemainAfterExit=yes", "ExecStart=/bin/sleep 0.5"),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	defer func() {
		for n := range files {
			if err := errors.Join(m.Stop(ctx, n), os.Remove(filepath.Join(m.dir, n))); err != nil {
				t.Error(err)
			}
		}
	}()

	changed, err := m.Install(ctx, files)
	if err != nil || len(changed) != len(files) {
		t.Fatalf("Install changed %v: %v", changed, err)
	}
	if changed, err = m.Install(ctx, files); err != nil || changed != nil {
		t.Errorf("a second Install changed %v: %v", changed, err)
	}

	for _, row := range []struct {
		unit, want string // part of the error, "" for none
		status     int
		skipped    bool
	}{
		{unit: "ok"},
		{unit: "ok"}, // again: nothing to do
		{unit: "once"},
		{unit: "fence", want: "ended with 78 (result exit-code); it logged last:\n  this server holds no GO", status: 78},
		{unit: "main", want: "the main process ended with 3 (result exit-code)", status: 3},
		{unit: "skip", want: "skipped by a condition of the unit: its ExecCondition /bin/sh ended with 78", status: 78, skipped: true},
		{unit: "condition", want: "a Condition…= does not hold", skipped: true},
		{unit: "assert", want: "an Assert…= of the unit does not hold"},
	} {
		err := m.Start(ctx, name(row.unit))
		var f *Failure
		switch {
		case row.want == "":
			if err != nil {
				t.Errorf("%s: %v", row.unit, err)
			}
			continue
		case !errors.As(err, &f):
			t.Errorf("%s: %v, want a *Failure with %q", row.unit, err, row.want)
			continue
		case !strings.Contains(err.Error(), row.want):
			t.Errorf("%s: %v\nwant %q in it", row.unit, err, row.want)
		}
		if f.ExitStatus() != row.status || errors.Is(err, ErrSkipped) != row.skipped {
			t.Errorf("%s: exit status %d, skipped %t; want %d, %t", row.unit, f.ExitStatus(), errors.Is(err, ErrSkipped), row.status, row.skipped)
		}
	}

	t.Run("failed state is cleared", func(t *testing.T) {
		if err := m.ResetFailed(ctx, name("fence")); err != nil {
			t.Fatal(err)
		}
		o, err := m.State(ctx, name("fence"))
		if err != nil || o.ActiveState != "inactive" {
			t.Errorf("state %+v, %v", o, err)
		}
	})
	t.Run("a wait that is given up leaves the job, and is taken up again", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if err := m.Start(short, name("slow")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a deadline", err)
		}
		if err := m.Start(ctx, name("slow")); err != nil {
			t.Error(err)
		}
		if up, err := m.Active(ctx, name("slow")); !up || err != nil {
			t.Errorf("active %t, %v", up, err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		for range 2 {
			if err := m.Stop(ctx, name("ok")); err != nil {
				t.Error(err)
			}
		}
		if up, _ := m.Active(ctx, name("ok")); up {
			t.Error("still active")
		}
	})
	t.Run("restart", func(t *testing.T) {
		if err := m.Restart(ctx, name("ok")); err != nil {
			t.Error(err)
		}
	})
	t.Run("a changed unit is reloaded", func(t *testing.T) {
		files[name("main")] = unit(oneshot, "ExecStart=/bin/sh -c 'exit 4'")
		changed, err := m.Install(ctx, files)
		if diff := cmp.Diff([]string{name("main")}, changed); diff != "" || err != nil {
			t.Error(diff, err)
		}
		var f *Failure
		if err := m.Start(ctx, name("main")); !errors.As(err, &f) || f.ExitStatus() != 4 {
			t.Errorf("got %v, want exit status 4", err)
		}
	})
	t.Run("no such unit", func(t *testing.T) {
		o, err := m.State(ctx, name("absent"))
		if err != nil || o.LoadState != "not-found" {
			t.Errorf("state %+v, %v", o, err)
		}
		if err := m.Start(ctx, name("absent")); err == nil {
			t.Error("started")
		}
		if err := m.ResetFailed(ctx, name("absent")); err != nil {
			t.Error(err)
		}
	})
}

func TestEnableReloadsOnce(t *testing.T) {
	m, f := withFake(t)
	if _, err := m.Install(t.Context(), map[string][]byte{"a.service": unit("[Service]")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Enable(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
	}
	if f.reloads != 2 { // one for Install, one for the first Enable
		t.Errorf("%d reloads, want 2", f.reloads)
	}
	if err := m.Enable(t.Context(), "b.service"); err == nil || !strings.Contains(err.Error(), "b.service") {
		t.Errorf("got %v", err)
	}
}

// A crash between writing a unit and reloading must not leave the old text in
// force.
func TestInstallReloadsWhatACrashLeft(t *testing.T) {
	m, f := withFake(t)
	text := unit("[Service]")
	if err := os.WriteFile(filepath.Join(m.dir, "a.service"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Install(t.Context(), map[string][]byte{"a.service": text}); err != nil {
		t.Fatal(err)
	}
	if f.reloads != 1 {
		t.Errorf("%d reloads, want 1", f.reloads)
	}
}

func TestDialsAgain(t *testing.T) {
	m, f := withFake(t)
	if _, err := m.State(t.Context(), "a.service"); err != nil {
		t.Fatal(err)
	}
	f.lost = true
	if _, err := m.State(t.Context(), "a.service"); err != nil || f.lost {
		t.Errorf("did not dial again: %v", err)
	}
	m.dial = func(context.Context) (bus, error) { return nil, errors.New("connection refused") }
	f.lost = true
	if _, err := m.State(t.Context(), "a.service"); err == nil || !strings.Contains(err.Error(), "PID 1 is systemd") {
		t.Errorf("got %v", err)
	}
}

func TestLostSignal(t *testing.T) {
	m, f := withFake(t)
	if _, err := m.Install(t.Context(), map[string][]byte{"a.service": unit("[Service]", "Type=oneshot", "ExecStart=/bin/true")}); err != nil {
		t.Fatal(err)
	}
	f.deaf = true
	if err := m.Start(t.Context(), "a.service"); err != nil {
		t.Errorf("a start whose end was not signalled: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		var sick error
		barks, said := 0, 0
		go func() {
			<-time.After(5*time.Second - time.Millisecond)
			sick = errors.New("stuck in kubeadm init")
		}()
		err := feed(ctx, time.Second, func() error { return sick }, func(error) { said++ }, func() error { barks++; return nil })
		if err != nil || barks != 5 || said != 1 {
			t.Errorf("%d barks, stuck said %d times, %v; want 5, 1, nil", barks, said, err)
		}
	})
}

func TestTailIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "line %d %s\n", i, strings.Repeat("x", 500))
	}
	lines := tail([]byte(b.String()))
	if n := len(strings.Join(lines, "\n")); len(lines) > journalLines || n > journalBytes+8 {
		t.Errorf("%d lines, %d bytes", len(lines), n)
	}
	if !strings.HasPrefix(lines[len(lines)-1], "line 999 ") {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
}
