package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/mustermetal/muster/pkg/artifact"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/member"
)

// readLock reads a lock file; what is wrong with it is said as userdata check does.
func readLock(path string) ([]cluster.Pin, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, exitError{exitData, fmt.Errorf("the lock file: %w; userdata lock writes it", err)}
	}
	lock, problems := cluster.ParseLock(path, data)
	if err := cluster.Err(problems); err != nil {
		return nil, exitError{exitData, err}
	}
	return lock.Artifacts, nil
}

// pinned brings the artefacts of a lock file into an image.
type pinned struct {
	pins   []cluster.Pin
	agent  string // the binary that is laid in
	from   string // a directory in place of the URLs
	stderr io.Writer
}

func (p pinned) fetch(ctx context.Context, dir, arch string) (sums []string, err error) {
	var pins []cluster.Pin
	for _, pin := range p.pins {
		digest := pin.For(arch)
		if pin.Name == cluster.AgentArtifact {
			if err := p.checkAgent(digest.SHA256); err != nil {
				return nil, err
			}
			continue // it is laid where it runs
		}
		if p.from != "" {
			if pin.URLs, err = below(p.from, pin.URLs); err != nil {
				return nil, err
			}
		}
		pins, sums = append(pins, pin), append(sums, digest.SHA256)
	}
	store := artifact.Store{
		Dir: dir, Arch: arch, HTTP: toMirrors(), Free: host.Free, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := store.Fetch(ctx, pins, func(member.Fetching) {}); err != nil {
		return nil, err
	}
	for _, pin := range pins {
		// The cache trusts names; an image is made once and read by many.
		if _, err := store.Path(ctx, pin); err != nil {
			return nil, fmt.Errorf("%w; bake again", err)
		}
	}
	return sums, nil
}

// checkAgent refuses an image whose servers would fetch another agent first thing.
func (p pinned) checkAgent(want string) error {
	f, err := os.Open(p.agent)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if have := hex.EncodeToString(hash.Sum(nil)); want != "" && have != want {
		return exitError{exitData, fmt.Errorf("the agent %s has sha256 %s, but the lock file pins %s, which servers would fetch before anything else; lay the pinned one in with --agent FILE", p.agent, have, want)}
	}
	return nil
}

// below are the places of URLs in a directory that holds a mirror.
func below(dir string, urls []string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("--from %s is no directory; userdata lock --list | wget -x -P DIR -i - makes one", dir))
	}
	var out []string
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		out = append(out, (&url.URL{Scheme: "file", Path: filepath.Join(dir, u.Host, u.Path)}).String())
	}
	return out, nil
}
