package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// firstBootPains are what makes first boots of kubeadm fail elsewhere, and the tests
// that show each to be none here.
var firstBootPains = []struct {
	pain  string
	tests map[string][]string // by the directory of the package
}{
	{"the clock is wrong, and certificates are not valid yet", map[string][]string{
		"pkg/plan":      {"TestClockProblem", "TestClockMajority"},
		"pkg/bootstrap": {"TestWrongClockDoesNotLead", "TestClockSteps"},
		"pkg/kubeadm":   {"TestValidityDoesNotTrustTheClock"},
	}},
	{"the hostname is set late, and the node is called localhost", map[string][]string{
		"pkg/device": {"TestNodeName"},
		"pkg/plan":   {"TestNodeFor"},
		"test/e2e":   {"TestFirstBootPains"},
	}},
	{"swap is on", map[string][]string{
		"pkg/host": {"TestPrepareSaysWhy", "TestSwapMayBeAllowed"},
		"test/e2e": {"TestFirstBootPains"},
	}},
	{"containerd has another sandbox image than kubeadm, or its CRI off", map[string][]string{
		"pkg/host": {"TestPauseImage", "TestContainerdConfig", "TestRealContainerdReadsTheConfig"},
		"test/e2e": {"TestFirstBootPains"},
	}},
	{"there are two default routes, and kubelet or kubeadm take the public address", map[string][]string{
		"pkg/kubeadm": {"TestInitDryRun", "TestJoinDryRun"},
		"test/e2e":    {"TestFirstBootPains", "TestThreeControlPlanesTwoWorkers"},
	}},
	{"servers share a product UUID", map[string][]string{
		"pkg/device":   {"TestHW", "TestSameHardware"},
		"pkg/election": {"TestFleetWithOneUUID"},
	}},
}

// TestSixFirstBootPains keeps the tests of each from going away unnoticed.
func TestSixFirstBootPains(t *testing.T) {
	if len(firstBootPains) != 6 {
		t.Errorf("%d pains", len(firstBootPains))
	}
	for _, p := range firstBootPains {
		for dir, names := range p.tests {
			have := testsIn(t, dir)
			for _, name := range names {
				if !have[name] {
					t.Errorf("%s: %s has no %s", p.pain, dir, name)
				}
			}
		}
	}
}

// testsIn are the names of the tests of a package.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", dir, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}
