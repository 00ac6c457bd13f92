package bake

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
)

// layer writes files below one root, each whole or not at all.
type layer struct {
	ctx    context.Context
	root   *os.Root
	prefix layout.Prefix
	report *Report
}

// rel is a server's absolute path as os.Root wants it.
func rel(p string) string { return strings.TrimPrefix(p, "/") }

// agent lays the bootstrap binary, unless it is for another architecture.
func (l layer) agent(src string) error {
	if src == "" {
		return nil
	}
	own, err := machineOf(src)
	if err != nil {
		return fmt.Errorf("the agent: %w", err)
	}
	if its, ok := l.machine(); ok && its != own {
		return fmt.Errorf("the agent %s is built for %s, but the programs in the root are for %s; bake with a bootstrap of the root's architecture (--agent FILE)", src, own, its)
	}
	return l.file(src, l.prefix.Agent(), 0o755)
}

func machineOf(file string) (elf.Machine, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	machine, err := headerMachine(f)
	if err != nil {
		return 0, fmt.Errorf("%s is no Linux program: %w", file, err)
	}
	return machine, nil
}

// headerMachine reads whom a program is for from the first bytes, which are laid out
// alike for 32 and 64 bits. elf.NewFile would bring DWARF and zstd into the agent.
func headerMachine(r io.Reader) (elf.Machine, error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, fmt.Errorf("reading the %d bytes that an ELF file begins with: %w", len(head), err)
	}
	if string(head[:4]) != elf.ELFMAG {
		return 0, fmt.Errorf("it begins with %q, an ELF file with %q", head[:4], elf.ELFMAG)
	}
	switch data := elf.Data(head[elf.EI_DATA]); data {
	case elf.ELFDATA2LSB:
		return elf.Machine(binary.LittleEndian.Uint16(head[18:])), nil
	case elf.ELFDATA2MSB:
		return elf.Machine(binary.BigEndian.Uint16(head[18:])), nil
	default:
		return 0, fmt.Errorf("its ELF header gives the byte order as %d, neither 1 (little) nor 2 (big)", data)
	}
}

// machine is the architecture of the root, told by a program that every
// distribution has; false when none of them is there.
func (l layer) machine() (elf.Machine, bool) {
	for _, name := range []string{"usr/bin/dash", "usr/bin/bash", "usr/bin/busybox", "bin/busybox"} {
		f, err := l.root.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		if machine, err := headerMachine(f); err == nil {
			return machine, true
		}
	}
	return 0, false
}

// file lays a copy of the file src at dest.
func (l layer) file(src, dest string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("laying %s: %w", dest, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("laying %s: %w", dest, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("laying %s: %s is no regular file", dest, src)
	}
	return l.write(dest, in, info.Size(), mode)
}

func (l layer) content(dest string, content []byte, mode fs.FileMode) error {
	return l.write(dest, bytes.NewReader(content), int64(len(content)), mode)
}

// write lays what in holds at dest, unless exactly that is there.
func (l layer) write(dest string, in io.ReadSeeker, size int64, mode fs.FileMode) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	same, err := l.same(dest, in, size, mode)
	if err != nil {
		return fmt.Errorf("comparing %s: %w", dest, err)
	}
	if same {
		return nil
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("laying %s: %w", dest, err)
	}
	if err := l.replace(dest, mode, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	}); err != nil {
		return fmt.Errorf("laying %s: %w", dest, err)
	}
	l.report.Changed = append(l.report.Changed, dest)
	return nil
}

// same reports whether dest is a regular file with this mode and content.
func (l layer) same(dest string, in io.Reader, size int64, mode fs.FileMode) (bool, error) {
	info, err := l.root.Lstat(rel(dest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != mode || info.Size() != size {
		return false, err
	}
	f, err := l.root.Open(rel(dest))
	if err != nil {
		return false, err
	}
	defer f.Close()
	a, b := make([]byte, 1<<18), make([]byte, 1<<18)
	for {
		n, errA := io.ReadFull(in, a)
		m, errB := io.ReadFull(f, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if ended(errA) && ended(errB) {
			return true, nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// replace writes a file beside dest and renames it, so that an image is never
// left with half a program. A link at dest is replaced, not followed.
func (l layer) replace(dest string, mode fs.FileMode, fill func(io.Writer) error) error {
	dir, base := path.Split(rel(dest))
	dir = strings.TrimSuffix(dir, "/")
	if err := l.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp := path.Join(dir, "."+base+".bake")
	if err := l.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := l.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Chmod(mode) // the umask must not decide
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.root.Rename(tmp, rel(dest))
	}
	if err != nil {
		return errors.Join(err, l.root.Remove(tmp))
	}
	return l.syncDir(dir)
}

// link lays a symbolic link at dest, where nothing is yet.
func (l layer) link(target, dest string) error {
	dir := path.Dir(rel(dest))
	if err := l.root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("linking %s: %w", dest, err)
	}
	if err := l.root.Symlink(target, rel(dest)); err != nil {
		return fmt.Errorf("linking %s to %s: %w", dest, target, err)
	}
	l.report.Changed = append(l.report.Changed, dest)
	return l.syncDir(dir)
}

func (l layer) syncDir(dir string) error {
	d, err := l.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
