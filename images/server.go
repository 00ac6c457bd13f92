package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
// lower directories, with artifacts where they are named.
func (b *builder) bake(ctx context.Context, agent, artifacts string, lower []string) (string, error) {
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
	name, parts, args := "bake", []string{"1", sum, fmt.Sprint(lower)}, []string{"bake"}
	if artifacts != "" {
		programs, err := dirKey(artifacts)
		if err != nil {
			return "", err
		}
		// A name of its own, so that the cache keeps as many of both kinds.
		name, parts, args = "light", append(parts, programs), append(args, "--artifacts", artifacts)
	}
	return b.cache.product(ctx, name, key(parts...), func(ctx context.Context, dir string) error {
		return step(ctx, b.cache.log, "bake the agent into the server's root", func(ctx context.Context) error {
			return b.overlay(ctx, "bake", filepath.Join(dir, "root"), lower, func(merged string) error {
				return b.cache.runCommand(name, exec.CommandContext(ctx, agent, append(args, "--root", merged)...))
			})
		})
	})
}

// dirKey hashes the files below a directory by their names and contents.
func dirKey(dir string) (string, error) {
	var parts []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		sum, err := fileKey(path)
		parts = append(parts, path, sum)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the artefacts: %w", err)
	}
	return key(parts...), nil
}
