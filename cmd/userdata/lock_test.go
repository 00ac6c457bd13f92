package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const lockedSpec = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers: {expect: 1, controlPlanes: 1}
  agent: {urls: ["@MIRROR@/muster/bootstrap_linux_ARCH"]}
  artifacts:
    mirrors: ["@MIRROR@"]
    images: [{name: core, urls: ["@MIRROR@/images-ARCH.tar"]}]
  kubernetes: {version: v1.36.3}
`

// tree are the files of a mirror by path, in the shapes in which each project
// publishes its checksums.
func tree() map[string]string {
	files := map[string]string{}
	sum := func(body string) string {
		s := sha256.Sum256([]byte(body))
		return hex.EncodeToString(s[:])
	}
	var runc, own strings.Builder
	runc.WriteString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n")
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"kubeadm", "kubectl", "kubelet"} { // the digest alone
			p := "/dl.k8s.io/release/v1.36.3/bin/linux/" + arch + "/" + name
			files[p] = name + " for " + arch
			files[p+".sha256"] = sum(files[p])
		}
		named := func(p, suffix string) { // sha256sum FILE > FILE.sha256
			files[p] = path.Base(p) + " itself"
			files[p+suffix] = sum(files[p]) + "  " + path.Base(p) + "\n"
		}
		named("/github.com/containerd/containerd/releases/download/v2.3.4/containerd-2.3.4-linux-"+arch+".tar.gz", ".sha256sum")
		named("/github.com/containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-"+arch+"-v1.9.1.tgz", ".sha256")
		named("/github.com/kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-"+arch+".tar.gz", ".sha256")
		const dir = "/github.com/opencontainers/runc/releases/download/v1.4.3/"
		files[dir+"runc."+arch] = "runc for " + arch
		fmt.Fprintf(&runc, "%s *runc.%s\n", sum("runc for "+arch), arch)
		files["/muster/bootstrap_linux_"+arch] = "agent for " + arch
		fmt.Fprintf(&own, "%s  bootstrap_linux_%s\n", sum("agent for "+arch), arch)
		files["/images-"+arch+".tar"] = "images for " + arch
	}
	runc.WriteString("-----BEGIN PGP SIGNATURE-----\n\niQIzBAEB\n-----END PGP SIGNATURE-----\n")
	files["/github.com/opencontainers/runc/releases/download/v1.4.3/runc.sha256sum"] = runc.String()
	files["/muster/SHA256SUMS"] = own.String()
	return files
}

// bench is a directory with a cluster file, and a mirror that can be broken.
type bench struct {
	t      *testing.T
	dir    string
	server *httptest.Server
	files  map[string]string
	spoilt func(w http.ResponseWriter, r *http.Request) bool
	asked  map[string]int
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), files: tree(), asked: map[string]int{}}
	b.server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.server.Close)
	b.write("cluster.yaml", strings.ReplaceAll(lockedSpec, "@MIRROR@", b.server.URL))
	return b
}

// serialised by the handler's lock: resolve asks in parallel.
var serving = make(chan struct{}, 1)

func (b *bench) serve(w http.ResponseWriter, r *http.Request) {
	serving <- struct{}{}
	defer func() { <-serving }()
	b.asked[r.URL.Path]++
	body, ok := b.files[r.URL.Path]
	switch {
	case b.spoilt != nil && b.spoilt(w, r):
	case !ok:
		http.NotFound(w, r)
	default:
		_, _ = w.Write([]byte(body))
	}
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// userdata runs a command in the bench's directory.
func (b *bench) userdata(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	var out, err bytes.Buffer
	args = append(args, "-f", filepath.Join(b.dir, "cluster.yaml"))
	code = run(context.Background(), args, strings.NewReader(""), &out, &err)
	strip := strings.NewReplacer(b.dir+"/", "", b.server.URL, "MIRROR").Replace
	return code, strip(out.String()), strip(err.String())
}

func (b *bench) lock() string {
	data, err := os.ReadFile(filepath.Join(b.dir, "cluster.lock.yaml"))
	if err != nil {
		return ""
	}
	return string(data)
}

func TestLock(t *testing.T) {
	b := newBench(t)
	code, stdout, stderr := b.userdata("lock")
	if code != 0 || stdout != "wrote cluster.lock.yaml: 9 artefacts; commit it with the cluster file\n" {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if note := "images-core " + arch + ": no checksum lies beside MIRROR/images-" + arch + ".tar; pinned as it was read\n"; !strings.Contains(stderr, note) {
			t.Errorf("stderr has no %q:\n%s", note, stderr)
		}
	}
	first := b.lock()
	want, err := os.ReadFile("testdata/cluster.lock.golden")
	if *update {
		if err := os.WriteFile("testdata/cluster.lock.golden", []byte(strings.ReplaceAll(first, b.server.URL, "http://mirror")), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if err != nil {
		t.Fatal(err)
	} else if diff := cmp.Diff(string(want), strings.ReplaceAll(first, b.server.URL, "http://mirror")); diff != "" {
		t.Error(diff)
	}

	// What is pinned is not downloaded again, and nothing changes.
	clear(b.asked)
	if code, stdout, _ := b.userdata("lock"); code != 0 || stdout != "cluster.lock.yaml is up to date: 9 artefacts\n" {
		t.Errorf("again: exit %d, %s", code, stdout)
	}
	for p := range b.asked {
		if _, large := b.files[p+".sha256"]; large || strings.Contains(p, "runc.a") {
			t.Errorf("%s was downloaded again", p)
		}
	}
	if code, stdout, _ := b.userdata("lock", "--check"); code != 0 || !strings.Contains(stdout, "is up to date") {
		t.Errorf("--check: exit %d, %s", code, stdout)
	}
	if b.lock() != first {
		t.Error("the lock file changed")
	}

	// The same from a directory, with nobody to ask.
	for p, body := range b.files {
		at := filepath.Join(b.dir, "mirror", strings.TrimPrefix(b.server.URL, "http://"), p)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.server.Close()
	if err := os.Remove(filepath.Join(b.dir, "cluster.lock.yaml")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := b.userdata("lock", "--from", filepath.Join(b.dir, "mirror")); code != 0 {
		t.Fatalf("--from: exit %d, %s", code, stderr)
	}
	if diff := cmp.Diff(first, b.lock()); diff != "" {
		t.Errorf("from a directory:\n%s", diff)
	}

	// check and render read it; a changed version is said at its place.
	if code, stdout, stderr := b.userdata("check"); code != 0 || !strings.Contains(stdout, "agent       from 1 URL, pinned for amd64 and arm64") ||
		!strings.Contains(stdout, "lock        8 artefacts that servers install") {
		t.Errorf("check: exit %d\n%s%s", code, stdout, stderr)
	}
	b.write("cluster.yaml", strings.ReplaceAll(strings.ReplaceAll(lockedSpec, "@MIRROR@", b.server.URL), "v1.36.3", "v1.36.4"))
	code, _, stderr = b.userdata("check")
	if code != exitData || !strings.Contains(stderr, "cluster.yaml:13:25: spec.kubernetes.version: the lock file pins kubeadm v1.36.3, expected v1.36.4 (run `userdata lock` and look at what it changes)\n") {
		t.Errorf("check: exit %d\n%s", code, stderr)
	}
}

// TestLockFaults: whatever goes wrong, the lock file stays as it is, and the error
// names the file and what was expected.
func TestLockFaults(t *testing.T) {
	const kubelet = "/dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet"
	kubeletSum := tree()[kubelet+".sha256"]
	at := func(p string, do http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == p {
				do(w, r)
			}
			return r.URL.Path == p
		}
	}
	for _, row := range []struct {
		name   string
		spoil  func(b *bench)
		code   int
		stderr string
	}{
		{"a file is missing", func(b *bench) { delete(b.files, kubelet) }, exitFailed, "kubelet arm64: MIRROR" + kubelet + ": HTTP status 404 Not Found"},
		{"its checksum is missing", func(b *bench) { delete(b.files, kubelet+".sha256") }, exitFailed,
			"kubelet arm64: its checksum: MIRROR" + kubelet + ".sha256: HTTP status 404 Not Found"},
		{"the file is another", func(b *bench) { b.files[kubelet] = "evil" }, exitData,
			"kubelet arm64: MIRROR" + kubelet + " has sha256 4e35b6f9ff8b3e2b4b6b3a1e7ab5e5f7 (4 bytes), expected " + kubeletSum + " as MIRROR" + kubelet + ".sha256 says"},
		{"the checksum is a page", func(b *bench) { b.files[kubelet+".sha256"] = "<html>404</html>" }, exitData,
			"kubelet arm64: MIRROR" + kubelet + ".sha256: has no sha256; expected 64 hex digits, or lines as sha256sum prints them"},
		{"the checksum is of others", func(b *bench) { b.files[kubelet+".sha256"] = kubeletSum + "  kubectl\n" }, exitData,
			"kubelet arm64: MIRROR" + kubelet + ".sha256: has the checksums of 1 other files, expected a line for kubelet"},
		{"the mirror is ill", func(b *bench) {
			b.spoilt = at(kubelet, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
		}, exitFailed, "kubelet arm64: MIRROR" + kubelet + ": HTTP status 502 Bad Gateway"},
		{"the line breaks", func(b *bench) {
			b.spoilt = at(kubelet, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte("half"))
			})
		}, exitFailed, "kubelet arm64: MIRROR" + kubelet + ": unexpected EOF after 4 bytes"},
		{"the mirror is gone", func(b *bench) { b.server.Close() }, exitFailed, "kubelet arm64: Get \"MIRROR" + kubelet + ".sha256\": dial tcp "},
		{"the agent is not the cluster file's", func(b *bench) {
			b.write("cluster.yaml", strings.NewReplacer("@MIRROR@", b.server.URL, `ARCH"]}`+"\n  artifacts", `ARCH"], sha256: {amd64: `+kubeletSum+"}}\n  artifacts").Replace(lockedSpec))
		}, exitData, ", the cluster file says " + kubeletSum + " (spec.agent.sha256.amd64)"},
		{"a release was replaced", func(b *bench) {
			if code, _, stderr := b.userdata("lock"); code != 0 {
				b.t.Fatal(stderr)
			}
			b.files[kubelet+".sha256"] = strings.Repeat("a", 64)
		}, exitData, "kubelet arm64: the lock file pins sha256 " + kubeletSum + ", but MIRROR" + kubelet + ".sha256 now says " + strings.Repeat("a", 64)},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			row.spoil(b)
			before := b.lock()
			code, stdout, stderr := b.userdata("lock")
			want := strings.ReplaceAll(row.stderr, "4e35b6f9ff8b3e2b4b6b3a1e7ab5e5f7", hexSum("evil"))
			if code != row.code || !strings.Contains(stderr, "nothing was written:\n  ") || !strings.Contains(stderr, want) {
				t.Errorf("exit %d, expected %d and %q:\n%s", code, row.code, want, stderr)
			}
			if stdout != "" || b.lock() != before {
				t.Errorf("something was written: %s", stdout)
			}
			if left, _ := filepath.Glob(filepath.Join(b.dir, ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func hexSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestLockNextMirror: a mirror that lacks a file costs a note, not the lock.
func TestLockNextMirror(t *testing.T) {
	b := newBench(t)
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	b.write("cluster.yaml", strings.NewReplacer(`mirrors: ["@MIRROR@"]`, `mirrors: ["`+empty.URL+`", "`+b.server.URL+`"]`, "@MIRROR@", b.server.URL).Replace(lockedSpec))
	code, _, stderr := b.userdata("lock")
	note := "kubelet arm64: its checksum: " + empty.URL + "/dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet.sha256: HTTP status 404 Not Found\n"
	if code != 0 || !strings.Contains(stderr, note) {
		t.Errorf("exit %d, expected the note %q:\n%s", code, note, stderr)
	}
}

// TestLockCheck: CI is told that the lock file is stale, and nothing is written.
func TestLockCheck(t *testing.T) {
	b := newBench(t)
	if code, _, stderr := b.userdata("lock", "--check"); code != exitData || !strings.Contains(stderr, "cluster.lock.yaml does not exist; run userdata lock and commit it") {
		t.Errorf("without a lock file: exit %d, %s", code, stderr)
	}
	if code, _, stderr := b.userdata("lock"); code != 0 {
		t.Fatal(stderr)
	}
	stale := strings.Replace(b.lock(), "version: v2.3.4", "version: v2.3.3", 1)
	b.write("cluster.lock.yaml", stale)
	code, _, stderr := b.userdata("lock", "--check")
	if code != exitData || !strings.Contains(stderr, "cluster.lock.yaml is not what userdata lock would write (line ") {
		t.Errorf("stale: exit %d, %s", code, stderr)
	}
	if b.lock() != stale {
		t.Error("--check wrote the lock file")
	}
	if code, _, stderr := b.userdata("lock", "--check", "--list"); code != exitUsage {
		t.Errorf("--check --list: exit %d, %s", code, stderr)
	}
}

func TestLockList(t *testing.T) {
	b := newBench(t)
	code, stdout, stderr := b.userdata("lock", "--list")
	if code != 0 {
		t.Fatal(stderr)
	}
	var want []string
	for p := range b.files {
		want = append(want, "MIRROR"+p)
	}
	listed := strings.Split(strings.TrimSpace(stdout), "\n")
	for _, p := range want {
		if !strings.Contains(stdout, p+"\n") {
			t.Errorf("%s is not listed", p)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d files listed, expected %d:\n%s", len(listed), len(want), stdout)
	}
}

func TestFindSum(t *testing.T) {
	for _, row := range []struct{ name, data, file, want, err string }{
		{"bare", hexSum("x"), "kubelet", hexSum("x"), ""},
		{"bare with a newline, upper case", strings.ToUpper(hexSum("x")) + "\r\n", "kubelet", hexSum("x"), ""},
		{"with a path", hexSum("x") + "  ./out/a.tgz\n", "a.tgz", hexSum("x"), ""},
		{"no line may be taken for another", hexSum("x") + "  xa.tgz\n", "a.tgz", "", "checksums of 1 other"},
		{"empty", "", "a.tgz", "", "has no sha256"},
		{"sha512", strings.Repeat("ab", 64), "a.tgz", "", "has no sha256"},
	} {
		got, err := findSum([]byte(row.data), row.file)
		if got != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %q, %v", row.name, got, err)
		}
	}
}
