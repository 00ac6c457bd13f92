package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is one of an archive.
type entry struct {
	tar.Header
	body string
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		e.Size, e.Mode = int64(len(e.body)), 0o755
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg}, body}
}

// TestInstall: files come to their places, and a hostile archive leaves nothing.
func TestInstall(t *testing.T) {
	for _, row := range []struct {
		name    string
		entries []entry
		want    map[string]string
		err     string
	}{
		{"containerd", []entry{
			{tar.Header{Name: "bin/", Typeflag: tar.TypeDir}, ""}, file("bin/containerd", "c"), file("./bin/ctr", "t"), file("bin/other", "o"),
		}, map[string]string{"containerd": "c", "ctr": "t"}, ""},
		{"a path upwards", []entry{file("bin/containerd", "c"), file("../../etc/passwd", "root")}, nil, `the hostile path "../../etc/passwd"`},
		{"an absolute path", []entry{file("bin/containerd", "c"), file("/etc/passwd", "root")}, nil, `the hostile path "/etc/passwd"`},
		{"a path through itself", []entry{file("bin/containerd", "c"), file("bin/../../x", "root")}, nil, `the hostile path "bin/../../x"`},
		{"a link outwards", []entry{file("bin/containerd", "c"), {tar.Header{Name: "bin/ctr", Linkname: "../../../etc", Typeflag: tar.TypeSymlink}, ""}}, nil, `the link "bin/ctr" to the hostile path`},
		{"an absolute link", []entry{file("bin/containerd", "c"), {tar.Header{Name: "x", Linkname: "/etc/shadow", Typeflag: tar.TypeLink}, ""}}, nil, `the link "x" to the hostile path "/etc/shadow"`},
		{"a device", []entry{file("bin/containerd", "c"), {tar.Header{Name: "sda", Typeflag: tar.TypeBlock}, ""}}, nil, `holds "sda" of the type`},
		{"nothing known", []entry{file("README", "c")}, nil, "holds nothing that was looked for"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newStore(t)
			body := archive(t, row.entries...)
			p := pin("containerd", body)
			if err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.WriteFile(s.path(sumOf(body)), body, 0o600)); err != nil {
				t.Fatal(err)
			}
			bin := t.TempDir()
			err := s.Install(t.Context(), p, func(name string) (string, bool) {
				switch name {
				case "bin/containerd", "bin/ctr":
					return filepath.Join(bin, filepath.Base(name)), true
				}
				return "", false
			})
			if (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("%v, expected %q", err, row.err)
			}
			got := map[string]string{}
			entries, _ := os.ReadDir(bin)
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(bin, e.Name()))
				info, _ := e.Info()
				if err != nil || info.Mode() != 0o755 {
					t.Errorf("%s: %v, %v", e.Name(), err, info.Mode())
				}
				got[e.Name()] = string(data)
			}
			if row.want == nil {
				row.want = map[string]string{}
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRot: what the disk changed is not installed, and is fetched anew.
func TestRot(t *testing.T) {
	s := newStore(t)
	p := pin("kubelet", []byte("kubelet"))
	if err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.WriteFile(s.path(p.AMD64.SHA256), []byte("kubelot"), 0o600)); err != nil {
		t.Fatal(err)
	}
	err := s.Install(t.Context(), p, func(string) (string, bool) { return filepath.Join(t.TempDir(), "x"), true })
	if err == nil || !strings.Contains(err.Error(), "the disk changed it; it is fetched anew") {
		t.Error(err)
	}
	if _, err := os.Stat(s.path(p.AMD64.SHA256)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
