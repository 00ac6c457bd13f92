package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// places says where the files of an artefact go, by their path in it.
func (h *Host) places(artefact string) map[string]string {
	bin := h.Prefix.Bin() + "/"
	switch artefact {
	case "kubeadm", "kubelet", "kubectl", "crictl":
		return map[string]string{artefact: bin + artefact}
	case "runc":
		return map[string]string{artefact: h.Prefix.Runc()}
	case "containerd":
		return map[string]string{
			"bin/containerd":              bin + "containerd",
			"bin/containerd-shim-runc-v2": bin + "containerd-shim-runc-v2",
			"bin/ctr":                     bin + "ctr",
		}
	}
	return nil
}

const cniPlugins = "cni-plugins"

// placeOf is where a file of an artefact goes. Every plugin goes: which of them a
// network add-on calls is its own affair.
func (h *Host) placeOf(artefact, file string) (string, bool) {
	if artefact == cniPlugins {
		// Beside the plugins lie LICENSE and README.md.
		return layout.CNIBinDir + "/" + file, path.Base(file) == file && strings.ToLower(file) == file && path.Ext(file) == ""
	}
	dest, ok := h.places(artefact)[file]
	return dest, ok
}

// filesOf are the files that an artefact must have laid.
func (h *Host) filesOf(artefact string) []string {
	if artefact == cniPlugins {
		return []string{layout.CNIBinDir + "/loopback"}
	}
	var files []string
	for _, dest := range h.places(artefact) {
		files = append(files, dest)
	}
	slices.Sort(files)
	return files
}

// isImages says that a pin is an archive of images.
func isImages(p cluster.Pin) bool { return strings.HasPrefix(p.Name, cluster.ImageArtifact("")) }

// installedFile remembers which artefacts were laid from the lock file, by name
// and sha256. Version 1 (docs/formats.md).
const installedFile = layout.Artifacts + "/installed.json"

type installed struct {
	Version   int               `json:"version"`
	Artefacts map[string]string `json:"artefacts"`
}

// installed reads the record; one that cannot be read costs an installation anew.
func (h *Host) installed() installed {
	var i installed
	data, err := os.ReadFile(h.path(installedFile))
	if err != nil || json.Unmarshal(data, &i) != nil || i.Version != 1 || i.Artefacts == nil {
		return installed{Version: 1, Artefacts: map[string]string{}}
	}
	return i
}

func (h *Host) remember(i installed, p cluster.Pin) error {
	i.Artefacts[p.Name] = p.For(h.Arch).SHA256
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return h.Write(h.path(installedFile), append(data, '\n'), 0o600)
}

// installArtefacts lays what the lock file pins and the image lacks. Nothing is
// laid before everything was fetched.
func (h *Host) installArtefacts(ctx context.Context, report func(member.Fetching)) error {
	record := h.installed()
	var fetch, lay []cluster.Pin
	for _, p := range h.Cluster.Lock {
		if isImages(p) {
			if record.Artefacts[p.Name] != p.For(h.Arch).SHA256 {
				fetch = append(fetch, p)
			}
			continue
		}
		if len(h.filesOf(p.Name)) == 0 {
			return fmt.Errorf("the lock file pins %q, which this agent cannot install: render with the userdata of the same release", p.Name)
		}
		there, err := h.there(ctx, p, record)
		if err != nil {
			return err
		}
		if !there {
			fetch, lay = append(fetch, p), append(lay, p)
		}
	}
	if len(fetch) == 0 {
		return nil
	}
	if err := h.Artifacts.Fetch(ctx, fetch, report); err != nil {
		return err
	}
	if err := h.checkUnpacked(lay); err != nil {
		return err
	}
	for _, p := range lay {
		if err := h.lay(ctx, p, record); err != nil {
			return err
		}
	}
	return nil
}

// there says that the server has an artefact as it is pinned: laid from the lock
// file before, or by the image.
func (h *Host) there(ctx context.Context, p cluster.Pin, record installed) (bool, error) {
	for _, f := range h.filesOf(p.Name) {
		if !h.exists(f) {
			return false, nil
		}
	}
	if was, ok := record.Artefacts[p.Name]; ok {
		return was == p.For(h.Arch).SHA256, nil
	}
	files := h.places(p.Name)
	switch {
	case p.Name == cniPlugins:
		return true, nil // they say no version
	case len(files) == 1 && files[p.Name] != "" && p.Name != "crictl":
		return h.isFile(files[p.Name], p.For(h.Arch))
	}
	out, err := h.Run(ctx, h.Prefix.Bin()+"/"+p.Name, "--version")
	if err != nil {
		h.Log.Info("the image's program does not run and is replaced by the pinned one", "artefact", p.Name, "error", err)
		return false, nil
	}
	if have := strings.TrimSpace(string(out)); !slices.Contains(strings.Fields(have), p.Version) {
		h.Log.Info("the image's program is of another version and is replaced by the pinned one", "artefact", p.Name, "is", have, "pinned", p.Version)
		return false, nil
	}
	return true, nil
}

// isFile compares a program of the image with its digest.
func (h *Host) isFile(path string, want cluster.Digest) (bool, error) {
	f, err := os.Open(h.path(path))
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != want.Size {
		return false, err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)) == want.SHA256, nil
}

// lay puts one artefact in its place, and remembers it.
func (h *Host) lay(ctx context.Context, p cluster.Pin, record installed) error {
	err := h.Artifacts.Install(ctx, p, func(file string) (string, bool) {
		dest, ok := h.placeOf(p.Name, file)
		return h.path(dest), ok
	})
	if err != nil {
		return err
	}
	for _, f := range h.filesOf(p.Name) {
		if !h.exists(f) {
			return fmt.Errorf("the artefact %s (sha256 %s) holds no %s: the lock file pins something else under this name", p.Name, p.For(h.Arch).SHA256, path.Base(f))
		}
	}
	if own := "/usr/bin/" + p.Name; p.Name == "containerd" && h.exists(own) {
		h.Log.Info("the distribution's containerd stays installed and is not used", "path", own)
	}
	h.Log.Info("installed", "artefact", p.Name, "version", p.Version)
	return h.remember(record, p)
}

// unpacked is how much larger than its archive an artefact may be; Go programs
// compress to a third.
const unpacked = 4

// checkUnpacked looks for space where programs go.
func (h *Host) checkUnpacked(pins []cluster.Pin) error {
	var need uint64
	for _, p := range pins {
		need += unpacked * uint64(p.For(h.Arch).Size)
	}
	free, err := h.Free(h.nearest(h.Prefix.Bin()))
	if err != nil {
		return fmt.Errorf("asking for the space at %s: %w", h.Prefix.Bin(), err)
	}
	if free < need {
		return fmt.Errorf("%s has %d MiB free, expected at least %d for the programs of the lock file; make room or use a larger disk", h.Prefix.Bin(), free>>20, need>>20)
	}
	return nil
}

// bringImages imports the archives of the lock file, and says which images will
// have to be pulled.
func (h *Host) bringImages(ctx context.Context, want []string) error {
	missing, err := h.missing(ctx, want)
	if err != nil {
		return err
	}
	record := h.installed()
	for _, p := range h.Cluster.Lock {
		if !isImages(p) || record.Artefacts[p.Name] == p.For(h.Arch).SHA256 && len(missing) == 0 {
			continue
		}
		if err := h.importImages(ctx, p); errors.Is(err, fs.ErrNotExist) && record.Artefacts[p.Name] != "" {
			continue // imported before, and the cache was emptied since
		} else if err != nil {
			return err
		}
		if err := h.remember(record, p); err != nil {
			return err
		}
	}
	if missing, err = h.missing(ctx, want); err != nil {
		return err
	}
	if len(missing) > 0 {
		h.Log.Info("images will be pulled from their registry; an image with them baked in, or an archive in spec.artifacts.images, starts sooner", "missing", strings.Join(missing, " "))
	}
	return nil
}

func (h *Host) importImages(ctx context.Context, p cluster.Pin) error {
	file, err := h.Artifacts.Path(ctx, p)
	if err != nil {
		return fmt.Errorf("importing %s: %w", p.Name, err)
	}
	if _, err := h.Run(ctx, h.Prefix.Bin()+"/ctr", "--address", h.path(layout.Containerd), "--namespace", "k8s.io", "images", "import", "--local", file); err != nil {
		return fmt.Errorf("importing the archive of images %s: %w", p.Name, err)
	}
	h.Log.Info("imported", "images", p.Name)
	return nil
}

// missing lists the images that containerd lacks.
func (h *Host) missing(ctx context.Context, want []string) ([]string, error) {
	out, err := h.Run(ctx, h.Prefix.Bin()+"/ctr", "--address", h.path(layout.Containerd), "--namespace", "k8s.io", "images", "list", "--quiet")
	if err != nil {
		return nil, fmt.Errorf("asking containerd for its images: %w", err)
	}
	return missingImages(want, out), nil
}
