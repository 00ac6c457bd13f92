package kubeadm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// bundle is how authorities travel from one control plane's agent to another,
// sealed to the receiver. docs/formats.md describes it.
type bundle struct {
	Version int               `json:"version"`
	Files   map[string]string `json:"files"` // the eight names of /etc/kubernetes/pki to PEM
}

const (
	bundleVersion = 1
	bundleLimit   = 64 << 10 // eight P-256 files are 5 KiB; RSA ones 14 KiB
)

// Bundle encodes the authorities, keys included. The result is a secret.
func (a Authorities) Bundle() ([]byte, error) {
	b := bundle{Version: bundleVersion, Files: map[string]string{}}
	for name, data := range a.files {
		b.Files[name] = string(data)
	}
	out, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encoding the certificate authorities: %w", err)
	}
	return out, nil
}

// Unbundle decodes what Bundle made and checks that it is complete and that each
// key belongs to its certificate. Errors hold nothing of the keys.
func Unbundle(data []byte) (Authorities, error) {
	if len(data) > bundleLimit {
		return Authorities{}, fmt.Errorf("decoding the certificate authorities: %d bytes, expected at most %d", len(data), bundleLimit)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var b bundle
	if err := d.Decode(&b); err != nil {
		return Authorities{}, fmt.Errorf("decoding the certificate authorities: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Authorities{}, fmt.Errorf("decoding the certificate authorities: something follows the document")
	}
	if b.Version != bundleVersion {
		return Authorities{}, fmt.Errorf("decoding the certificate authorities: version %d, this agent reads %d; upgrade the older of the two agents", b.Version, bundleVersion)
	}
	files := map[string][]byte{}
	for name, text := range b.Files {
		files[name] = []byte(text)
	}
	a, err := assemble(files)
	if err != nil {
		return Authorities{}, fmt.Errorf("decoding the certificate authorities: %w", err)
	}
	return a, nil
}
