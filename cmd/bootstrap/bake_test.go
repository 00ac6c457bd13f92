package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The exit codes and the talk of bootstrap bake; what it lays is pkg/bake's.
func TestBakeCommand(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "usr/sbin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"etc/os-release": "ID=debian\n", "etc/machine-id": "5b0c\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"no root", nil, exitUsage, "", "--root DIR is missing"},
		{"identity", []string{"--root", root}, exitData, "", "/etc/machine-id: a machine id"},
		{"clean", []string{"--root", root, "--clean"}, 0, "removed /etc/machine-id\nlaid /usr/local/bin/bootstrap\n", ""},
		{"again", []string{"--root", root, "--clean"}, 0, "nothing changed\n", ""},
		{"no artefacts", []string{"--root", root, "--artifacts", t.TempDir()}, exitFailed, "", "lacks kubeadm"},
		{"not a root", []string{"--root", t.TempDir()}, exitFailed, "", "is the image mounted there?"},
	} {
		t.Run(step.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"bake"}, step.args...), &stdout, &stderr)
			if code != step.code || !strings.HasPrefix(stdout.String(), step.stdout) || !strings.Contains(stderr.String(), step.stderr) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, %q, %q", code, &stdout, &stderr, step.code, step.stdout, step.stderr)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(root, "etc/systemd/system/muster.service")); err != nil {
		t.Error(err)
	}
}
