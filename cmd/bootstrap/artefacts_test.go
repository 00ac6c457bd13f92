package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestGivesAgentsToo: another server gets artefacts of Kubernetes and agents by their
// sha256 alone, wherever they lie here.
func TestGivesAgentsToo(t *testing.T) {
	a := newArtefacts(cluster.Cluster{}, slog.New(slog.DiscardHandler))
	if a.agents.Dir == a.Store.Dir {
		t.Fatalf("agents lie with the artefacts in %s, and would be taken for those", a.agents.Dir)
	}
	a.Store.Dir, a.agents.Dir = t.TempDir(), t.TempDir()
	kubelet, program := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	for dir, sum := range map[string]string{a.Store.Dir: kubelet, a.agents.Dir: program} {
		if err := os.WriteFile(filepath.Join(dir, sum), []byte(sum), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sum := range []string{kubelet, program} {
		f, err := a.Open(sum)
		if err != nil {
			t.Errorf("%s: %v", sum, err)
			continue
		}
		f.Close()
	}
	if _, err := a.Open(strings.Repeat("3c", 32)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
