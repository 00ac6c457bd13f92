package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mergedDir is where a product that is being built has its overlay.
const mergedDir = "merged"

// overlay lets change write to a root made of the lower directories (top first),
// and leaves what it wrote in upper, a new lower directory.
func (b *builder) overlay(ctx context.Context, name, upper string, lower []string, change func(merged string) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	merged := filepath.Join(filepath.Dir(upper), mergedDir)
	work := filepath.Join(filepath.Dir(upper), "work")
	for _, dir := range []string{upper, merged, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	// Nothing but plain files and whiteouts may be in upper: it becomes a lower
	// directory of other overlays, where metacopies and redirects are refused.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off,metacopy=off,redirect_dir=off", strings.Join(lower, ":"), upper, work)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the layers of %s at %s: %w; the cache must be on a file system that overlay can use (ext4, xfs), not on an overlay: set MUSTER_CACHE", name, merged, err)
	}
	err = change(merged)
	if err2 := unix.Unmount(merged, 0); err2 != nil {
		return errors.Join(err, fmt.Errorf("unmounting %s: %w", merged, err2))
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(merged), os.RemoveAll(work))
}
