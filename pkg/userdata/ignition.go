package userdata

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
)

// ignitionVersion is the specification that Flatcar and Fedora CoreOS have read
// since 2022.
const ignitionVersion = "3.4.0"

// ignitionConfig is what we write of an Ignition configuration. Field names are
// Ignition's.
type ignitionConfig struct {
	Ignition struct {
		Version string `json:"version"`
	} `json:"ignition"`
	Storage struct {
		Files []ignitionFile `json:"files"`
	} `json:"storage"`
	Systemd struct {
		Units []ignitionUnit `json:"units"`
	} `json:"systemd"`
}

type ignitionFile struct {
	Path      string           `json:"path"`
	Mode      int              `json:"mode"` // decimal in JSON
	Overwrite bool             `json:"overwrite"`
	Contents  ignitionContents `json:"contents"`
}

type ignitionContents struct {
	Source       string `json:"source"`
	Compression  string `json:"compression,omitempty"`
	Verification struct {
		Hash string `json:"hash"` // of what is unpacked
	} `json:"verification"`
}

type ignitionUnit struct {
	Name     string `json:"name"`
	Enabled  bool   `json:"enabled"`
	Contents string `json:"contents"`
}

const dataURL = "data:;base64,"

// ignition is for systems that have no cloud-init. They run it once, before
// their first boot proper, so nothing is started: the units are enabled. It has no
// comments, JSON knows none.
func (c Contents) ignition() (string, error) {
	var doc ignitionConfig
	doc.Ignition.Version = ignitionVersion
	for _, f := range c.Files {
		if name, is := strings.CutPrefix(f.Path, layout.UnitDir+"/"); is {
			doc.Systemd.Units = append(doc.Systemd.Units, ignitionUnit{name, true, f.Content})
			continue
		}
		file := ignitionFile{Path: f.Path, Mode: int(f.Mode), Overwrite: true}
		file.Contents.Source = dataURL + base64.StdEncoding.EncodeToString(compress(f.Content))
		file.Contents.Compression = "gzip"
		file.Contents.Verification.Hash = fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(f.Content)))
		doc.Storage.Files = append(doc.Storage.Files, file)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(doc)
	return b.String(), err
}

// readIgnition returns what an Ignition configuration of ours writes to path.
func readIgnition(text, path string) (string, bool, error) {
	var doc ignitionConfig
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return "", false, err
	}
	for _, f := range doc.Storage.Files {
		if f.Path != path {
			continue
		}
		encoded, is := strings.CutPrefix(f.Contents.Source, dataURL)
		if !is || f.Contents.Compression != "gzip" {
			return "", false, fmt.Errorf("%s comes from %.40q with compression %q, expected %s with gzip", path, f.Contents.Source, f.Contents.Compression, dataURL)
		}
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return "", false, err
		}
		content, err := decompress(data)
		return content, true, err
	}
	return "", false, nil
}
