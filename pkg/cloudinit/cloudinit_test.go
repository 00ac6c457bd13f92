package cloudinit

import (
	"context"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0ISEhIQ=="

var masked = strings.Repeat("x", len(secret))

func scrubber(t *testing.T, files map[string]string) Scrubber {
	t.Helper()
	s := Scrubber{Root: t.TempDir(), Secrets: []string{secret, "", "a longer token", "short"}, Write: os.WriteFile, Poll: 5 * time.Second}
	for name, content := range files {
		s.put(t, name, content)
	}
	return s
}

func (s Scrubber) put(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(s.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s Scrubber) read(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(s.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(s.Root, path)
		out[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestScrub: the secrets go, lengths and all else stay, and a second run changes
// nothing.
func TestScrub(t *testing.T) {
	s := scrubber(t, map[string]string{
		"var/lib/cloud/instances/i-1/user-data.txt":     "#cloud-config\n  secret: " + secret + "\n",
		"var/lib/cloud/instances/i-1/obj.pkl":           "\x80\x04B" + secret + "\x00" + secret,
		"var/lib/cloud/instances/i-1/scripts/part-001":  "#!/bin/sh\napiToken: a longer token, short\n",
		"var/lib/cloud/instances/i-1/sem/config_runcmd": "1: done",
		"run/cloud-init/combined-cloud-config.json":     `{"content": "` + secret + `"}`,
		"etc/muster/cluster.yaml":                       secret,
	})
	if err := os.Symlink("/etc/muster/cluster.yaml", filepath.Join(s.Root, "var/lib/cloud/link")); err != nil {
		t.Fatal(err)
	}
	changed, err := s.Scrub()
	if err != nil || len(changed) != 4 {
		t.Fatalf("changed %v, %v", changed, err)
	}
	want := map[string]string{
		"var/lib/cloud/instances/i-1/user-data.txt":     "#cloud-config\n  secret: " + masked + "\n",
		"var/lib/cloud/instances/i-1/obj.pkl":           "\x80\x04B" + masked + "\x00" + masked,
		"var/lib/cloud/instances/i-1/scripts/part-001":  "#!/bin/sh\napiToken: xxxxxxxxxxxxxx, short\n",
		"var/lib/cloud/instances/i-1/sem/config_runcmd": "1: done",
		"run/cloud-init/combined-cloud-config.json":     `{"content": "` + masked + `"}`,
		"etc/muster/cluster.yaml":                       secret,
	}
	if diff := cmp.Diff(want, s.read(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if changed, err := s.Scrub(); err != nil || len(changed) > 0 {
		t.Errorf("the second run changed %v, %v", changed, err)
	}
}

// TestBase64: wherever in an encoded file a secret stands, it goes, and the rest of the
// file is what it was.
func TestBase64(t *testing.T) {
	for before := range 7 {
		for after := range 4 {
			text := strings.Repeat("b", before) + secret + strings.Repeat("a", after)
			s := scrubber(t, map[string]string{"var/lib/cloud/user-data": "content: " + base64.StdEncoding.EncodeToString([]byte(text)) + "\n"})
			if _, err := s.Scrub(); err != nil {
				t.Fatal(err)
			}
			encoded := strings.TrimSuffix(strings.TrimPrefix(s.read(t)["var/lib/cloud/user-data"], "content: "), "\n")
			got, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil || len(got) != len(text) {
				t.Fatalf("%q, %v", got, err)
			}
			kept := 0
			for i := range text {
				if i < before || i >= before+len(secret) {
					if got[i] != text[i] {
						t.Errorf("byte %d beside the secret is %q, was %q", i, got[i], text[i])
					}
				} else if got[i] == text[i] {
					kept++
				}
			}
			if kept > 2 {
				t.Errorf("%d bytes before, %d after: %d characters of the secret are left in %q", before, after, kept, got)
			}
		}
	}
}

// TestRun waits for cloud-init, and not where there is none.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if changed, err := scrubber(t, nil).Run(t.Context()); err != nil || changed != nil {
			t.Errorf("no cloud-init: %v, %v", changed, err)
		}
		s := scrubber(t, map[string]string{"var/lib/cloud/instances/i/user-data.txt": secret, "run/cloud-init/status.json": "{}"})
		began := time.Now()
		time.AfterFunc(time.Minute, func() { s.put(t, "run/cloud-init/result.json", "{}") })
		if changed, err := s.Run(t.Context()); err != nil || len(changed) != 1 || time.Since(began) < time.Minute {
			t.Errorf("after %s: %v, %v", time.Since(began), changed, err)
		}
		s = scrubber(t, map[string]string{"run/cloud-init/status.json": secret})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if changed, err := s.Run(ctx); err != nil || changed != nil {
			t.Errorf("cloud-init that never ends: %v, %v", changed, err)
		}
	})
}

// TestUnwritable: what cannot be written is said, and the rest is scrubbed.
func TestUnwritable(t *testing.T) {
	s := scrubber(t, map[string]string{"var/lib/cloud/a": secret, "var/lib/cloud/b": secret})
	s.Write = func(path string, data []byte, perm fs.FileMode) error {
		if strings.HasSuffix(path, "a") {
			return &fs.PathError{Op: "write", Path: path, Err: fs.ErrPermission}
		}
		return os.WriteFile(path, data, perm)
	}
	_, err := s.Scrub()
	if err == nil || !strings.Contains(err.Error(), "taking the cluster's secret out of cloud-init's copies of user-data: write ") || s.read(t)["var/lib/cloud/b"] != masked {
		t.Errorf("%v; %v", err, s.read(t))
	}
}
