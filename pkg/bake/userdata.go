package bake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
)

// userData lays the tree of a rendered user-data, links and modes included. Units
// that are there already are the agent's own, which fit it; they stay.
func (l layer) userData(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, layout.ClusterFile)); err != nil {
		return fmt.Errorf("the user-data: %w; make the directory with userdata render --format dir --output-dir %s", err, dir)
	}
	if _, err := os.Lstat(filepath.Join(dir, l.prefix.Fetch())); err != nil {
		return fmt.Errorf("the user-data is not for programs below %s: %w; give bootstrap bake and userdata render the same --prefix", l.prefix, err)
	}
	l.report.Notes = append(l.report.Notes, "the image holds the secret of its cluster now: whoever can read it can enrol servers")
	return filepath.WalkDir(dir, func(src string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, src)
		if err != nil {
			return err
		}
		dest := "/" + filepath.ToSlash(relative)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case info.Mode().IsRegular():
			return l.userFile(src, dest, info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			return l.userLink(src, dest)
		}
		return fmt.Errorf("%s is neither a file nor a link; userdata render --format dir makes no such thing", src)
	})
}

func (l layer) userFile(src, dest string, mode fs.FileMode) error {
	if dest == layout.ClusterFile {
		mode = 0o600 // copies and version control forget it, and the secret is in it
	}
	if path.Dir(dest) == layout.UnitDir && strings.HasSuffix(dest, ".service") {
		if _, err := l.root.Lstat(rel(dest)); err == nil {
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("laying %s: %w", dest, err)
		}
	}
	return l.file(src, dest, mode)
}

func (l layer) userLink(src, dest string) error {
	target, err := os.Readlink(src)
	if err != nil {
		return err
	}
	old, err := l.root.Readlink(rel(dest))
	switch {
	case err == nil && old == target:
		return nil
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("laying %s: something else is there; remove it, it shall be a link to %s", dest, target)
	}
	return l.link(target, dest)
}
