package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The generated part of docs/cli.md stands between these lines.
const (
	cliFrom = "<!-- From here to the next such mark: what the commands say of themselves; go test ./cmd/bootstrap -update writes it. -->\n"
	cliTo   = "<!-- Until here. -->\n"
)

// TestCLIPage: docs/cli.md says what the commands say of themselves.
func TestCLIPage(t *testing.T) {
	const page = "../../docs/cli.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), cliFrom)
	_, after, ok2 := strings.Cut(rest, cliTo)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks %q and %q", page, cliFrom, cliTo)
	}
	var b strings.Builder
	b.WriteString(before + cliFrom)
	help := func(name string, args ...string) {
		code, out, stderr := bootstrapRun(t, append(args, "--help")...)
		if code != 0 || stderr != "" {
			t.Fatalf("%s --help: exit code %d, %s", name, code, stderr)
		}
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s```\n", name, out)
	}
	help("bootstrap")
	for _, c := range allCommands() {
		help("bootstrap "+c.name, c.name)
	}
	for _, c := range netCommands {
		help("bootstrap net "+c.name, "net", c.name)
	}
	b.WriteString("\n" + cliTo + after)
	compare(t, page, b.String())
}

// TestExitCodes: the table of docs/cli.md has every code, and each help text
// names only those.
func TestExitCodes(t *testing.T) {
	data, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{0, exitFailed, exitUsage, exitData, exitUnavailable, exitPermission, exitConfig} {
		if !strings.Contains(string(data), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/cli.md lacks exit code %d", code)
		}
	}
}
