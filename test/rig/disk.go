package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A server's disk, in its directory:
//
//	up, work       the upper layer of the overlay on root
//	containerd     /var/lib/containerd: overlays cannot lie on an overlay
//	state.img      an ext4 that holds what must survive a power loss, mounted on state

const (
	stateImage = "state.img"
	stateSize  = 2 << 30 // sparse
)

// stateDirs are the directories on state.img and where the server sees them.
var stateDirs = []struct {
	name, path string
	mode       os.FileMode
}{
	{"muster", "/var/lib/muster", 0o700},
	{"etcd", "/var/lib/etcd", 0o700},
	{"kubelet", "/var/lib/kubelet", 0o755},
	{"kubernetes", "/etc/kubernetes", 0o755},
}

// mountDisk makes what lacks of the disk and mounts it.
func (s *Server) mountDisk(ctx context.Context) error {
	for _, d := range []string{"up", "work", "root", "state"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
	if err := s.cloneStore(ctx); err != nil {
		return err
	}
	if err := s.mountState(ctx); err != nil {
		return err
	}
	if on, err := mounted(s.path("root")); err != nil || on {
		return err
	}
	lower := append([]string{s.rig.layerDir()}, s.rig.state.Image.Lower...)
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lower, ":"), s.path("up"), s.path("work"))
	if err := unix.Mount("overlay", s.path("root"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the overlay of %s on %s: %w", strings.Join(lower, ":"), s.path("root"), err)
	}
	return s.seed()
}

// mountState makes the ext4 at the first boot. After a power loss the mount
// replays its journal, as a real boot does.
func (s *Server) mountState(ctx context.Context) error {
	image, on := s.path(stateImage), s.path("state")
	_, err := os.Stat(image)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, stateSize)); err != nil {
			return fmt.Errorf("state disk: %w", err)
		}
		if _, err := output(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image); err != nil {
			return fmt.Errorf("state disk: %w", err)
		}
	}
	if is, err := mounted(on); err != nil || is {
		return err
	}
	// The loop device is of this mount and goes with it.
	if _, err := output(ctx, "mount", "-t", "ext4", "-o", "loop", image, on); err != nil {
		return fmt.Errorf("state disk: %w", err)
	}
	if !fresh {
		return nil
	}
	for _, d := range stateDirs {
		if err := os.Mkdir(filepath.Join(on, d.name), d.mode); err != nil {
			return fmt.Errorf("state disk: %w", err)
		}
	}
	return nil
}

// cloneStore gives the server the image's containerd store by hard links: content
// and unpacked layers are never written to. The databases are, and are copied.
func (s *Server) cloneStore(ctx context.Context) error {
	to, from := s.path("containerd"), s.rig.state.Image.Containerd
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if from == "" {
		return os.Mkdir(to, 0o711)
	}
	next := to + ".new"
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	if _, err := output(ctx, "cp", "-al", from, next); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Ext(path) != ".db" {
			return err
		}
		copied := filepath.Join(next, strings.TrimPrefix(path, from))
		_, err = output(ctx, "cp", "-a", "--remove-destination", path, copied)
		return err
	})
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return os.Rename(next, to)
}

// unmountDisk unmounts what is mounted.
func (s *Server) unmountDisk(ctx context.Context) error {
	for _, d := range []string{"root", "state"} {
		on, err := mounted(s.path(d))
		if err != nil {
			return err
		}
		if !on {
			continue
		}
		// The mount namespace of a killed server dissolves a moment after its processes.
		var last error
		err = poll(ctx, s.path(d)+" is unmounted", func() bool {
			last = unix.Unmount(s.path(d), 0)
			return !errors.Is(last, unix.EBUSY)
		})
		if err = errors.Join(err, last); err != nil && !errors.Is(last, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w; fuser -vm %s tells who holds it", s.path(d), err, s.path(d))
		}
	}
	return nil
}

// mounted says whether something is mounted on exactly path.
func mounted(path string) (bool, error) {
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

// shutdownFS ends all writing of the file system mounted on path at once, without
// flushing its journal: FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, of
// fs/ext4/ext4.h. Dirty pages never reach the disk.
func shutdownFS(path string) error {
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
