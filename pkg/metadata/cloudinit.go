package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/shape"
)

// instanceData is where cloud-init keeps what it found, on every platform. User-data
// and other secrets are not in this copy of it.
const instanceData = "run/cloud-init/instance-data.json"

// cloudInit reads it.
func cloudInit(root fs.FS) fetcher {
	return func(context.Context) (found, error) {
		dir, name := instanceData[:strings.LastIndex(instanceData, "/")], "instance-data.json"
		f, err := readFiles(root, dir, name)
		if err == nil && len(f.docs) == 0 {
			err = fmt.Errorf("metadata: cloud-init has not said yet what it found: there is no /%s; systemctl status cloud-init says why", instanceData)
		}
		return f, err
	}
}

// kept is what instance-data.json says of the platform.
type kept struct {
	V1 struct {
		Platform    string `json:"platform"`
		Subplatform string `json:"subplatform"` // such as: metadata (http://169.254.169.254)
	} `json:"v1"`
	DS struct {
		Meta    json.RawMessage `json:"meta_data"`
		Network json.RawMessage `json:"network_json"`
	} `json:"ds"`
}

// readKept returns it; false where cloud-init has said nothing that can be read.
func readKept(root fs.FS) (kept, bool) {
	var k kept
	b, err := readLimited(root, instanceData)
	if err != nil || json.Unmarshal(b, &k) != nil {
		return kept{}, false
	}
	k.V1.Platform = strings.ToLower(k.V1.Platform)
	return k, k.V1.Platform != ""
}

// documents makes documents of a shape from the copies that cloud-init keeps of
// them, where it is of one of the platforms.
func (k kept) documents(meta, network string, platforms ...string) (found, bool) {
	if !slices.Contains(platforms, k.V1.Platform) || len(k.DS.Meta) == 0 {
		return found{}, false
	}
	f := found{docs: shape.Documents{meta: k.DS.Meta}, from: []string{"/" + instanceData}}
	if network != "" && len(k.DS.Network) > 0 && string(k.DS.Network) != "null" {
		f.docs[network] = k.DS.Network
	}
	return f, true
}

// readFiles reads the documents of a directory that are there.
func readFiles(root fs.FS, dir string, names ...string) (found, error) {
	f := found{docs: shape.Documents{}}
	for i, name := range names {
		b, err := readLimited(root, dir+"/"+name)
		if errors.Is(err, fs.ErrNotExist) {
			if i == 0 {
				return f, nil // without the first the others mean nothing
			}
			continue
		}
		if err != nil {
			return f, fmt.Errorf("metadata: %w", err)
		}
		f.docs[name] = b
		f.from = append(f.from, "/"+dir+"/"+name)
	}
	return f, nil
}

func readLimited(root fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(root, name)
	if err == nil && info.Size() > maxDocument {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxDocument)
	}
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(root, name)
}

// text is a small file, "" where there is none.
func text(root fs.FS, name string) string {
	b, err := readLimited(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
