// Package artifact gets what the lock file pins: from its cache, from the image,
// from another server of the cluster, or from mirrors; resumed where it broke off,
// and never used before its sha256 is the pinned one.
//
// It knows nothing of what an artefact is for. Floor 2.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// Peer is another server that has verified copies.
type Peer struct {
	Name string
	// Open opens a copy from an offset on; its error says why there is none.
	Open func(ctx context.Context, sha256 string, offset int64) (io.ReadCloser, error)
}

// Store is the cache of artefacts on this server. Files in it are named by their
// sha256; what is not whole yet ends in .part.
type Store struct {
	Dir   string // made when missing, 0700
	Baked string // a directory of the image with files named likewise; may be missing
	Arch  string // amd64 or arm64
	// Peers are asked before mirrors; nil is nobody.
	Peers func(ctx context.Context) []Peer
	HTTP  *http.Client
	Free  func(path string) (bytes uint64, err error)
	Now   func() time.Time
	Log   *slog.Logger

	mu   sync.Mutex
	bad  map[string]time.Time // URLs and peers that gave another file, and when
	news progress
}

// item is a pin for this server's architecture. The agent's has no size.
type item struct {
	name string
	urls []string
	cluster.Digest
}

// most bounds what is taken in for a pin without a size.
const most = 256 << 20

// limit is the size, or what it may be at most.
func (it item) limit() int64 {
	if it.Size == 0 {
		return most
	}
	return it.Size
}

// sized says whether a file may be this artefact by its size.
func (it item) sized(size int64) bool { return size == it.Size || it.Size == 0 }

func (s *Store) item(p cluster.Pin) (item, error) {
	it := item{name: p.Name, Digest: p.For(s.Arch)}
	if it.SHA256 == "" {
		return it, fmt.Errorf("%s is not pinned for %s: run userdata lock with spec.artifacts.architectures, and render again", p.Name, s.Arch)
	}
	for _, u := range p.URLs {
		it.urls = append(it.urls, strings.ReplaceAll(u, "ARCH", s.Arch))
	}
	return it, nil
}

// parallel is how many artefacts are fetched at once: enough to fill a line with a
// few large files, few enough for a mirror that all servers ask at once.
const parallel = 4

// Fetch returns when every pin lies in the cache, verified. What can be had is
// had, even if another one fails. report hears how far it is.
func (s *Store) Fetch(ctx context.Context, pins []cluster.Pin, report func(member.Fetching)) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("making room for artefacts: %w", err)
	}
	var missing []item
	var errs []error
	for _, p := range pins {
		it, err := s.item(p)
		if err == nil && !s.has(it) {
			missing = append(missing, it)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	if err := s.checkSpace(missing); err != nil {
		return err
	}
	s.news.begin(missing, report)
	var peers []Peer
	if s.Peers != nil {
		peers = s.Peers(ctx)
	}
	failures := make([]error, len(missing))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, it := range missing {
		group.Go(func() error {
			failures[i] = s.fetch(ctx, it, peers)
			s.news.done(it, failures[i])
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	return errors.Join(failures...)
}

// slack is left over for votes and journals beside artefacts.
const slack = 64 << 20

func (s *Store) checkSpace(missing []item) error {
	need := uint64(slack)
	for _, it := range missing {
		need += uint64(it.Size)
		if part, err := os.Stat(s.path(it.SHA256) + partial); err == nil {
			need -= min(uint64(part.Size()), uint64(it.Size))
		}
	}
	free, err := s.Free(s.Dir)
	if err != nil {
		return fmt.Errorf("asking for the space at %s: %w", s.Dir, err)
	}
	if free < need {
		return fmt.Errorf("%s has %d MiB free, expected at least %d for artefacts; make room or use a larger disk", s.Dir, free>>20, need>>20)
	}
	return nil
}

const partial = ".part"

func (s *Store) path(sum string) string { return filepath.Join(s.Dir, sum) }

// has says that an artefact lies in the cache. It was verified when it got its
// name; Install verifies it again.
func (s *Store) has(it item) bool {
	info, err := os.Stat(s.path(it.SHA256))
	return err == nil && info.Mode().IsRegular() && it.sized(info.Size())
}

// isSum keeps names that peers ask for from being paths.
func isSum(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == 2*sha256.Size && strings.ToLower(name) == name
}

// Open opens a verified artefact, for another server; fs.ErrNotExist says that
// there is none of that name.
func (s *Store) Open(sum string) (*os.File, error) {
	if !isSum(sum) {
		return nil, fmt.Errorf("%q is no sha256: %w", sum, fs.ErrNotExist)
	}
	f, err := os.Open(s.path(sum))
	if errors.Is(err, fs.ErrNotExist) && s.Baked != "" {
		return os.Open(filepath.Join(s.Baked, sum))
	}
	return f, err
}

// Keep removes what came into the cache under another sha256 than these, whole or not.
func (s *Store) Keep(sums ...string) error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		sum := strings.TrimSuffix(e.Name(), partial)
		if isSum(sum) && !slices.Contains(sums, sum) {
			err = errors.Join(err, os.Remove(filepath.Join(s.Dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("clearing the cache of what is not needed any more: %w", err)
	}
	return nil
}

// Path is where an artefact lies, for programs that read it themselves, once its
// sha256 was checked again.
func (s *Store) Path(ctx context.Context, p cluster.Pin) (string, error) {
	it, err := s.item(p)
	if err != nil {
		return "", err
	}
	f, err := os.Open(s.path(it.SHA256))
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := s.verify(ctx, f, it); err != nil {
		return "", err
	}
	return s.path(it.SHA256), nil
}

// verify reads a file to its end; one that is not what its name says is removed,
// so that it is fetched anew.
func (s *Store) verify(ctx context.Context, f *os.File, it item) error {
	hash := sha256.New()
	if _, err := io.Copy(hash, readerIn(ctx, f)); err != nil {
		return fmt.Errorf("reading %s from the cache: %w", it.name, err)
	}
	if have := hex.EncodeToString(hash.Sum(nil)); have != it.SHA256 {
		return errors.Join(fmt.Errorf("%s in the cache has sha256 %s, expected %s: the disk changed it; it is fetched anew", it.name, have, it.SHA256), os.Remove(f.Name()))
	}
	return nil
}

// readerIn ends a long read with its context.
func readerIn(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
