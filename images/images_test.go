package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The versions that the images are named by are those of the pinned sources.
func TestVersionsArePinned(t *testing.T) {
	for _, c := range componentList {
		mod, err := os.ReadFile(filepath.Join("components", c.name, "go.mod"))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(mod), c.module+" "+c.version+"\n") {
			t.Errorf("images/components/%s/go.mod does not require %s %s", c.name, c.module, c.version)
		}
		tools, err := os.ReadFile(filepath.Join("components", c.name, "tools.go"))
		if err != nil {
			t.Error(err)
			continue
		}
		for program, pkg := range c.programs {
			if !strings.Contains(string(tools), fmt.Sprintf("_ %q\n", pkg)) {
				t.Errorf("%s of %s is not kept by its tools.go", program, pkg)
			}
		}
	}
	if !strings.HasPrefix(etcdTag, strings.TrimPrefix(etcdVersion, "v")+"-") {
		t.Errorf("etcd %s is put into an image with tag %s", etcdVersion, etcdTag)
	}
}

// kubeadm's own list, when it has been built: a tag it does not name would be
// pulled, and there is no registry.
func TestImagesAreKubeadms(t *testing.T) {
	cache, err := DefaultCache(os.Getenv("MUSTER_CACHE"))
	if err != nil {
		t.Fatal(err)
	}
	built, err := filepath.Glob(filepath.Join(cache, "components-*/bin/kubeadm"))
	if err != nil || len(built) == 0 {
		t.Skip("no kubeadm was built yet (make e2e builds it): its list of images was not compared")
	}
	out, err := exec.CommandContext(t.Context(), built[0], "config", "images", "list", "--kubernetes-version", KubernetesVersion).Output()
	if err != nil {
		t.Fatal(err)
	}
	b := builder{arch: "amd64"}
	images := b.named("/bin", nil, "/root")
	got := map[string]bool{}
	for _, image := range images {
		got[image.Name] = true
	}
	want := map[string]bool{}
	for _, name := range strings.Fields(string(out)) {
		want[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-kubeadm +ours):\n%s", diff)
	}
}

func TestBuiltName(t *testing.T) {
	for pkg, want := range map[string]string{
		"go.etcd.io/etcd/server/v3":         "server",
		"k8s.io/kubernetes/cmd/kubeadm":     "kubeadm",
		"example.net/tools/v":               "v",
		"example.net/tools/vet":             "vet",
		"github.com/coredns/coredns":        "coredns",
		"example.net/containerd/v2/cmd/ctr": "ctr",
	} {
		if got := builtName(pkg); got != want {
			t.Errorf("builtName(%q) = %q, want %q", pkg, got, want)
		}
	}
}

func TestKey(t *testing.T) {
	if key("ab", "c") == key("a", "bc") {
		t.Error("another split gave the same key")
	}
	if a, b := key("ab", "c"), key("ab", "c"); a != b || len(a) != 12 {
		t.Errorf("keys %q and %q; want one of 12 characters", a, b)
	}
}

func TestProduct(t *testing.T) {
	c := cache{dir: filepath.Join(t.TempDir(), "deep", "cache"), log: &bytes.Buffer{}}
	builds := 0
	build := func(_ context.Context, dir string) error {
		builds++
		return os.WriteFile(filepath.Join(dir, "made"), nil, 0o600)
	}
	failed := errors.New("no network")
	if _, err := c.product(t.Context(), "thing", "k1", func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), failed)
	}); !errors.Is(err, failed) || !strings.Contains(err.Error(), "building thing") {
		t.Fatalf("a failed build: %v", err)
	}
	// An interrupted build left half a product.
	if err := os.MkdirAll(filepath.Join(c.dir, ".building-thing", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		dir, err := c.product(t.Context(), "thing", "k1", build)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != "made" {
			t.Errorf("product holds %v, %v; want made", entries, err)
		}
	}
	if builds != 1 {
		t.Errorf("built %d times, want once", builds)
	}
	left, err := filepath.Glob(filepath.Join(c.dir, ".building-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestProductIsBuiltOnceByMany(t *testing.T) {
	var log lockedBuffer
	c := cache{dir: t.TempDir(), log: &log}
	var builds int // guarded by the lock under test
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := c.product(t.Context(), "thing", "k1", func(context.Context, string) error {
				builds++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if builds != 1 {
		t.Errorf("built %d times, want once", builds)
	}

	unlock, err := c.lock(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.product(ctx, "thing", "k2", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with the lock held: %v; want the wait to end with its context", err)
	}
	if !strings.Contains(log.String(), "thing is being built by another process") {
		t.Errorf("the wait was not explained: %q", log.String())
	}
}

func TestPrune(t *testing.T) {
	c := cache{dir: t.TempDir(), log: &bytes.Buffer{}}
	now := time.Now()
	for i, name := range []string{"bake-old", "bake-mid", "bake-new", "server-old"} {
		dir := filepath.Join(c.dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		at := now.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.prune("bake", 2); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.dir)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff([]string{"bake-mid", "bake-new", "server-old"}, got); diff != "" || err != nil {
		t.Errorf("left (-want +got): %v\n%s", err, diff)
	}
}

func TestStepSpeaksUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		err := step(t.Context(), &log, "compile", func(context.Context) error {
			<-time.After(40 * time.Second)
			return errors.New("no space left on device")
		})
		if err == nil || err.Error() != "compile: no space left on device" {
			t.Errorf("step: %v", err)
		}
		want := "image: compile\n" +
			"image: compile: still at it after 15 s\n" +
			"image: compile: still at it after 30 s\n" +
			"image: compile: failed after 40 s\n"
		if diff := cmp.Diff(want, log.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func TestRunCommandTellsTheEnd(t *testing.T) {
	c := cache{dir: t.TempDir()}
	err := c.runCommand("demo", exec.CommandContext(t.Context(), "sh", "-c", "seq 1 20; echo out of luck >&2; exit 3"))
	if err == nil {
		t.Fatal("a failed command gave no error")
	}
	for _, want := range []string{"sh: exit status 3", "  20\n  out of luck", filepath.Join(c.dir, "log/demo.log")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "  5\n") {
		t.Errorf("the error holds the whole log: %v", err)
	}
}

func TestLibraries(t *testing.T) {
	root := "/" // this machine's own, when it is a Debian
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/libc.so.6"); err != nil {
		t.Skip("this machine has no Debian library directory for amd64")
	}
	libs, loader, err := libraries(root, "amd64", "usr/bin/dash")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6"}
	if diff := cmp.Diff(want, libs); diff != "" || loader != "/lib64/ld-linux-x86-64.so.2" {
		t.Errorf("loader %q, libraries (-want +got):\n%s", loader, diff)
	}
	if _, _, err := libraries(root, "riscv64"); err == nil {
		t.Error("an unknown architecture gave no error")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
