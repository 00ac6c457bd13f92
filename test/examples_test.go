package test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

var updateExamples = flag.Bool("update-examples", false, "write what commands in the documents print anew")

// documents are the pages that people read.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"../README.md"}
	for _, pattern := range []string{"../docs/*.md", "../docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: no documents (%v)", pattern, err)
		}
		all = append(all, found...)
	}
	return all
}

// block is a fenced block of a document, with the comment above it.
type block struct {
	mark, language, text string
	from, to             int // of the text in the document
}

var fenced = regexp.MustCompile("(?sm)^(?:<!-- ([^\n]*) -->\n)?```([a-z]+)\n(.*?)^```$")

func blocksOf(document string) []block {
	var out []block
	for _, at := range fenced.FindAllStringSubmatchIndex(document, -1) {
		b := block{language: document[at[4]:at[5]], text: document[at[6]:at[7]], from: at[6], to: at[7]}
		if at[2] >= 0 {
			b.mark = document[at[2]:at[3]]
		}
		out = append(out, b)
	}
	return out
}

// looks are taken at what the examples of a page left in their directory.
var looks = map[string]func(t *testing.T, dir string){"../docs/user-data.md": lookAtUserData, "../docs/lab-metadata.md": lookAtLab}

// standins are programs in the place of those that need a service.
const standins = "testdata/standins"

// TestExamples does what the documents say. In the order of a page it writes the
// blocks marked "file: NAME", runs the commands (after $) of those marked "run",
// and compares what they print. Every cluster file is read, and every block of
// commands is marked: what needs servers says so, and is no example but a tale.
func TestExamples(t *testing.T) {
	bin := buildUserdata(t)
	for _, path := range documents(t) {
		t.Run(strings.TrimPrefix(path, "../"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			document, dir := string(data), t.TempDir()
			var updated strings.Builder
			written := 0
			for _, b := range blocksOf(document) {
				name, isFile := strings.CutPrefix(b.mark, "file: ")
				switch {
				case isFile:
					if err := os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o644); err != nil {
						t.Fatal(err)
					}
				case b.mark == "run":
					now := runBlock(t, path, b.text, bin, dir)
					updated.WriteString(document[written:b.from] + now)
					written = b.to
				case strings.HasPrefix(b.mark, "servers: "):
				case b.language == "sh" || b.language == "console" || b.language == "bash" || b.language == "shell":
					t.Errorf("%s: a block of commands is run by nobody; write <!-- run --> above it, or <!-- servers: why it is not -->:\n%s", path, b.text)
				}
				if strings.Contains(b.text, "kind: Cluster\n") {
					if _, problems := cluster.Parse(path, []byte(b.text)); cluster.Err(problems) != nil {
						t.Errorf("%s: a cluster file with problems:\n%v", path, problems)
					}
				}
			}
			if look := looks[path]; look != nil && !t.Failed() {
				look(t, dir)
			}
			if *updateExamples && written > 0 {
				updated.WriteString(document[written:])
				if err := os.WriteFile(path, []byte(updated.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func buildUserdata(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "userdata"), "../cmd/userdata")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building userdata: %v\n%s", err, out)
	}
	return bin
}

// runBlock runs the commands of a block one after the other, compares what each
// prints, and returns the block as it is now. A command goes on in the next line
// where it ends with a backslash; "# exit N" after it is the status it ends with.
func runBlock(t *testing.T, path, text, bin, dir string) string {
	t.Helper()
	var now strings.Builder
	var command string
	for line := range strings.Lines(text + "$ ") {
		part, begins := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasSuffix(command, "\\\n"):
			command += line
			now.WriteString(line)
			continue
		case !begins:
			continue // what a command printed
		}
		if command != "" {
			now.WriteString(runCommand(t, path, command, bin, dir))
		}
		command = part
		now.WriteString("$ " + part)
	}
	got := strings.TrimSuffix(now.String(), "$ ")
	if diff := cmp.Diff(sizeless(text), sizeless(got)); diff != "" && !*updateExamples {
		t.Errorf("%s (-page +now; go test ./test -run TestExamples -update-examples writes it):\n%s", path, diff)
	}
	if sizeless(text) == sizeless(got) {
		return text
	}
	return got
}

var exits = regexp.MustCompile(`# exit ([0-9]+)\n$`)

func runCommand(t *testing.T, path, command, bin, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Dir = dir
	programs, err := filepath.Abs(standins)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{"PATH=" + bin + ":" + programs + ":" + os.Getenv("PATH"), "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	want := 0
	if m := exits.FindStringSubmatch(command); m != nil {
		want, _ = strconv.Atoi(m[1])
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("%s: %sends with %d (%v), want %d\n%s", path, command, code, err, want, out)
	}
	return string(out)
}

// sizeless takes away the size of the user-data, which changes with every unit.
func sizeless(text string) string {
	return regexp.MustCompile(`[0-9]+ of ([0-9]+ bytes)`).ReplaceAllString(text, "N of $1")
}
