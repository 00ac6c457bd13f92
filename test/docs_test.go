package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// explained are the sources whose sentences reach a person: by status, by the
// journal, or on the console. docs/runbook.md must have each of them.
var explained = []string{
	"pkg/bootstrap/*.go",
	"pkg/election/decree.go", "pkg/election/problems.go", "pkg/election/receive.go", "pkg/election/roll.go", "pkg/election/settle.go",
	"pkg/announce/diagnose.go", "pkg/announce/plan.go", "pkg/announce/probe.go",
	"pkg/discovery/*.go",
	"pkg/device/*.go", "pkg/metadata/*.go", "pkg/shape/*.go", "pkg/plan/*.go", "pkg/speakers/*.go",
	"pkg/durable/*.go", "pkg/firewall/*.go",
	"pkg/artifact/*.go", "pkg/host/*.go", "pkg/network/network.go", "pkg/network/links.go", "pkg/network/changes.go", "pkg/network/kernel.go", "pkg/network/host.go",
	"pkg/kubeadm/kubeadm.go", "pkg/kubeadm/node.go", "pkg/kubeadm/resume.go", "pkg/kubeadm/staticpod.go",
	"pkg/systemd/*.go",
	"pkg/directory/right.go", "pkg/directory/inspect.go", "pkg/directory/bootstrap.go", "pkg/directory/join.go", "pkg/directory/server.go", "pkg/directory/store.go", "pkg/directory/enrolment.go",
	"pkg/directory/approval.go", "pkg/directory/remove.go", "pkg/directory/revoked.go", "pkg/directory/replicas.go", "pkg/revocation/*.go",
	"pkg/rpc/server.go",
	"cmd/bootstrap/agent.go", "cmd/bootstrap/boot.go", "cmd/bootstrap/connect.go", "cmd/bootstrap/directory.go", "cmd/bootstrap/hands.go",
	"cmd/bootstrap/host.go", "cmd/bootstrap/kubernetes.go", "cmd/bootstrap/net.go", "cmd/bootstrap/netreset.go", "cmd/bootstrap/netroutes.go", "cmd/bootstrap/local.go", "cmd/bootstrap/search.go", "cmd/bootstrap/platform.go", "cmd/bootstrap/settle.go",
	"cmd/bootstrap/trust.go", "cmd/bootstrap/rotate.go", "cmd/bootstrap/revoked.go", "cmd/bootstrap/approve.go",
}

// sayers are the functions whose argument is a sentence for a person: the
// position of that argument.
var sayers = map[string]int{
	"errors.New": 0, "fmt.Errorf": 0, "fmt.Sprintf": 0, "fmt.Fprintf": 1,
	"wait": 0, "until": 1, "run": 1, "say": 1,
}

// sentence is one string of a source in which every value is the placeholder.
type sentence struct{ place, text string }

const placeholder = "…"

// enough literal words make a sentence; less is what wraps or ends one.
const enough = 5

func sentencesOf(t *testing.T, pattern string) []sentence {
	t.Helper()
	files, err := filepath.Glob("../" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no such source (%v); correct the list", pattern, err)
	}
	var out []sentence
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		add := func(e ast.Expr) {
			text := strings.Join(strings.Fields(verb.ReplaceAllString(flatten(e), placeholder)), " ")
			if len(literals(text)) >= enough {
				out = append(out, sentence{fmt.Sprintf("%s:%d", strings.TrimPrefix(path, "../"), set.Position(e.Pos()).Line), text})
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if at, ok := sayers[calledBy(n)]; ok && len(n.Args) > at {
					add(n.Args[at])
				}
			case *ast.ReturnStmt:
				for _, r := range n.Results {
					if _, call := r.(*ast.CallExpr); !call {
						add(r)
					}
				}
			case *ast.AssignStmt:
				if n.Tok == token.ASSIGN {
					add(n.Rhs[0])
				}
			}
			return true
		})
	}
	return out
}

// verb is a formatting verb of package fmt.
var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?(\[[0-9]+\])?[a-zA-Z]`)

// flatten joins the literals of a concatenation; all else is a value.
func flatten(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return s
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return flatten(e.X) + flatten(e.Y)
		}
	}
	return placeholder
}

// calledBy is "package.Function" for those of errors and fmt, else the bare name.
func calledBy(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if p, ok := f.X.(*ast.Ident); ok && (p.Name == "errors" || p.Name == "fmt") {
			return p.Name + "." + f.Sel.Name
		}
		return f.Sel.Name
	}
	return ""
}

func literals(text string) []string {
	return slices.DeleteFunc(strings.Fields(text), func(w string) bool { return strings.Contains(w, placeholder) })
}

// opening is what must stand in the runbook: the first words, without values
// that the sentence begins or ends with. The rest may be cut off there.
func opening(text string) string {
	const first = 7
	words := strings.Fields(text)
	for len(words) > 0 && len(literals(strings.Trim(words[0], ",;:"))) == 0 && strings.HasSuffix(words[0], ":") {
		words = words[1:] // what another sentence says before this one
	}
	words = words[:min(len(words), first)]
	return strings.Trim(strings.Join(words, " "), " ,;:"+placeholder)
}

// readRunbook returns the runbook with a placeholder for each value.
func readRunbook(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`<[^<>\n]*>`).ReplaceAllString(string(data), placeholder)
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "`", "")), " ")
}

func TestRunbookHasEverySentence(t *testing.T) {
	runbook := readRunbook(t)
	for _, pattern := range explained {
		for _, s := range sentencesOf(t, pattern) {
			if want := opening(strings.ReplaceAll(s.text, "`", "")); !strings.Contains(runbook, want) {
				t.Errorf("%s: docs/runbook.md does not have %q\nof %q", s.place, want, s.text)
			}
		}
	}
}

// TestRunbookHasNothingElse says which sentences of the runbook no program says
// any more. It compares the longest piece without a value.
func TestRunbookHasNothingElse(t *testing.T) {
	said := corpus(t)
	data, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	span := regexp.MustCompile("`[^`]+`")
	for n, line := range strings.Split(string(data), "\n") {
		for _, s := range span.FindAllString(line, -1) {
			s = strings.TrimPrefix(strings.Trim(s, "`"), "waits: ")
			longest := ""
			for _, piece := range strings.Split(regexp.MustCompile(`<[^<>]*>`).ReplaceAllString(s, placeholder), placeholder) {
				if piece = strings.Trim(piece, " ,;:"); len(piece) > len(longest) {
					longest = piece
				}
			}
			if len(strings.Fields(longest)) >= enough && !strings.Contains(said, longest) {
				t.Errorf("docs/runbook.md:%d: no source says %q", n+1, longest)
			}
		}
	}
}

// corpus is every string of the product's sources, with a placeholder for each
// value, and the script that fetches the agent.
func corpus(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../pkg/userdata/fetch.sh")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(regexp.MustCompile(`\$\([^"]*\)|\$[a-z]+|\$\{[^}]*\}`).ReplaceAllString(string(script), placeholder))
	for _, dir := range []string{"../pkg/*/*.go", "../cmd/bootstrap/*.go"} {
		files, err := filepath.Glob(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					b.WriteString(strings.ReplaceAll(verb.ReplaceAllString(flatten(e), placeholder), "`", "") + "\n")
				}
				return true
			})
		}
	}
	return b.String()
}

// TestStatusInTheGuide holds the tables of the guide to the form that status
// prints, as its golden files have it.
func TestStatusInTheGuide(t *testing.T) {
	header := func(path string) []string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "NAME ") {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
		return out
	}
	golden, shown := header("../cmd/bootstrap/testdata/status-ready.golden"), header("../docs/guide.md")
	if len(golden) != 1 || len(shown) == 0 {
		t.Fatalf("%d tables in the golden file, %d in the guide", len(golden), len(shown))
	}
	for _, line := range shown {
		if line != golden[0] {
			t.Errorf("the guide shows %q, status prints %q", line, golden[0])
		}
	}
}

// TestLinks follows every relative link of the documents, headings included.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, path := range documents(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			at := path
			if target != "" {
				at = filepath.Join(filepath.Dir(path), target)
			}
			linked, err := os.ReadFile(at)
			if err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			} else if heading != "" && !slices.Contains(headings(string(linked)), heading) {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
		}
	}
}

// headings are the anchors that GitHub gives a document's headings.
func headings(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
			kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			out = append(out, strings.ReplaceAll(kept, " ", "-"))
		}
	}
	return out
}

// TestArchitectureHasTheFloors compares the table in docs/architecture.md with
// the one that TestFloors enforces.
func TestArchitectureHasTheFloors(t *testing.T) {
	data, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for pkg, floor := range floors {
		want[strings.TrimPrefix(pkg, "pkg/")] = floor
	}
	got := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([0-9]) \| ([^|]+) \|`).FindAllStringSubmatch(string(data), -1) {
		floor, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		for pkg := range strings.SplitSeq(row[2], ",") {
			got[strings.TrimSpace(pkg)] = floor
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("floors in docs/architecture.md (-enforced +written):\n%s", diff)
	}
}
