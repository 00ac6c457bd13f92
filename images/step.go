package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// breath is how often a long step says that it is alive.
const breath = 15 * time.Second

// step runs work and tells the log of its start, of its life and of its end.
func step(ctx context.Context, log io.Writer, name string, work func(ctx context.Context) error) error {
	start := time.Now()
	seconds := func() int { return int(time.Since(start).Round(time.Second).Seconds()) }
	fmt.Fprintf(log, "image: %s\n", name)
	done := make(chan struct{})
	var alive sync.WaitGroup
	alive.Go(func() {
		tick := time.NewTicker(breath)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(log, "image: %s: still at it after %d s\n", name, seconds())
			}
		}
	})
	err := work(ctx)
	close(done)
	alive.Wait()
	if err != nil {
		fmt.Fprintf(log, "image: %s: failed after %d s\n", name, seconds())
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(log, "image: %s: done in %d s\n", name, seconds())
	return nil
}

// runCommand runs cmd to its end, its output into a log file in the cache; the
// error holds the last lines and names the file. Canceling ctx asks the program
// to end, so that it can unmount what it mounted.
func (c cache) runCommand(name string, cmd *exec.Cmd) error {
	logs := filepath.Join(c.dir, "log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	path := filepath.Join(logs, name+".log")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if cmd.Cancel != nil { // nil when the command was made without a context
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 20 * time.Second
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; its last lines:\n%s\n(all of it: %s)", filepath.Base(cmd.Path), err, lastLines(path, 12), path)
	}
	return nil
}

// lastLines is the end of a text file, indented.
func lastLines(path string, n int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "  " + string(bytes.Join(lines, []byte("\n  ")))
}

// withEnv is the process environment with some variables set.
func withEnv(set ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		replaced := false
		for _, s := range set {
			replaced = replaced || strings.HasPrefix(s, name+"=")
		}
		if !replaced {
			env = append(env, kv)
		}
	}
	return append(env, set...)
}
