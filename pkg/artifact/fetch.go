package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// from is one place that may have an artefact.
type from struct {
	name  string // of the place, for people: one for all its artefacts
	where string // this artefact there
	open  func(ctx context.Context, offset int64) (body io.ReadCloser, at int64, err error)
}

var (
	errSlow    = errors.New("too slow")
	errCorrupt = errors.New("another file")
)

// fetch tries every place. One that is merely slow is left for the next, and asked
// again with more patience when no other had it.
func (s *Store) fetch(ctx context.Context, it item, peers []Peer) error {
	var failures []string
	var slow []from
	places := s.news.good(s.places(it, peers))
	try := func(f from, patient bool) (done bool) {
		err := s.fetchFrom(ctx, it, f, patient)
		if err == nil {
			s.Log.Info("artefact", "name", it.name, "from", f.where, "bytes", it.Size)
			return true
		}
		if errors.Is(err, fs.ErrNotExist) && s.Baked != "" && f.name == s.Baked {
			return false // an image need not have it
		}
		s.Log.Warn("artefact", "name", it.name, "from", f.where, "error", err)
		s.news.fault(f.name, err.Error())
		failures = append(failures, fmt.Sprintf("%s: %v", f.where, err))
		if errors.Is(err, errSlow) && !patient {
			slow = append(slow, f)
		}
		return false
	}
	for i, f := range places {
		if try(f, i == len(places)-1 && len(slow) == 0) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("fetching %s: %w", it.name, context.Cause(ctx))
		}
	}
	for _, f := range slow {
		if try(f, true) {
			return nil
		}
	}
	return fmt.Errorf("%s cannot be had: %s", it.name, strings.Join(failures, "; "))
}

// places lists where an artefact may be: the image, peers, mirrors.
func (s *Store) places(it item, peers []Peer) []from {
	var out []from
	if s.Baked != "" {
		path := filepath.Join(s.Baked, it.SHA256)
		out = append(out, from{name: s.Baked, where: path, open: opener(path)})
	}
	for _, p := range peers {
		out = append(out, from{name: p.Name, where: p.Name, open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			body, err := p.Open(ctx, it.SHA256, offset)
			return body, offset, err
		}})
	}
	for _, u := range it.urls {
		out = append(out, s.mirror(u))
	}
	return out
}

func (s *Store) mirror(address string) from {
	u, err := url.Parse(address)
	if err != nil { // validated: only a bug comes here
		return from{name: address, where: address, open: func(context.Context, int64) (io.ReadCloser, int64, error) { return nil, 0, err }}
	}
	if u.Scheme == "file" {
		return from{name: filepath.Dir(u.Path), where: address, open: opener(u.Path)}
	}
	return from{name: u.Scheme + "://" + u.Host, where: address, open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		return s.get(ctx, address, offset)
	}}
}

func opener(path string) func(context.Context, int64) (io.ReadCloser, int64, error) {
	return func(context.Context, int64) (io.ReadCloser, int64, error) {
		f, err := os.Open(path)
		return f, 0, err
	}
}

// get asks a mirror for a file from an offset on; one that knows no ranges begins
// at 0.
func (s *Store) get(ctx context.Context, address string, offset int64) (io.ReadCloser, int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := s.HTTP.Do(request)
	var long *url.Error // repeats the address
	if errors.As(err, &long) {
		err = long.Err
	}
	if err != nil {
		return nil, 0, err
	}
	switch {
	case response.StatusCode == http.StatusPartialContent && strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
		return response.Body, offset, nil
	case response.StatusCode == http.StatusOK:
		return response.Body, 0, nil
	}
	return nil, 0, errors.Join(fmt.Errorf("HTTP status %s", response.Status), response.Body.Close())
}

// amnesty is how long a place that gave another file is not asked again.
const amnesty = 10 * time.Minute

// fetchFrom gets an artefact from one place, going on where an earlier attempt
// broke off. When a file that came in parts is wrong, any part may be: it is
// fetched whole once before this place is called corrupt.
func (s *Store) fetchFrom(ctx context.Context, it item, f from, patient bool) error {
	s.mu.Lock()
	since, bad := s.bad[f.where]
	s.mu.Unlock()
	if left := amnesty - s.Now().Sub(since); bad && left > 0 {
		return fmt.Errorf("gave %w with another sha256, and is asked again in %s", errCorrupt, left.Round(time.Second))
	}
	whole, err := s.download(ctx, it, f, patient)
	if errors.Is(err, errCorrupt) && !whole {
		_, err = s.download(ctx, it, f, patient)
	}
	if errors.Is(err, errCorrupt) {
		s.mu.Lock()
		if s.bad == nil {
			s.bad = map[string]time.Time{}
		}
		s.bad[f.where] = s.Now()
		s.mu.Unlock()
	}
	return err
}

// download appends to the part that is there; whole says that all bytes came from
// this place.
func (s *Store) download(ctx context.Context, it item, f from, patient bool) (whole bool, err error) {
	part, err := os.OpenFile(s.path(it.SHA256)+partial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, part.Close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hash := sha256.New()
	offset, err := io.Copy(hash, part)
	if err != nil {
		return false, err
	}
	if offset > it.limit() { // longer than it may be: nothing of it is of use
		if offset, err = 0, restart(part, hash); err != nil {
			return false, err
		}
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	// All came, and a power loss was faster than its name: no server has a rest of it.
	if offset > 0 && (offset == it.Size || it.Size == 0 && sum == it.SHA256) {
		s.news.add(offset)
		if err := s.finish(part, it, offset, sum); err != nil {
			s.news.add(-offset)
			return false, err
		}
		return false, nil
	}
	w := watch(ctx, cancel, patient)
	defer w.stop()
	body, at, err := f.open(ctx, offset)
	if err != nil {
		return false, ended(ctx, err)
	}
	defer body.Close()
	if at != offset {
		if offset, err = 0, restart(part, hash); err != nil {
			return false, err
		}
	}
	s.news.add(offset)
	n, err := io.Copy(io.MultiWriter(part, hash, counter(w.add), counter(s.news.add)), io.LimitReader(body, it.limit()-offset+1))
	if err != nil {
		s.news.add(-offset - n)
		return false, ended(ctx, err)
	}
	if err := s.finish(part, it, offset+n, hex.EncodeToString(hash.Sum(nil))); err != nil {
		s.news.add(-offset - n)
		return offset == 0, err
	}
	return offset == 0, nil
}

// restart forgets a part.
func restart(part *os.File, hash interface{ Reset() }) error {
	hash.Reset()
	_, err := part.Seek(0, io.SeekStart)
	return errors.Join(err, part.Truncate(0))
}

// finish gives a file its name when it is what was pinned, and removes it when it
// is whole and something else.
func (s *Store) finish(part *os.File, it item, size int64, sum string) error {
	switch {
	case size < it.Size:
		return fmt.Errorf("ended after %d of %d bytes", size, it.Size)
	case size > it.limit():
		return errors.Join(fmt.Errorf("it is %w: longer than the pinned %d bytes", errCorrupt, it.limit()), os.Remove(part.Name()))
	case sum != it.SHA256:
		return errors.Join(fmt.Errorf("it is %w: its sha256 is %s, pinned is %s", errCorrupt, sum, it.SHA256), os.Remove(part.Name()))
	}
	if err := part.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), s.path(it.SHA256)); err != nil {
		return err
	}
	return syncDir(s.Dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ended is why a transfer ended: the reason for canceling it, where there is one.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// counter hears the sizes of writes.
type counter func(int64)

func (c counter) Write(b []byte) (int, error) {
	c(int64(len(b)))
	return len(b), nil
}
