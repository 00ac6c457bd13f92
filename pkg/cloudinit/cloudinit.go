// Package cloudinit takes the cluster's secrets out of the copies of user-data that
// cloud-init keeps on a server, once the cluster file is where it belongs.
//
// Floor 2.
package cloudinit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Where cloud-init keeps user-data: instances with its raw, processed and pickled
// forms and the scripts that came of it, seeds, and what it found in this boot.
const (
	kept    = "var/lib/cloud"
	ofBoot  = "run/cloud-init"
	ended   = "run/cloud-init/result.json" // there when cloud-init is through with this boot
	largest = 16 << 20                     // bytes of a file that is looked at; user-data has some KB
)

// WriteFile writes a file whole or not at all.
type WriteFile func(path string, data []byte, perm fs.FileMode) error

// Scrubber knows where and what.
type Scrubber struct {
	Root    string // "/" on a server
	Secrets []string
	Write   WriteFile
	Poll    time.Duration // how often to look whether cloud-init is through
}

// Run waits until cloud-init is through with this boot, because it writes its copies
// anew in each, scrubs them, and returns the files that it changed. Where there is no
// cloud-init it does nothing. The wait ends with ctx.
func (s Scrubber) Run(ctx context.Context) ([]string, error) {
	if _, err := os.Stat(filepath.Join(s.Root, ofBoot)); err != nil {
		return nil, nil
	}
	tick := time.NewTicker(s.Poll)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(s.Root, ended)); err == nil {
			return s.Scrub()
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick.C:
		}
	}
}

// Scrub puts as many x in the place of each secret wherever it stands, as it is or in
// base64. Lengths stay, so that pickles can be read as before, and cloud-init, which
// knows its instance by an id and not by user-data, runs nothing again.
func (s Scrubber) Scrub() ([]string, error) {
	var changed []string
	var problems []error
	for _, dir := range []string{kept, ofBoot} {
		err := filepath.WalkDir(filepath.Join(s.Root, dir), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			did, err := s.scrub(path)
			if did {
				changed = append(changed, path)
			}
			problems = append(problems, err)
			return nil
		})
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return changed, fmt.Errorf("taking the cluster's secret out of cloud-init's copies of user-data: %w", err)
	}
	return changed, nil
}

func (s Scrubber) scrub(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || info.Size() > largest {
		return false, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	clean := slices.Clone(data)
	for _, secret := range s.Secrets {
		if len(secret) < shortest {
			continue
		}
		masked := strings.Repeat("x", len(secret))
		clean = bytes.ReplaceAll(clean, []byte(secret), []byte(masked))
		for before := range 3 {
			clean = bytes.ReplaceAll(clean, within(secret, before), within(masked, before))
		}
	}
	if bytes.Equal(clean, data) {
		return false, nil
	}
	return true, s.Write(path, clean, info.Mode().Perm())
}

// shortest keeps a value that is hardly one from being replaced all over.
const shortest = 8

// within is how a text looks in base64 when so many bytes (mod 3) stand before it:
// the digits that are made of nothing else. Up to one character of the text at each
// end is not in them.
func within(text string, before int) []byte {
	digits := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), text...))
	first := (before*8 + 5) / 6
	last := (before + len(text)) * 8 / 6
	return []byte(digits[first:last])
}
