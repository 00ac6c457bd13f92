package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// temporaryPrefix begins the names of files that are not yet renamed.
const temporaryPrefix = ".muster-"

// WriteFile replaces a file whole: temporary file in the same directory, fsync,
// read back, rename, fsync of the directory. After power loss the file is the
// old or the new one, and when WriteFile returned nil it is the new one. perm is
// set exactly, whatever the umask is. The directory must exist.
func WriteFile(path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporaryPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreMissing(os.Remove(f.Name())))
		}
	}()
	if err := fill(f, data, perm); err != nil {
		return err
	}
	if err := sameBytes(f.Name(), data); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// fill writes, syncs and closes a file.
func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = syncFile(f)
	}
	return errors.Join(err, f.Close())
}

// syncFile is the one place where data is made to survive power loss, so that a
// test can show what happens without it.
func syncFile(f *os.File) error { return f.Sync() }

// syncDir makes renames, creations and removals in a directory survive power
// loss.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the directory %s: %w", dir, err)
	}
	if err := errors.Join(syncFile(d), d.Close()); err != nil {
		return fmt.Errorf("sync the directory %s: %w", dir, err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readBounded reads a file of at most limit bytes; of a longer one it returns
// limit+1 bytes, which no decoder accepts.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	return data, errors.Join(err, f.Close())
}

// Flush returns when everything that was written so far to the file systems of
// these directories, by any program, survives power loss. A directory that does
// not exist holds nothing to flush.
func Flush(dirs ...string) error {
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("flush %s: %w", dir, err)
		}
		err = unix.Syncfs(int(d.Fd()))
		if closing := d.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return fmt.Errorf("flush the file system of %s: %w", dir, err)
		}
	}
	return nil
}

// synchronous is FS_SYNC_FL of linux/fs.h, what chattr +S sets.
const synchronous = 0x8

// WriteThrough has what any program writes into files that it makes in these
// directories on disk when its write returns, and its name too: it is for programs
// of others that never call fsync. A directory that does not exist is passed over;
// one that is made later below these follows them. A file system that knows no such
// attribute goes on as before.
func WriteThrough(dirs ...string) error {
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("have %s written through: %w", dir, err)
		}
		flags, err := unix.IoctlGetUint32(int(d.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil && flags&synchronous == 0 {
			err = unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, int(flags|synchronous))
		}
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			err = nil
		}
		if err = errors.Join(err, d.Close()); err != nil {
			return fmt.Errorf("have %s written through: %w", dir, err)
		}
	}
	return nil
}
