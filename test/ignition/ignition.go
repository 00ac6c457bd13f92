// Package ignition does to the root of a test server what Ignition does in its
// first boot: the part of it that user-data of muster uses. The configuration is
// read and validated by Ignition's own package.
package ignition

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	config "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/vincent-petithory/dataurl"
)

// Is says that user-data is an Ignition configuration and nothing for cloud-init.
func Is(userData []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(userData), []byte("{")) }

// preset is where Ignition says which units the first boot enables.
const preset = "etc/systemd/system-preset/20-ignition.preset"

// Apply lays files and units into root and enables units as the first boot would.
// Whatever it does not know is an error.
func Apply(ctx context.Context, root string, userData []byte) error {
	c, report, err := config.Parse(userData)
	if err != nil || len(report.Entries) > 0 {
		return errors.Join(fmt.Errorf("Ignition says: %s", report.String()), err)
	}
	known := types.Config{Ignition: types.Ignition{Version: c.Ignition.Version}, Storage: types.Storage{Files: c.Storage.Files}, Systemd: c.Systemd}
	if got, want := fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", known); got != want {
		return fmt.Errorf("the configuration has more than files and units: %s", got)
	}
	for _, f := range c.Storage.Files {
		content, err := resource(f.Contents)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		if err := write(root, f.Path, content, os.FileMode(*f.Mode)); err != nil {
			return err
		}
	}
	var names []string
	var enable strings.Builder
	for _, u := range c.Systemd.Units {
		if err := write(root, "/etc/systemd/system/"+u.Name, []byte(*u.Contents), 0o644); err != nil {
			return err
		}
		if u.Enabled != nil && *u.Enabled {
			names = append(names, u.Name)
			enable.WriteString("enable " + u.Name + "\n")
		}
	}
	if err := write(root, preset, []byte(enable.String()), 0o644); err != nil {
		return err
	}
	// Test servers come with a machine id that makes no boot their first.
	out, err := exec.CommandContext(ctx, "systemctl", append([]string{"--root=" + root, "preset"}, names...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl preset: %w\n%s", err, out)
	}
	return nil
}

// resource is the content of a file, verified.
func resource(r types.Resource) ([]byte, error) {
	url, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		return nil, fmt.Errorf("only data URLs can be applied here: %w", err)
	}
	data := url.Data
	if r.Compression != nil && *r.Compression == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(z); err != nil {
			return nil, err
		}
	}
	if want := fmt.Sprintf("sha256-%x", sha256.Sum256(data)); r.Verification.Hash == nil || *r.Verification.Hash != want {
		return nil, fmt.Errorf("verification: the content has %s", want)
	}
	return data, nil
}

func write(root, path string, content []byte, mode os.FileMode) error {
	at := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(at, content, mode); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}
