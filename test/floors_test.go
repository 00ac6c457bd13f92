// Package test holds the tests of the repository as a whole; its folders hold
// the rig, the scenarios and the benchmarks.
package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mustermetal/muster/"

// floors says on which floor each package stands. A package may import only
// packages on lower floors, never one of its own floor. So data flows one way,
// hands do not know each other, the flow knows no hand, and the generator reaches
// nothing outside.
var floors = map[string]int{
	// Nouns, the units as files, and what shells complete.
	"pkg/cluster": 0, "pkg/completion": 0, "pkg/device": 0, "pkg/member": 0, "pkg/layout": 0, "units": 0,
	// Pure functions from nouns to nouns, and what agents say to each other.
	"pkg/agent": 1, "pkg/change": 1, "pkg/election": 1, "pkg/plan": 1, "pkg/revocation": 1, "pkg/shape": 1, "pkg/speakers": 1, "pkg/userdata": 1,
	// The flow, the hands, and the generator.
	"pkg/bootstrap": 2, "cmd/userdata": 2,
	"pkg/addons": 2, "pkg/announce": 2, "pkg/artifact": 2, "pkg/bake": 2, "pkg/cloudinit": 2, "pkg/directory": 2, "pkg/discovery": 2, "pkg/drive": 2, "pkg/durable": 2, "pkg/events": 2, "pkg/firewall": 2, "pkg/gossip": 2,
	"pkg/host": 2, "pkg/identity": 2, "pkg/kubeadm": 2, "pkg/metadata": 2, "pkg/network": 2,
	"pkg/rpc": 2, "pkg/systemd": 2, "pkg/upgrade": 2,
	// The agent: hands given to the flow.
	"cmd/bootstrap": 3,
}

// free are the trees that build images and tests: they may import anything, and
// nothing on a floor may import them.
var free = []string{"images/", "test/"}

// TestFloors reads the sources itself: a test that asks "go list" instead is
// served from the test cache after an import changes.
func TestFloors(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// Other modules, hidden directories and test data are not ours to place.
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != ".." && (err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		if isFree(pkg) {
			return nil
		}
		seen[pkg] = true
		checkImports(t, path, pkg)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("package %s stands on a floor but has no sources; remove it from the list", pkg)
		}
	}
}

func isFree(pkg string) bool {
	for _, tree := range free {
		if strings.HasPrefix(pkg+"/", tree) {
			return true
		}
	}
	return false
}

func checkImports(t *testing.T, path, pkg string) {
	t.Helper()
	floor, ok := floors[pkg]
	if !ok {
		t.Errorf("%s: package %s stands on no floor; give it one in test/floors_test.go", path, pkg)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range file.Imports {
		full, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		imported, ours := strings.CutPrefix(full, module)
		if !ours {
			continue
		}
		if isFree(imported) {
			t.Errorf("%s (floor %d) imports %s, which only tests and images may", path, floor, imported)
		} else if its, ok := floors[imported]; !ok || its >= floor {
			t.Errorf("%s (floor %d) imports %s (floor %d); only lower floors may be imported", path, floor, imported, its)
		}
	}
}
