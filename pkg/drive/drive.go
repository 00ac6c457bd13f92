// Package drive reads what a labelled disk tells a server of itself: a config drive or
// a NoCloud one that nobody has mounted. The disk is not mounted anywhere either: its
// file system is opened, a few documents are copied, and it is closed. User-data on
// it is not looked at.
//
// Floor 2.
package drive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// documents are what each kind of disk may hold, by its label in lower case. The
// first is what it must hold.
var documents = map[string][]string{
	"config-2": {"openstack/latest/meta_data.json", "openstack/latest/network_data.json"},
	"cidata":   {"meta-data", "network-config"},
}

// fileSystems are those of such disks, with the option that keeps the kernel from
// writing to one that was not closed well.
var fileSystems = []struct{ name, option string }{{"iso9660", ""}, {"vfat", ""}, {"ext4", "noload"}}

// most is the size of a document at most, in bytes; real ones have some KB.
const most = 1 << 20

// Copy looks in a directory of links to disks by their labels (/dev/disk/by-label),
// copies the documents of those that it knows to a directory, and returns the names
// of the copies.
func Copy(byLabel, to string) ([]string, error) {
	entries, err := os.ReadDir(byLabel)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for labelled disks: %w", err)
	}
	var copied, labels []string
	for _, e := range entries {
		names, known := documents[strings.ToLower(e.Name())]
		if !known {
			continue
		}
		labels = append(labels, e.Name())
		got, err := copyDisk(filepath.Join(byLabel, e.Name()), to, names)
		if err != nil {
			return copied, fmt.Errorf("the disk labelled %s: %w", e.Name(), err)
		}
		copied = append(copied, got...)
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("no disk is labelled config-2 or CIDATA: %s has none of them (udev makes it; lsblk -o +LABEL shows labels)", byLabel)
	}
	return copied, nil
}

// copyDisk copies the documents of one disk.
func copyDisk(device, to string, names []string) (copied []string, err error) {
	fd, err := open(device)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// A link on the disk cannot lead out of it.
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// What it must hold is copied last: a reader finds all or nothing.
	for _, name := range slices.Backward(names) {
		data, err := read(root, name)
		if errors.Is(err, fs.ErrNotExist) && name != names[0] {
			continue
		}
		if err != nil {
			return nil, err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			return nil, err
		}
		copied = append(copied, target)
	}
	return copied, nil
}

func read(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s is larger than %d bytes, so it is no document of a platform", name, most)
	}
	return data, err
}

// open returns the root directory of a disk's file system, which is attached nowhere
// and is gone when that is closed.
func open(device string) (int, error) {
	var problems []error
	for _, f := range fileSystems {
		fd, err := openAs(device, f.name, f.option)
		if err == nil {
			return fd, nil
		}
		problems = append(problems, fmt.Errorf("as %s: %w", f.name, err))
	}
	return -1, fmt.Errorf("its file system cannot be opened: %w", errors.Join(problems...))
}

func openAs(device, name, option string) (int, error) {
	fsfd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return -1, errors.New("this kernel has no such file system")
	}
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	err = errors.Join(unix.FsconfigSetString(fsfd, "source", device), unix.FsconfigSetFlag(fsfd, "ro"))
	if option != "" {
		err = errors.Join(err, unix.FsconfigSetFlag(fsfd, option))
	}
	if err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("opening it: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return fd, nil
}
