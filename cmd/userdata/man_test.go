package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/completion"
)

func output(t *testing.T, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := run(context.Background(), args, strings.NewReader(""), &out, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("userdata %s: exit code %d, %s", strings.Join(args, " "), code, &stderr)
	}
	return out.String()
}

// TestManual has the page read by a strict reader of man(7), and looks for every
// command and flag in what a person sees.
func TestManual(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("mandoc is missing; make test installs it")
	}
	page := output(t, "man")
	for _, args := range [][]string{{"-T", "lint", "-W", "warning"}, {"-T", "ascii", "-O", "width=200"}} {
		cmd := exec.CommandContext(t.Context(), "mandoc", args...)
		cmd.Stdin = strings.NewReader(page)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("mandoc %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		if args[1] != "ascii" {
			continue
		}
		var shown strings.Builder // without what prints twice to make bold
		for i, r := range out {
			if r != '\b' && (i+1 == len(out) || out[i+1] != '\b') {
				shown.WriteByte(r)
			}
		}
		for _, c := range completions() {
			for _, want := range append([]string{"userdata " + c.Name}, flagsOf(c)...) {
				if !strings.Contains(shown.String(), want) {
					t.Errorf("the manual does not have %q", want)
				}
			}
		}
	}
}

func flagsOf(c completion.Command) []string {
	var out []string
	for _, o := range c.Options {
		out = append(out, o.Flag)
	}
	return out
}

const (
	helpFrom = "<!-- From here on: what the commands say of themselves; go test ./cmd/userdata -run TestHelpPage -update writes it. -->\n"
	helpPage = "../../docs/userdata.md"
)

// TestHelpPage: docs/userdata.md says what the commands say of themselves.
func TestHelpPage(t *testing.T) {
	data, err := os.ReadFile(helpPage)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(data), helpFrom)
	if !ok {
		t.Fatalf("%s lacks the mark %q", helpPage, helpFrom)
	}
	got := before + helpFrom
	for _, c := range allCommands() {
		help := output(t, c.name, "--help")
		if !strings.Contains(help, "\nExample") || !strings.Contains(help, "\nExit codes: 0 ") {
			t.Errorf("userdata %s --help has no examples, or no exit codes:\n%s", c.name, help)
		}
		if !c.hidden {
			got += fmt.Sprintf("\n## userdata %s\n\n```text\n%s```\n", c.name, help)
		}
	}
	if *update {
		if err := os.WriteFile(helpPage, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(data), got); diff != "" {
		t.Errorf("docs/userdata.md is stale; go test ./cmd/userdata -run TestHelpPage -update (-page +now):\n%s", diff)
	}
}
