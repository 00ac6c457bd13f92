package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// completionFor writes the script for a shell and returns its path.
func completionFor(t *testing.T, shell string) string {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		t.Skipf("%s is missing; make test installs it", shell)
	}
	var out, stderr bytes.Buffer
	if code := run(context.Background(), []string{"completion", shell}, nil, &out, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, %s", code, &stderr)
	}
	path := filepath.Join(t.TempDir(), "completion")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func shell(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// TestCompletion lets shells complete.
func TestCompletion(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{"userdata re", "render"},
		{"userdata check --lo", "--lock"},
		{"userdata render --format i", "ignition"},
		{"userdata render --role w", "worker"},
		{"userdata show -o j", "json"},
		{"userdata completion z", "zsh"},
		{"userdata check -f clus", "cluster.yaml"},
	} {
		t.Run(row.line, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			t.Run("bash", func(t *testing.T) {
				script := completionFor(t, "bash")
				got := shell(t, dir, "bash", "-c", `. "$1"; read -ra COMP_WORDS <<<"$2"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _userdata; echo "${COMPREPLY[@]}"`, "bash", script, row.line)
				if got != row.want {
					t.Errorf("bash completes %q, want %q", got, row.want)
				}
			})
			t.Run("fish", func(t *testing.T) {
				script := completionFor(t, "fish")
				got := shell(t, dir, "fish", "-c", `source $argv[1]; complete -C $argv[2] | cut -f 1`, script, row.line)
				if got != row.want {
					t.Errorf("fish completes %q, want %q", got, row.want)
				}
			})
		})
	}
	t.Run("zsh", func(t *testing.T) { shell(t, t.TempDir(), "zsh", "-n", completionFor(t, "zsh")) })
	t.Run("all", func(t *testing.T) {
		for _, c := range completions() {
			for _, o := range c.Options {
				if o.Usage == "" || o.Value == "value" || o.Value == "string" {
					t.Errorf("userdata %s %s: the flag has no usage with a name in backquotes", c.Name, o.Flag)
				}
			}
		}
	})
}
