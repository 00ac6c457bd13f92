package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cache keeps each product in a directory NAME-KEY, where KEY is a hash of all
// that went in. A product is there whole or not at all.
type cache struct {
	dir string
	log io.Writer
}

// key hashes its parts; the same parts in another split give another key.
func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// product returns the directory NAME-KEY, and has build fill it first when it
// is not there. Several processes may ask at once: one builds, the others wait.
func (c cache) product(ctx context.Context, name, key string, build func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(c.dir, name+"-"+key)
	if touch(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if touch(dir) {
		return dir, nil
	}
	tmp := filepath.Join(c.dir, ".building-"+name)
	// A killed build may have left its overlay; other mounts removeTree refuses.
	if merged := filepath.Join(tmp, mergedDir); there(merged) {
		if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return "", fmt.Errorf("unmounting what an interrupted build left at %s: %w", merged, err)
		}
	}
	if err := removeTree(tmp); err != nil {
		return "", fmt.Errorf("removing what an interrupted build left: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, tmp); err != nil {
		return "", errors.Join(fmt.Errorf("building %s: %w", name, err), removeTree(tmp))
	}
	// No fsync: after a power cut the worst is a rebuild of the cache by hand,
	// and syncing gigabytes would cost every build.
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("putting %s into the cache: %w", name, err)
	}
	return dir, c.prune(name, keepProducts)
}

// keepProducts of a name stay in the cache, the most recently used: going back
// to a commit and comparing two builds are quick, and the disk does not fill up.
const keepProducts = 4

func there(dir string) bool {
	_, err := os.Lstat(dir)
	return err == nil
}

// touch reports whether dir is there, and marks it as used now.
func touch(dir string) bool {
	now := time.Now()
	return os.Chtimes(dir, now, now) == nil
}

// lock takes the lock of one product's name, for as long as ctx allows: a build
// in another process may take minutes.
func (c cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	path := filepath.Join(c.dir, ".lock-"+name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !said {
			fmt.Fprintf(c.log, "image: %s is being built by another process, which holds %s; waiting for it\n", name, path)
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for %s, which another process builds: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// removeTree removes dir, but never through a mount: a killed build may have
// left the host's /proc or /dev mounted there.
func removeTree(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the fifth is the mount point
		if len(fields) > 4 && strings.HasPrefix(fields[4]+"/", dir+"/") {
			return fmt.Errorf("%s is mounted; unmount it (umount %s) and run this again", fields[4], fields[4])
		}
	}
	return os.RemoveAll(dir)
}

// treeKey hashes files by their relative names and contents.
func treeKey(root string, names ...string) (string, error) {
	var parts []string
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", fmt.Errorf("reading what the image is made from: %w", err)
		}
		parts = append(parts, name, string(content))
	}
	return key(parts...), nil
}

// fileKey hashes one large file.
func fileKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// prune removes the oldest products of a name beyond keep, but none that is
// mounted, such as the lower directory of a running demo.
func (c cache) prune(name string, keep int) error {
	dirs, err := filepath.Glob(filepath.Join(c.dir, name+"-*"))
	if err != nil || len(dirs) <= keep {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		used[dir] = info.ModTime()
	}
	for len(used) > keep {
		oldest := ""
		for dir, at := range used {
			if oldest == "" || at.Before(used[oldest]) {
				oldest = dir
			}
		}
		delete(used, oldest)
		if strings.Contains(string(mounts), oldest+"/") {
			continue
		}
		if err := removeTree(oldest); err != nil {
			return err
		}
	}
	return nil
}
