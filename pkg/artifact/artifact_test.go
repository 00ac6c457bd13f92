package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func newStore(t *testing.T) *Store {
	return &Store{
		Dir: filepath.Join(t.TempDir(), "artifacts"), Arch: "amd64", HTTP: http.DefaultClient, Now: time.Now,
		Free: func(string) (uint64, error) { return 1 << 40, nil }, Log: slog.New(slog.DiscardHandler),
	}
}

func pin(name string, body []byte, urls ...string) cluster.Pin {
	return cluster.Pin{Name: name, URLs: urls, AMD64: cluster.Digest{SHA256: sumOf(body), Size: int64(len(body))}}
}

// mirror serves files by path and counts what it is asked for.
type mirror struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string
	ranges []string
}

func serveFiles(t *testing.T, files map[string][]byte) *mirror {
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.URL.Path)
		m.ranges = append(m.ranges, r.Header.Get("Range"))
		m.mu.Unlock()
		body, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	t.Cleanup(m.Close)
	return m
}

// last keeps the last progress.
func last(p *member.Fetching) func(member.Fetching) { return func(now member.Fetching) { *p = now } }

// TestMirrors: one mirror is dead, one gives another file, one has it.
func TestMirrors(t *testing.T) {
	body := bytes.Repeat([]byte("kubelet"), 1000)
	dead := httptest.NewServer(nil)
	dead.Close()
	evil := serveFiles(t, map[string][]byte{"/kubelet-amd64": bytes.Repeat([]byte("KUBELET"), 1000)})
	good := serveFiles(t, map[string][]byte{"/kubelet-amd64": body})
	s := newStore(t)
	var p member.Fetching
	pins := []cluster.Pin{pin("kubelet", body, dead.URL+"/kubelet-ARCH", evil.URL+"/kubelet-ARCH", good.URL+"/kubelet-ARCH")}
	if err := s.Fetch(t.Context(), pins, last(&p)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.Dir, sumOf(body)))
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("cached %d bytes, %v", len(got), err)
	}
	faults := strings.Join(p.Faults, "\n")
	for _, want := range []string{dead.URL + ": dial tcp ", evil.URL + ": it is another file: its sha256 is " + sumOf(bytes.Repeat([]byte("KUBELET"), 1000)) + ", pinned is " + sumOf(body)} {
		if !strings.Contains(faults, want) {
			t.Errorf("progress does not say %q:\n%s", want, faults)
		}
	}
	if size := int64(len(body)); p.Done != 1 || p.Items != 1 || p.Bytes != size || p.Size != size {
		t.Errorf("%+v", p)
	}
	// A second run asks nobody.
	asked := len(good.asked)
	if err := s.Fetch(t.Context(), pins, last(&p)); err != nil || len(good.asked) != asked {
		t.Errorf("a second run: %v, %v", err, good.asked)
	}
}

// TestAllCorrupt: a clear end, nothing in the cache, and mirrors that are corrupt
// are not downloaded from again and again.
func TestAllCorrupt(t *testing.T) {
	body := []byte("runc itself")
	a := serveFiles(t, map[string][]byte{"/runc": []byte("runc ITSELF")})
	b := serveFiles(t, map[string][]byte{"/runc": []byte("longer than it may be")})
	s := newStore(t)
	pins := []cluster.Pin{pin("runc", body, a.URL+"/runc", b.URL+"/runc")}
	err := s.Fetch(t.Context(), pins, func(member.Fetching) {})
	want := fmt.Sprintf("runc cannot be had: %s/runc: it is another file: its sha256 is %s, pinned is %s; %s/runc: it is another file: longer than the pinned 11 bytes",
		a.URL, sumOf([]byte("runc ITSELF")), sumOf(body), b.URL)
	if err == nil || err.Error() != want {
		t.Errorf("%v\nexpected %s", err, want)
	}
	if left, _ := os.ReadDir(s.Dir); len(left) != 0 {
		t.Errorf("the cache holds %v", left)
	}
	asked := len(a.asked)
	err = s.Fetch(t.Context(), pins, func(member.Fetching) {})
	if err == nil || len(a.asked) != asked || !strings.Contains(err.Error(), "gave another file with another sha256, and is asked again in 10m0s") {
		t.Errorf("again: %v, asked %v", err, a.asked)
	}
	s.Now = func() time.Time { return time.Now().Add(amnesty + time.Second) }
	if _ = s.Fetch(t.Context(), pins, func(member.Fetching) {}); len(a.asked) == asked {
		t.Error("a corrupt mirror was not asked again after its time")
	}
}

// TestResume: what broke off goes on where it was, also at another mirror.
func TestResume(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:600_000])
	}))
	defer half.Close()
	good := serveFiles(t, map[string][]byte{"/f": body})
	s := newStore(t)
	if err := s.Fetch(t.Context(), []cluster.Pin{pin("f", body, half.URL+"/f")}, func(member.Fetching) {}); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Fatalf("half a file: %v", err)
	}
	if err := s.Fetch(t.Context(), []cluster.Pin{pin("f", body, good.URL+"/f")}, func(member.Fetching) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bytes=600000-"}, good.ranges); diff != "" {
		t.Error(diff)
	}
	// A part that is wrong costs one more download, not the mirror.
	wrong := filepath.Join(s.Dir, sumOf(body))
	if err := errors.Join(os.Remove(wrong), os.WriteFile(wrong+partial, bytes.Repeat([]byte("x"), 500), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(t.Context(), []cluster.Pin{pin("f", body, good.URL+"/f")}, func(member.Fetching) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bytes=600000-", "bytes=500-", ""}, good.ranges); diff != "" {
		t.Error(diff)
	}
}

// trickle is a transport whose host slow brings a byte a second, silent nothing.
type trickle struct{ body []byte }

func (tr trickle) RoundTrip(r *http.Request) (*http.Response, error) {
	response := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: r}
	if r.URL.Host == "fast" {
		response.Body = io.NopCloser(bytes.NewReader(tr.body))
		return response, nil
	}
	in, out := io.Pipe()
	response.Body = in
	go func() {
		for i := range tr.body {
			if r.URL.Host == "silent" {
				<-r.Context().Done()
			}
			select {
			case <-r.Context().Done():
				out.CloseWithError(r.Context().Err())
				return
			case <-time.After(time.Second):
			}
			if _, err := out.Write(tr.body[i : i+1]); err != nil {
				return
			}
		}
		_ = out.Close()
	}()
	return response, nil
}

// TestSlow: a place that does not keep up is left for the next; when there is no
// other it may take its time, but not be silent.
func TestSlow(t *testing.T) {
	for _, row := range []struct {
		hosts []string
		took  time.Duration
		fault string
		fails string
	}{
		{[]string{"slow", "fast"}, window, "http://slow: too slow: 1", ""},
		{[]string{"silent", "fast"}, window, "http://silent: too slow: 0 bytes in 15s, expected at least 491520", ""},
		{[]string{"slow"}, 100 * time.Second, "", ""},
		{[]string{"slow", "silent"}, 2*window + 100*time.Second - 14*time.Second, "http://slow: too slow", ""},
		{[]string{"silent"}, window, "http://silent: too slow", "f cannot be had: http://silent/f: too slow: 0 bytes in 15s, expected at least 1"},
	} {
		t.Run(strings.Join(row.hosts, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := bytes.Repeat([]byte("x"), 100)
				s := newStore(t)
				s.HTTP = &http.Client{Transport: trickle{body}}
				p := pin("f", body)
				for _, h := range row.hosts {
					p.URLs = append(p.URLs, "http://"+h+"/f")
				}
				var now member.Fetching
				begin := time.Now()
				err := s.Fetch(t.Context(), []cluster.Pin{p}, last(&now))
				if (err == nil) != (row.fails == "") || err != nil && !strings.Contains(err.Error(), row.fails) {
					t.Errorf("%v, expected %q", err, row.fails)
				}
				if took := time.Since(begin); took < row.took || took > row.took+20*time.Second {
					t.Errorf("took %s, expected about %s", took, row.took)
				}
				if !strings.Contains(strings.Join(now.Faults, "\n"), row.fault) {
					t.Errorf("%q, expected %q", now.Faults, row.fault)
				}
			})
		})
	}
}

// TestPlaces: the image first, then peers, then mirrors.
func TestPlaces(t *testing.T) {
	body := []byte("kubeadm itself")
	good := serveFiles(t, map[string][]byte{"/kubeadm": body})
	s := newStore(t)
	s.Baked = t.TempDir()
	var asked []int64
	s.Peers = func(context.Context) []Peer {
		return []Peer{
			{"cp1", func(context.Context, string, int64) (io.ReadCloser, error) { return nil, errors.New("not ready") }},
			{"cp2", func(_ context.Context, sum string, offset int64) (io.ReadCloser, error) {
				asked = append(asked, offset)
				if sum != sumOf(body) {
					return nil, fs.ErrNotExist
				}
				return io.NopCloser(bytes.NewReader(body[offset:])), nil
			}},
		}
	}
	pins := []cluster.Pin{pin("kubeadm", body, good.URL+"/kubeadm")}
	var p member.Fetching
	if err := s.Fetch(t.Context(), pins, last(&p)); err != nil {
		t.Fatal(err)
	}
	if len(good.asked) != 0 || len(asked) != 1 {
		t.Errorf("mirror asked %v, peer %v", good.asked, asked)
	}
	if diff := cmp.Diff([]string{"cp1: not ready"}, p.Faults); diff != "" {
		t.Error(diff)
	}
	if err := errors.Join(os.RemoveAll(s.Dir), os.WriteFile(filepath.Join(s.Baked, sumOf(body)), body, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(t.Context(), pins, last(&p)); err != nil || len(asked) != 1 {
		t.Errorf("from the image: %v, peer asked %v", err, asked)
	}
	// An image whose copy rotted is no hindrance.
	if err := errors.Join(os.RemoveAll(s.Dir), os.WriteFile(filepath.Join(s.Baked, sumOf(body)), []byte("rotten itself"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(t.Context(), pins, last(&p)); err != nil {
		t.Error(err)
	}
}

func TestSpace(t *testing.T) {
	s := newStore(t)
	s.Free = func(string) (uint64, error) { return 100 << 20, nil }
	p := pin("images-core", []byte("x"), "http://127.0.0.1:1/x")
	p.AMD64.Size = 500 << 20
	err := s.Fetch(t.Context(), []cluster.Pin{p}, func(member.Fetching) {})
	if err == nil || !strings.Contains(err.Error(), "has 100 MiB free, expected at least 564 for artefacts") {
		t.Error(err)
	}
	p.AMD64 = cluster.Digest{}
	if err := s.Fetch(t.Context(), []cluster.Pin{p}, nil); err == nil || !strings.Contains(err.Error(), "images-core is not pinned for amd64") {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"../../etc/passwd", "installed.json", strings.Repeat("A", 64), strings.Repeat("a", 64), strings.Repeat("a", 64) + partial} {
		if f, err := s.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

// TestWholePart: the power went after the last byte and before the file had its
// name. What is left of a whole file no mirror can send.
func TestWholePart(t *testing.T) {
	body := bytes.Repeat([]byte("kubelet"), 1000)
	for _, c := range []struct {
		name  string
		part  []byte
		asked int
	}{
		{"it came whole", body, 0},
		{"the disk has zeros in its place", make([]byte, len(body)), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := serveFiles(t, map[string][]byte{"/kubelet": body})
			s := newStore(t)
			p := pin("kubelet", body, m.URL+"/kubelet")
			path := s.path(sumOf(body))
			if err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.WriteFile(path+partial, c.part, 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := s.Fetch(t.Context(), []cluster.Pin{p}, nil); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
				t.Errorf("cached %d bytes, %v", len(got), err)
			}
			if len(m.asked) != c.asked {
				t.Errorf("the mirror was asked %d times, expected %d", len(m.asked), c.asked)
			}
		})
	}
}

// TestKeep: what is not named goes, whole or not; what is no artefact stays.
func TestKeep(t *testing.T) {
	s := newStore(t)
	if err := s.Keep(sumOf([]byte("a"))); err != nil {
		t.Errorf("before the first artefact: %v", err)
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, b, c := sumOf([]byte("a")), sumOf([]byte("b")), sumOf([]byte("c"))
	for _, name := range []string{a, b, c + partial, a + partial, "installed.json"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Keep(a, ""); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(s.Dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{a, a + partial, "installed.json"}
	slices.Sort(want)
	if diff := cmp.Diff(want, left); diff != "" || err != nil {
		t.Errorf("%v, left (-want +got)\n%s", err, diff)
	}
}
