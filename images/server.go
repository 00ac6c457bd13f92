package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/bake"
)

// server makes server-KEY: root, the artefacts as an overlay's lower directory
// above Debian's, and containerd, a store that holds every archive's image.
func (b *builder) server(ctx context.Context, components, debian, archives string) (string, error) {
	k := key("2", filepath.Base(components), filepath.Base(debian), filepath.Base(archives))
	return b.cache.product(ctx, "server", k, func(ctx context.Context, dir string) error {
		bin := filepath.Join(components, "bin")
		err := step(ctx, b.cache.log, "lay the artefacts into the server's root", func(ctx context.Context) error {
			return b.overlay(ctx, "artefacts", filepath.Join(dir, "root"), []string{filepath.Join(debian, "root")}, func(merged string) error {
				_, err := bake.Bake(ctx, bake.Options{Root: merged, Artifacts: bin})
				return err
			})
		})
		if err != nil {
			return err
		}
		return step(ctx, b.cache.log, "import the images into a containerd store", func(ctx context.Context) error {
			return b.fillStore(ctx, bin, archives, filepath.Join(dir, "containerd"))
		})
	})
}

// bake makes bake-KEY/root: the thin layer that this very agent bakes over the
// lower directories.
func (b *builder) bake(ctx context.Context, agent string, lower []string) (string, error) {
	agent, err := filepath.Abs(agent)
	if err != nil {
		return "", err
	}
	sum, err := fileKey(agent)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no agent at %s; make build makes it", agent)
	}
	if err != nil {
		return "", err
	}
	k := key("1", sum, fmt.Sprint(lower))
	return b.cache.product(ctx, "bake", k, func(ctx context.Context, dir string) error {
		return step(ctx, b.cache.log, "bake the agent into the server's root", func(ctx context.Context) error {
			return b.overlay(ctx, "bake", filepath.Join(dir, "root"), lower, func(merged string) error {
				return b.cache.runCommand("bake", exec.CommandContext(ctx, agent, "bake", "--root", merged))
			})
		})
	})
}
