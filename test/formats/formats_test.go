// Package formats holds that every format of user-data leaves the same server
// behind: real cloud-init and what Ignition does are let loose on empty layers.
package formats

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/bake"
	"github.com/mustermetal/muster/pkg/cloudinit"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/userdata"
	"github.com/mustermetal/muster/test/ignition"
)

const clusterFile = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers: {expect: 5, controlPlanes: 3}
  discovery: [{static: [10.99.14.9, 10.99.14.11]}]
  agent:
    urls: ["http://mirror.example.net/bootstrap_linux_ARCH?image_url=x"]
    sha256: {amd64: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}
  kubernetes: {version: v1.36.3, endpoint: "147.75.194.92:6443", kubelet: {note: NOTE}}
  network: {elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]}
`

// entry is what a format left at a path.
type entry struct {
	Mode     fs.FileMode
	UID, GID int
	Content  string // or where a link leads
}

func contents(t *testing.T, note string, p layout.Prefix) userdata.Contents {
	t.Helper()
	c, problems := cluster.Parse("cluster.yaml", []byte(strings.Replace(clusterFile, "NOTE", note, 1)))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.Secret, err = cluster.NewSecret(bytes.NewReader(make([]byte, 32))); err != nil {
		t.Fatal(err)
	}
	out, err := userdata.NewContents(c, p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// expected is the tree that the contents stand for.
func expected(c userdata.Contents) map[string]entry {
	out := map[string]entry{}
	for _, f := range c.Files {
		out[f.Path] = entry{Mode: f.Mode, Content: f.Content}
	}
	for _, unit := range c.Enable {
		out["/etc/systemd/system/multi-user.target.wants/"+unit] = entry{Mode: fs.ModeSymlink | 0o777, Content: "/etc/systemd/system/" + unit}
	}
	return out
}

func TestFormatsLeaveTheSame(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: layers are mounted")
	}
	if _, err := exec.LookPath("cloud-init"); err != nil {
		t.Skip("cloud-init is not installed; test/need.sh test installs it")
	}
	for name, of := range map[string]struct {
		note   string
		prefix layout.Prefix
	}{
		"plain":   {"as it stands", layout.Local},
		"strange": {`"na\u00efve\n\tEND_OF_FILE 'quoted' \\ $(reboot) image_repo=x"`, layout.Local},
		"moved":   {"as it stands", layout.Opt},
	} {
		t.Run(name, func(t *testing.T) {
			c := contents(t, of.note, of.prefix)
			want := expected(c)
			for _, format := range userdata.Formats {
				t.Run(string(format), func(t *testing.T) {
					data, err := c.Render(userdata.Options{Format: format})
					if err != nil {
						t.Fatal(err)
					}
					var layer map[string]entry
					if format == userdata.Ignition {
						layer = ignite(t, data)
					} else {
						layer = cloudInit(t, data)
						if hosts := layer["/etc/hosts"].Content; !strings.Contains(hosts, "127.0.1.1") || !strings.Contains(hosts, "cp1\n") {
							t.Errorf("/etc/hosts lacks the server's name:\n%s", hosts)
						}
					}
					if diff := cmp.Diff(want, ours(layer)); diff != "" {
						t.Errorf("left behind (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

// TestTreeLeavesTheSame bakes the format that is no text into an empty image.
func TestTreeLeavesTheSame(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: the files would not be root's")
	}
	c, dir, root := contents(t, "as it stands", layout.Local), t.TempDir(), t.TempDir()
	for _, n := range c.Tree() {
		at := filepath.Join(dir, n.Path)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if n.Target != "" {
			err = errors.Join(err, os.Symlink(n.Target, at))
		} else {
			err = errors.Join(err, os.WriteFile(at, []byte(n.Content), n.Mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const release = "/etc/os-release"
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, release), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := bake.Bake(t.Context(), bake.Options{Root: root, UserData: dir}); err != nil {
		t.Fatal(err)
	}
	layer := tree(t, root)
	delete(layer, release)
	if diff := cmp.Diff(expected(c), ours(layer)); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}

// TestScriptTwice runs a script after cloud-init ran it: nothing changes.
func TestScriptTwice(t *testing.T) {
	if _, err := exec.LookPath("cloud-init"); err != nil || os.Getuid() != 0 {
		t.Skip("not root, or cloud-init is not installed")
	}
	c := contents(t, "as it stands", layout.Local)
	data, err := c.Render(userdata.Options{Format: userdata.Script})
	if err != nil {
		t.Fatal(err)
	}
	once, twice := cloudInit(t, data), cloudInit(t, data, "again")
	if diff := cmp.Diff(ours(once), ours(twice)); diff != "" {
		t.Errorf("the second run changed (-once +twice):\n%s", diff)
	}
	if diff := cmp.Diff(once["/etc/hosts"], twice["/etc/hosts"]); diff != "" {
		t.Errorf("the second run changed /etc/hosts (-once +twice):\n%s", diff)
	}
}

// TestMain is the scrubber too, for apply.sh.
func TestMain(m *testing.M) {
	root := os.Getenv("SCRUB")
	if root == "" {
		os.Exit(m.Run())
	}
	changed, err := cloudinit.Scrubber{Root: root, Secrets: []string{zeros}, Write: os.WriteFile}.Scrub()
	fmt.Fprintln(os.Stderr, "scrubbed", changed)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// zeros is the secret of contents.
var zeros = base64.StdEncoding.EncodeToString(make([]byte, 32))

// TestScrub: after the secret was taken out of its copies cloud-init boots as before,
// lays nothing anew, and brings no copy back. MIME carries it compressed, where it is
// not found.
func TestScrub(t *testing.T) {
	if _, err := exec.LookPath("cloud-init"); err != nil || os.Getuid() != 0 {
		t.Skip("not root, or cloud-init is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := contents(t, "as it stands", layout.Local)
	for _, format := range []userdata.Format{userdata.CloudConfig, userdata.Script, userdata.MIME} {
		t.Run(string(format), func(t *testing.T) {
			data, err := c.Render(userdata.Options{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			before, after := cloudInit(t, data), cloudInit(t, data, "scrub", self)
			held, left := holders(before), holders(after)
			t.Logf("before: %v", held)
			t.Logf("after: %v", left)
			want := []string{layout.ClusterFile}
			if format == userdata.MIME {
				const of = "/var/lib/cloud/instances/i-1/" // the raw forms carry it compressed
				want = append(want, of+"obj.pkl", of+"user-data.txt", "/var/lib/cloud/seed/nocloud/user-data")
			}
			if len(held) < 4 || !slices.Equal(left, want) {
				t.Errorf("the secret is in %v, expected %v", left, want)
			}
			laid := ours(after)
			for path := range laid {
				if strings.HasPrefix(path, "/run/") {
					delete(laid, path)
				}
			}
			if diff := cmp.Diff(ours(before), laid); diff != "" {
				t.Errorf("the next boot changed (-before +after):\n%s", diff)
			}
		})
	}
}

// holders are the files that have the secret, encoded and compressed too.
func holders(layer map[string]entry) []string {
	var out []string
	for path, e := range layer {
		if holds(e.Content, 3) {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// encoded is base64 in one line, or in several that hold nothing else.
var encoded = regexp.MustCompile(`(?m)(?:^[A-Za-z0-9+/]{76}\n)+(?:[A-Za-z0-9+/]+=*)?|[A-Za-z0-9+/]{100,}=*`)

func holds(text string, depth int) bool {
	if strings.Contains(text, zeros) {
		return true
	}
	for _, block := range encoded.FindAllString(text, -1) {
		data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(block, "\n", ""))
		if err != nil || depth == 0 {
			continue
		}
		if r, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			if plain, err := io.ReadAll(r); err == nil {
				data = plain
			}
		}
		if holds(string(data), depth-1) {
			return true
		}
	}
	return false
}

// ours leaves out what the carriers write for themselves: the logs and memory of
// cloud-init, the configuration that made it run here, names, and presets, of which
// the links come.
func ours(layer map[string]entry) map[string]entry {
	out := map[string]entry{}
	for path, e := range layer {
		theirs := path == "/etc/hosts" || path == "/etc/hostname"
		for _, dir := range []string{"/var/lib/cloud/", "/var/log/cloud-init", "/etc/cloud/", "/etc/systemd/system-preset/"} {
			theirs = theirs || strings.HasPrefix(path, dir)
		}
		if !theirs {
			out[path] = e
		}
	}
	return out
}

// cloudInit returns the files and links that cloud-init left.
func cloudInit(t *testing.T, userData []byte, args ...string) map[string]entry {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--uts", "sh", "apply.sh", t.TempDir()}, args...)...)
	cmd.Stdin = bytes.NewReader(userData)
	var said bytes.Buffer
	cmd.Stderr = &said
	layer, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "WARNING") || strings.Contains(line, "Traceback") {
			t.Errorf("cloud-init said: %s", line)
		}
	}
	out := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			if h.Mode&0o7777 != 0o755 && strings.HasPrefix(h.Name, "./etc/muster") {
				t.Errorf("%s has mode %o", h.Name, h.Mode)
			}
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(h.Name, ".")] = entry{h.FileInfo().Mode(), h.Uid, h.Gid, string(content) + h.Linkname}
	}
}

// ignite returns the files and links that Ignition leaves.
func ignite(t *testing.T, userData []byte) map[string]entry {
	t.Helper()
	root := t.TempDir()
	if err := ignition.Apply(t.Context(), root, userData); err != nil {
		t.Fatal(err)
	}
	return tree(t, root)
}

// tree returns the files and links below root.
func tree(t *testing.T, root string) map[string]entry {
	t.Helper()
	out := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: who owns it is not known", path)
		}
		e := entry{Mode: info.Mode(), UID: int(stat.Uid), GID: int(stat.Gid)}
		if info.Mode()&fs.ModeSymlink != 0 {
			e.Content, err = os.Readlink(path)
		} else {
			var data []byte
			data, err = os.ReadFile(path)
			e.Content = string(data)
		}
		out[strings.TrimPrefix(path, root)] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
