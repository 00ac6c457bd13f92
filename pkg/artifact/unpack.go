package artifact

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Bounds of an archive; containerd's, the largest, unpacks to 150 MB in 9 files.
const (
	maxEntries  = 10_000
	maxUnpacked = 2 << 30 // bytes
)

// Install lays the files of a cached artefact where place says, by the path in the
// archive; an artefact that is no archive has one file, of its own name. All files
// are written beside their places first and then renamed, so that an archive that
// is refused leaves nothing behind. Directories must exist.
func (s *Store) Install(ctx context.Context, p cluster.Pin, place func(name string) (dest string, ok bool)) (err error) {
	it, err := s.item(p)
	if err != nil {
		return err
	}
	f, err := os.Open(s.path(it.SHA256))
	if err != nil {
		return fmt.Errorf("installing %s: %w", it.name, err)
	}
	defer f.Close()
	if err := s.verify(ctx, f, it); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	l := laying{ctx: ctx, place: place}
	defer func() { err = errors.Join(err, l.clean()) }()
	if err := l.lay(it.name, f); err != nil {
		return fmt.Errorf("installing %s: %w", it.name, err)
	}
	return l.commit()
}

// laying is one installation that is under way.
type laying struct {
	ctx     context.Context
	place   func(string) (string, bool)
	pending []pending
}

type pending struct{ temporary, dest string }

// lay writes everything that has a place.
func (l *laying) lay(name string, f io.Reader) error {
	r := bufio.NewReader(f)
	magic, err := r.Peek(2)
	if err != nil {
		return err
	}
	if magic[0] != 0x1f || magic[1] != 0x8b { // gzip, RFC 1952
		dest, ok := l.place(name)
		if !ok {
			return fmt.Errorf("nothing is known to do with the file %s", name)
		}
		return l.write(dest, r)
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	return l.unpack(tar.NewReader(io.LimitReader(z, maxUnpacked)))
}

// unpack refuses the whole archive for one entry that no honest one has: its
// sha256 is the pinned one, so whoever pinned it must look.
func (l *laying) unpack(t *tar.Reader) error {
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		if n >= maxEntries {
			return fmt.Errorf("the archive has more than %d entries", maxEntries)
		}
		if err := honest(h); err != nil {
			return err
		}
		dest, ok := l.place(path.Clean(h.Name))
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := l.write(dest, t); err != nil {
			return err
		}
	}
	if len(l.pending) == 0 {
		return errors.New("the archive holds nothing that was looked for")
	}
	return nil
}

// honest refuses paths that lead out of the archive, and what is neither file,
// directory nor link.
func honest(h *tar.Header) error {
	name := h.Name
	switch {
	case path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsAny(name, "\\\x00"):
		return fmt.Errorf("the archive holds the hostile path %q; nothing of it was installed", name)
	case h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink:
		if path.IsAbs(h.Linkname) || strings.HasPrefix(path.Join(path.Dir(name), h.Linkname), "..") {
			return fmt.Errorf("the archive holds the link %q to the hostile path %q; nothing of it was installed", name, h.Linkname)
		}
	case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeXGlobalHeader:
		return fmt.Errorf("the archive holds %q of the type %q, expected files and directories; nothing of it was installed", name, h.Typeflag)
	}
	return nil
}

// write puts a program beside its place.
func (l *laying) write(dest string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(dest), ".muster-"+filepath.Base(dest)+"-*")
	if err != nil {
		return err
	}
	l.pending = append(l.pending, pending{f.Name(), dest})
	_, err = io.Copy(f, readerIn(l.ctx, r))
	if err == nil {
		err = errors.Join(f.Chmod(0o755), f.Sync())
	}
	return errors.Join(err, f.Close())
}

// commit gives every file its name.
func (l *laying) commit() error {
	dirs := map[string]bool{}
	for i := range l.pending {
		p := l.pending[i]
		if err := os.Rename(p.temporary, p.dest); err != nil {
			return err
		}
		dirs[filepath.Dir(p.dest)] = true
	}
	var errs []error
	for dir := range dirs {
		errs = append(errs, syncDir(dir))
	}
	return errors.Join(errs...)
}

// clean removes what was written and not named.
func (l *laying) clean() error {
	var errs []error
	for _, p := range l.pending {
		if err := os.Remove(p.temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
