package revocation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/mustermetal/muster/pkg/member"
)

// fileVersion is the version of the file that keeps the list (docs/formats.md).
const fileVersion = 1

type file struct {
	Version int              `json:"version"`
	Revoked []member.Revoked `json:"revoked"`
}

// Marshal returns the file that keeps a list.
func Marshal(revoked []member.Revoked) ([]byte, error) {
	if revoked == nil {
		revoked = []member.Revoked{}
	}
	data, err := json.Marshal(file{Version: fileVersion, Revoked: revoked})
	if err != nil {
		return nil, fmt.Errorf("encoding the list of revoked instances: %w", err)
	}
	return append(data, '\n'), nil
}

// Parse reads the file strictly: a list that lost its end would let somebody in.
func Parse(data []byte) ([]member.Revoked, error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("reading the list of revoked instances: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("reading the list of revoked instances: something follows its end")
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("reading the list of revoked instances: it has version %d, this bootstrap knows version %d", f.Version, fileVersion)
	}
	for i, r := range f.Revoked {
		if r.Inst == "" {
			return nil, fmt.Errorf("reading the list of revoked instances: entry %d names nobody", i+1)
		}
	}
	return f.Revoked, nil
}

// Insts are the instances of a list.
func Insts(revoked []member.Revoked) []string {
	out := make([]string, 0, len(revoked))
	for _, r := range revoked {
		out = append(out, r.Inst)
	}
	return out
}
