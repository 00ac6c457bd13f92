package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeExt4 makes a sparse file of size bytes that holds an empty ext4.
func MakeExt4(ctx context.Context, file string, size int64) error {
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		return fmt.Errorf("making a disk: %w", err)
	}
	if _, err := Output(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", file); err != nil {
		return fmt.Errorf("making a disk: %w", err)
	}
	return nil
}

// MountExt4 mounts a file that MakeExt4 made. After a power loss the mount replays
// its journal, as a real boot does. The loop device is of this mount and goes with
// it.
func MountExt4(ctx context.Context, file, on string) error {
	_, err := Output(ctx, "mount", "-t", "ext4", "-o", "loop", file, on)
	return err
}

// MountOverlay mounts an overlay of the lower directories, topmost first.
func MountOverlay(lower []string, upper, work, on string) error {
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lower, ":"), upper, work)
	if err := unix.Mount("overlay", on, "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the overlay of %s on %s: %w", strings.Join(lower, ":"), on, err)
	}
	return nil
}

// Unmount unmounts what is mounted on path, if anything is.
func Unmount(ctx context.Context, path string) error {
	on, err := Mounted(path)
	if err != nil || !on {
		return err
	}
	// The mount namespace of a killed server dissolves a moment after its processes.
	var last error
	err = Poll(ctx, path+" is unmounted", func() bool {
		last = unix.Unmount(path, 0)
		return !errors.Is(last, unix.EBUSY)
	})
	if err = errors.Join(err, last); err != nil && !errors.Is(last, unix.EINVAL) {
		return fmt.Errorf("unmounting %s: %w; fuser -vm %s tells who holds it", path, err, path)
	}
	return nil
}

// Mounted says whether something is mounted on exactly path.
func Mounted(path string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("reading mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			return true, nil
		}
	}
	return false, nil
}

// ShutdownFS ends all writing of the file system mounted on path at once, without
// flushing its journal: FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, of
// fs/ext4/ext4.h. Dirty pages never reach the disk.
func ShutdownFS(path string) error {
	const (
		shutdown   = 0x8004587d // _IOR('X', 125, __u32)
		noLogFlush = 2
	)
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("shutting down the file system: %w", err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), shutdown, noLogFlush); err != nil {
		return fmt.Errorf("shutting down the file system on %s: %w", path, err)
	}
	return nil
}
