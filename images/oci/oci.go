// Package oci writes container images as tar archives in the OCI image layout,
// which `ctr images import` reads: no registry, no daemon. The bytes depend on
// the content only.
//
// Source of the formats: OCI Image Format Specification v1.1 (image-layout.md,
// manifest.md, config.md).
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Image is one image of a single layer.
type Image struct {
	Name       string   // with tag: registry.k8s.io/pause:3.10.2
	Arch       string   // as Go names it
	Entrypoint []string // argv of the container when the pod gives none
	Files      []File
}

// File is one entry of an image. Its missing parent directories are made.
type File struct {
	Path   string      // in the image, without leading slash
	Source string      // file on this machine; or
	Body   []byte      // its content; or
	Link   string      // the target of a symbolic link
	Mode   fs.FileMode // permission bits
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

const pathVariable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Write writes the archive of one image.
func Write(w io.Writer, image Image) error {
	_, tag, ok := strings.Cut(image.Name[strings.LastIndex(image.Name, "/")+1:], ":")
	if !ok {
		return fmt.Errorf("image %q has no tag", image.Name)
	}
	layer, err := layerOf(image.Files)
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": image.Arch, "os": "linux",
		"config": map[string]any{"Env": []string{pathVariable}, "Entrypoint": image.Entrypoint, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": describe("application/vnd.oci.image.config.v1+json", config),
		"layers": []descriptor{describe("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return err
	}
	entry := describe("application/vnd.oci.image.manifest.v1+json", manifest)
	entry.Platform = &platform{Architecture: image.Arch, OS: "linux"}
	// The first is containerd's own: the full name under which it stores the image.
	entry.Annotations = map[string]string{"io.containerd.image.name": image.Name, "org.opencontainers.image.ref.name": tag}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{entry},
	})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, f := range []File{
		{Path: "oci-layout", Body: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{Path: "index.json", Body: index},
		{Path: blob(config), Body: config}, {Path: blob(manifest), Body: manifest}, {Path: blob(layer), Body: layer},
	} {
		f.Mode = 0o644
		if err := add(archive, f); err != nil {
			return err
		}
	}
	return archive.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blob(b []byte) string { return "blobs/sha256/" + strings.TrimPrefix(digest(b), "sha256:") }

func describe(mediaType string, b []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(b), Size: len(b)}
}

// layerOf makes the layer's tar: directories first met first, files in the order
// given, no times and no owners but root.
func layerOf(files []File) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{}
	for _, dir := range []string{"tmp", "etc", "run", "var"} {
		if err := addDir(w, made, dir); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		if f.Path == "" || strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("path %q is not clean and relative", f.Path)
		}
		if err := addDir(w, made, path.Dir(f.Path)); err != nil {
			return nil, err
		}
		if err := add(w, f); err != nil {
			return nil, fmt.Errorf("adding %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func addDir(w *tar.Writer, made map[string]bool, dir string) error {
	var missing []string
	for ; dir != "." && !made[dir]; dir = path.Dir(dir) {
		missing = append(missing, dir)
		made[dir] = true
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	return nil
}

func add(w *tar.Writer, f File) error {
	h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if f.Link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return w.WriteHeader(h)
	}
	body := f.Body
	if f.Source != "" {
		var err error
		if body, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(len(body))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}
