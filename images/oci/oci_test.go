package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpack reads a tar into name -> content; directories end in /, links hold "-> ".
func unpack(t *testing.T, b []byte) (contents map[string]string, modes map[string]int64) {
	t.Helper()
	contents, modes = map[string]string{}, map[string]int64{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return contents, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := contents[h.Name]; ok {
			t.Errorf("%s is there twice", h.Name)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		contents[h.Name], modes[h.Name] = string(body), h.Mode
		if h.Linkname != "" {
			contents[h.Name] = "-> " + h.Linkname
		}
	}
}

func sample(t *testing.T) Image {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("ELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Image{
		Name: "registry.k8s.io/coredns/coredns:v1.14.2", Arch: "amd64", Entrypoint: []string{"/coredns"},
		Files: []File{
			{Path: "usr/local/bin/program", Source: program, Mode: 0o755},
			{Path: "usr/local/bin/link", Link: "program"},
			{Path: "etc/passwd", Body: []byte("root"), Mode: 0o644},
		},
	}
}

func TestWrite(t *testing.T) {
	var first, second bytes.Buffer
	image := sample(t)
	if err := errors.Join(Write(&first, image), Write(&second, image)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same image gave two archives")
	}
	archive, _ := unpack(t, first.Bytes())

	// Follow the digests from the index to the layer, as a reader does.
	get := func(digest string, size int) []byte {
		t.Helper()
		b, ok := archive["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
		if !ok || len(b) != size || "blobs/sha256/"+strings.TrimPrefix(digest, "sha256:") != blob([]byte(b)) {
			t.Fatalf("blob %s: there %v, %d bytes; want %d bytes of this digest", digest, ok, len(b), size)
		}
		return []byte(b)
	}
	var index struct{ Manifests []descriptor }
	parse(t, []byte(archive["index.json"]), &index)
	entry := index.Manifests[0]
	if got := entry.Annotations["io.containerd.image.name"]; got != image.Name {
		t.Errorf("image name %q, want %q", got, image.Name)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	parse(t, get(entry.Digest, entry.Size), &manifest)
	var config struct {
		Architecture, OS string
		Config           struct{ Entrypoint []string }
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	parse(t, get(manifest.Config.Digest, manifest.Config.Size), &config)
	if config.Architecture != "amd64" || config.OS != "linux" || !cmp.Equal(config.Config.Entrypoint, image.Entrypoint) {
		t.Errorf("config %+v", config)
	}
	// The layer is not compressed, so its digest is its content's.
	if diff := cmp.Diff([]string{manifest.Layers[0].Digest}, config.RootFS.DiffIDs); diff != "" {
		t.Errorf("diff ids: %s", diff)
	}
	layer, modes := unpack(t, get(manifest.Layers[0].Digest, manifest.Layers[0].Size))
	want := map[string]string{
		"tmp/": "", "etc/": "", "run/": "", "var/": "", "usr/": "", "usr/local/": "", "usr/local/bin/": "",
		"usr/local/bin/program": "ELF", "usr/local/bin/link": "-> program", "etc/passwd": "root",
	}
	if diff := cmp.Diff(want, layer); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	for name, mode := range map[string]int64{"tmp/": 0o1777, "usr/local/": 0o755, "usr/local/bin/program": 0o755, "etc/passwd": 0o644} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
}

func parse(t *testing.T, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
}

func TestWriteErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		image Image
		want  string
	}{
		"no tag":           {Image{Name: "localhost:5000/pause"}, "no tag"},
		"absolute path":    {Image{Name: "a:1", Files: []File{{Path: "/etc/passwd"}}}, `path "/etc/passwd"`},
		"path climbs":      {Image{Name: "a:1", Files: []File{{Path: "a/../../b"}}}, "not clean"},
		"source is missed": {Image{Name: "a:1", Files: []File{{Path: "a", Source: filepath.Join(t.TempDir(), "gone")}}}, "adding a: open"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Write(io.Discard, tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write: %v; want an error with %q", err, tt.want)
			}
		})
	}
}
