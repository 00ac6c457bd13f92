package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/test/rig/machine"
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
	if on, err := machine.Mounted(s.path("root")); err != nil || on {
		return err
	}
	lower := append([]string{s.rig.layerDir()}, s.rig.state.Image.Lower...)
	if err := machine.MountOverlay(lower, s.path("up"), s.path("work"), s.path("root")); err != nil {
		return err
	}
	return s.seed(ctx)
}

// mountState makes the ext4 at the first boot.
func (s *Server) mountState(ctx context.Context) error {
	image, on := s.path(stateImage), s.path("state")
	_, err := os.Stat(image)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := machine.MakeExt4(ctx, image, stateSize); err != nil {
			return err
		}
	}
	if is, err := machine.Mounted(on); err != nil || is {
		return err
	}
	if err := machine.MountExt4(ctx, image, on); err != nil {
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

// Disk mounts what survived the last power loss of a server that is off, so that
// HostPath can be read before it boots.
func (s *Server) Disk(ctx context.Context) error { return s.mountState(ctx) }

// HostPath is where this machine sees a file of what survives a power loss.
func (s *Server) HostPath(path string) string {
	for _, d := range stateDirs {
		if rest, ok := strings.CutPrefix(path, d.path); ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(s.path("state"), d.name, rest)
		}
	}
	return filepath.Join(s.path("root"), path)
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
	if _, err := machine.Output(ctx, "cp", "-al", from, next); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Ext(path) != ".db" {
			return err
		}
		copied := filepath.Join(next, strings.TrimPrefix(path, from))
		_, err = machine.Output(ctx, "cp", "-a", "--remove-destination", path, copied)
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
		if err := machine.Unmount(ctx, s.path(d)); err != nil {
			return err
		}
	}
	return nil
}
