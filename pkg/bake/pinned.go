package bake

import (
	"context"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
)

// Pinned brings what a lock file pins for an architecture (amd64, arm64) into a
// directory, each file verified and named by its sha256, and returns the names. What
// is there already it leaves.
type Pinned func(ctx context.Context, dir, arch string) (sums []string, err error)

// pinned lays artefacts where the agent looks before it asks mirrors, and removes
// those that an earlier lock file pinned.
func (l layer) pinned(root string, fetch Pinned) error {
	if fetch == nil {
		return nil
	}
	// fetch writes by path, so the directory must be inside of the root whatever links
	// lead there.
	if err := l.root.MkdirAll(rel(l.prefix.BakedArtifacts()), 0o755); err != nil {
		return fmt.Errorf("making room for artefacts: %w", err)
	}
	top, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(root, l.prefix.BakedArtifacts()))
	if err != nil {
		return err
	}
	if within, err := filepath.Rel(top, dir); err != nil || !filepath.IsLocal(within) {
		return fmt.Errorf("%s leads to %s, outside of the root; remove that link", l.prefix.BakedArtifacts(), dir)
	}
	before, err := l.names(l.prefix.BakedArtifacts())
	if err != nil {
		return err
	}
	arch, err := l.architecture()
	if err != nil {
		return err
	}
	sums, err := fetch(l.ctx, dir, arch)
	if err != nil {
		return err
	}
	slices.Sort(sums)
	for _, sum := range slices.Compact(sums) {
		if !slices.Contains(before, sum) {
			l.report.Changed = append(l.report.Changed, l.prefix.BakedArtifacts()+"/"+sum)
		}
	}
	return l.unpinned(before, sums)
}

// unpinned removes what is pinned no more, the parts of downloads among it.
func (l layer) unpinned(before, sums []string) error {
	for _, name := range before {
		digest := name[:min(len(name), 64)]
		if _, err := hex.DecodeString(digest); err != nil || len(digest) < 64 || slices.Contains(sums, name) {
			continue // somebody else's, or in use
		}
		path := l.prefix.BakedArtifacts() + "/" + name
		if _, err := l.root.Lstat(rel(path)); err != nil {
			continue // a part that is whole by now
		}
		if err := l.root.Remove(rel(path)); err != nil {
			return fmt.Errorf("removing what is pinned no more: %w", err)
		}
		l.report.Removed = append(l.report.Removed, path)
	}
	return nil
}

// names are those of the files in a directory of the root, sorted.
func (l layer) names(dir string) ([]string, error) {
	d, err := l.root.Open(rel(dir))
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// architecture is that of the root, or of this program where the root does not
// tell.
func (l layer) architecture() (string, error) {
	machine, known := l.machine()
	switch {
	case !known:
		return runtime.GOARCH, nil
	case machine == elf.EM_X86_64:
		return "amd64", nil
	case machine == elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("the programs in the root are for %s; nothing can be pinned but for amd64 and arm64", machine)
}
