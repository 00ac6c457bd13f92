package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInstall installs into an empty directory what make build made, and uses it
// from there: the programs, the pages, and the completions.
func TestInstall(t *testing.T) {
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"userdata", "bootstrap"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			t.Skipf("%v: make build makes it", err)
		}
	}
	dest := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("make", "-C", "..", "--no-print-directory", "install", "DESTDIR="+dest, "PREFIX=/opt/muster")

	var got []string
	err = filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		relative := strings.TrimPrefix(path, dest+"/opt/muster/")
		if err != nil || d.IsDir() || strings.HasPrefix(relative, "share/doc/muster/") {
			return err
		}
		info, err := d.Info()
		got = append(got, info.Mode().String()+" "+relative)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-rwxr-xr-x bin/bootstrap", "-rwxr-xr-x bin/userdata",
		"-rw-r--r-- share/bash-completion/completions/bootstrap", "-rw-r--r-- share/bash-completion/completions/userdata",
		"-rw-r--r-- share/fish/vendor_completions.d/bootstrap.fish", "-rw-r--r-- share/fish/vendor_completions.d/userdata.fish",
		"-rw-r--r-- share/man/man1/userdata.1", "-rw-r--r-- share/man/man8/bootstrap.8",
		"-rw-r--r-- share/zsh/site-functions/_bootstrap", "-rw-r--r-- share/zsh/site-functions/_userdata",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	at := func(path string) string { return filepath.Join(dest, "opt/muster", path) }
	if _, err := os.Stat(at("share/doc/muster/docs/guide.md")); err != nil {
		t.Errorf("the pages that the manual names: %v", err)
	}
	run(at("bin/userdata"), "version")
	run("bash", "-ec", `. "$1"; COMP_WORDS=(userdata rend); COMP_CWORD=1; _userdata; [ "${COMPREPLY[*]}" = render ]`, "bash", at("share/bash-completion/completions/userdata"))
	run("bash", "-ec", `. "$1"; COMP_WORDS=(bootstrap stat); COMP_CWORD=1; _bootstrap; [ "${COMPREPLY[*]}" = status ]`, "bash", at("share/bash-completion/completions/bootstrap"))
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("mandoc is missing; make test installs it: the pages were not read")
	}
	for _, page := range []string{"share/man/man1/userdata.1", "share/man/man8/bootstrap.8"} {
		run("mandoc", "-T", "lint", "-W", "warning", at(page))
	}
	page := run("mandoc", "-T", "utf8", "-O", "width=200", at("share/man/man8/bootstrap.8"))
	for _, sentence := range []string{"Usage: bootstrap bake", "Usage: bootstrap status", "Usage: bootstrap agent"} {
		if !strings.Contains(page, sentence) {
			t.Errorf("bootstrap(8) lacks %q", sentence)
		}
	}
}

// TestInstallWithoutPrograms says what is missing and writes nothing.
func TestInstallWithoutPrograms(t *testing.T) {
	dest := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "../images/install.sh", t.TempDir())
	cmd.Env = append(os.Environ(), "DESTDIR="+dest)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 69 || !strings.Contains(string(out), "make build makes it") {
		t.Errorf("%v\n%s", err, out)
	}
	if entries, err := os.ReadDir(dest); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
