package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestThaw(t *testing.T) {
	dir := t.TempDir()
	frozen := filepath.Join(dir, "kubepods.slice", "pod", "freezer.state")
	if err := errors.Join(os.MkdirAll(filepath.Dir(frozen), 0o755), os.WriteFile(frozen, []byte("FROZEN"), 0o644)); err != nil {
		t.Fatal(err)
	}
	thaw(dir)
	if b, err := os.ReadFile(frozen); err != nil || string(b) != "THAWED" {
		t.Errorf("%q, %v", b, err)
	}
	thaw(filepath.Join(dir, "absent"))
}
