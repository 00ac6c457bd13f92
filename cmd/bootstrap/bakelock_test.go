package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/artifact"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// mirrorOf lays out files as wget -x does, and returns the lock file that pins them.
func mirrorOf(t *testing.T, files map[string]string) (dir string, lock cluster.Lock) {
	t.Helper()
	dir = t.TempDir()
	for name, body := range files {
		path := filepath.Join(dir, "dl.example.net/v1", name+"-"+runtime.GOARCH)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(body), 0o644)); err != nil {
			t.Fatal(err)
		}
		pin := cluster.Pin{Name: name, Version: "v1", URLs: []string{"https://dl.example.net/v1/" + name + "-ARCH"}}
		pin.Set(runtime.GOARCH, cluster.Digest{SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(body))), Size: int64(len(body))})
		lock.Artifacts = append(lock.Artifacts, pin)
	}
	return dir, lock
}

func writeLock(t *testing.T, lock cluster.Lock) string {
	t.Helper()
	data, err := lock.Marshal()
	path := filepath.Join(t.TempDir(), "cluster.lock.yaml")
	if err = errors.Join(err, os.WriteFile(path, data, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

// emptyRoot is the root of an image.
func emptyRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "etc/os-release"), []byte("ID=debian\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return root
}

// offline fails every request and counts them.
type offline struct{ asked int }

func (o *offline) RoundTrip(*http.Request) (*http.Response, error) {
	o.asked++
	return nil, errors.New("there is no network")
}

// TestBakedArtefacts: what a lock file pins is laid in from a directory; a server of
// that image then gets every artefact without asking anybody.
func TestBakedArtefacts(t *testing.T) {
	files := map[string]string{"kubelet": "a kubelet", "runc": "a runc", "images": "an archive of images"}
	mirror, lock := mirrorOf(t, files)
	root := emptyRoot(t)
	bake := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, talk bytes.Buffer
		if code := run(t.Context(), append([]string{"bake", "--root", root}, args...), &out, &talk); code != want {
			t.Fatalf("exit code %d, want %d: %s%s", code, want, &out, &talk)
		}
		return out.String(), talk.String()
	}
	out, _ := bake(0, "--lock", writeLock(t, lock), "--from", mirror)
	for _, pin := range lock.Artifacts {
		if line := "laid " + layout.Local.BakedArtifacts() + "/" + pin.For(runtime.GOARCH).SHA256 + "\n"; !strings.Contains(out, line) {
			t.Errorf("%q is not said in %s", line, out)
		}
	}
	if out, _ = bake(0, "--lock", writeLock(t, lock), "--from", mirror); out != "nothing changed\n" {
		t.Errorf("a second run: %s", out)
	}

	network := &offline{}
	store := artifact.Store{
		Dir: filepath.Join(t.TempDir(), "artifacts"), Baked: filepath.Join(root, layout.Local.BakedArtifacts()), Arch: runtime.GOARCH,
		HTTP: &http.Client{Transport: network}, Now: time.Now, Log: slog.New(slog.DiscardHandler), Free: func(string) (uint64, error) { return 1 << 40, nil },
	}
	if err := store.Fetch(t.Context(), lock.Artifacts, func(member.Fetching) {}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, pin := range lock.Artifacts {
		path, err := store.Path(t.Context(), pin)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got[pin.Name] = string(data)
	}
	if diff := cmp.Diff(files, got); diff != "" || network.asked != 0 {
		t.Errorf("the network was asked %d times (-want +got):\n%s", network.asked, diff)
	}

	// A new lock file: what it no longer pins goes, what others laid there stays.
	if err := os.WriteFile(filepath.Join(root, layout.Local.BakedArtifacts(), "README"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	gone := lock.Artifacts[0]
	lock.Artifacts = lock.Artifacts[1:]
	if out, _ = bake(0, "--lock", writeLock(t, lock), "--from", mirror); out != "removed "+layout.Local.BakedArtifacts()+"/"+gone.For(runtime.GOARCH).SHA256+"\n" {
		t.Errorf("%s is pinned no more: %s", gone.Name, out)
	}
	entries, err := os.ReadDir(filepath.Join(root, layout.Local.BakedArtifacts()))
	if err != nil || len(entries) != len(lock.Artifacts)+1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestBakedArtefactsFromMirrors: the URLs are asked where no directory is named, and
// another file than the pinned one is never laid.
func TestBakedArtefactsFromMirrors(t *testing.T) {
	body := "a kubelet"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) }))
	defer server.Close()
	_, lock := mirrorOf(t, map[string]string{"kubelet": "a kubelet"})
	lock.Artifacts[0].URLs = []string{server.URL + "/kubelet-ARCH"}
	for _, step := range []struct {
		body, want string
		code       int
	}{
		{"another one", "it is another file", exitFailed},
		{"a kubelet", "", 0},
	} {
		body = step.body
		root := emptyRoot(t)
		var out, talk bytes.Buffer
		if code := run(t.Context(), []string{"bake", "--root", root, "--lock", writeLock(t, lock)}, &out, &talk); code != step.code || !strings.Contains(talk.String(), step.want) {
			t.Errorf("%q: exit code %d, %s", step.body, code, &talk)
		}
		entries, err := os.ReadDir(filepath.Join(root, layout.Local.BakedArtifacts()))
		if err != nil || (len(entries) == 1) != (step.code == 0) {
			t.Errorf("%q: %v, %v", step.body, entries, err)
		}
	}
}

// TestBakeLockProblems: what is said before anything is laid, and of links.
func TestBakeLockProblems(t *testing.T) {
	mirror, lock := mirrorOf(t, map[string]string{"kubelet": "a kubelet"})
	other := lock
	agent := cluster.Pin{Name: cluster.AgentArtifact, URLs: []string{"https://dl.example.net/bootstrap"}}
	agent.Set(runtime.GOARCH, cluster.Digest{SHA256: strings.Repeat("ab", 32), Size: 3})
	other.Artifacts = append([]cluster.Pin{agent}, lock.Artifacts...)
	broken := filepath.Join(t.TempDir(), "lock.yaml")
	outside := t.TempDir()
	linked := emptyRoot(t)
	if err := errors.Join(os.WriteFile(broken, []byte("kind: Lock\n"), 0o644), os.MkdirAll(filepath.Join(linked, "usr/local"), 0o755),
		os.Symlink(outside, filepath.Join(linked, "usr/local/share"))); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a directory alone", []string{"--root", emptyRoot(t), "--from", mirror}, exitUsage, "name that with --lock FILE"},
		{"no lock file", []string{"--root", emptyRoot(t), "--lock", "missing.yaml"}, exitData, "userdata lock writes it"},
		{"a broken lock file", []string{"--root", emptyRoot(t), "--lock", broken}, exitData, "lock.yaml:1:1: apiVersion: is missing"},
		{"no directory", []string{"--root", emptyRoot(t), "--lock", writeLock(t, lock), "--from", broken}, exitFailed, "is no directory"},
		{"not in the directory", []string{"--root", emptyRoot(t), "--lock", writeLock(t, lock), "--from", t.TempDir()}, exitFailed, "kubelet cannot be had: file://"},
		{"another agent", []string{"--root", emptyRoot(t), "--lock", writeLock(t, other), "--from", mirror}, exitData, "but the lock file pins abab"},
		{"a link out of the root", []string{"--root", linked, "--lock", writeLock(t, lock), "--from", mirror}, exitFailed, "escapes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			if code := run(t.Context(), append([]string{"bake"}, row.args...), &out, &talk); code != row.code || !strings.Contains(talk.String(), row.want) {
				t.Errorf("exit code %d, want %d: %s", code, row.code, &talk)
			}
		})
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside of the root: %v, %v", entries, err)
	}
}
