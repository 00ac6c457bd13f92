package kubeadm

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func write(path string, data []byte, perm fs.FileMode) error {
	return os.WriteFile(path, data, perm)
}

func authorities(t *testing.T) Authorities {
	t.Helper()
	a, err := EnsureAuthorities(filepath.Join(t.TempDir(), "pki"), write, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEnsureAuthoritiesIsIdempotent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := EnsureAuthorities(dir, write, testNow)
	if err != nil {
		t.Fatal(err)
	}
	b, err := EnsureAuthorities(dir, write, testNow.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.files, b.files); diff != "" {
		t.Error("a second call made others")
	}
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(a.CAHash()) {
		t.Errorf("hash %q", a.CAHash())
	}
}

// The wrong clock of a server that was never set must not make authorities that
// are not valid once it is.
func TestValidityDoesNotTrustTheClock(t *testing.T) {
	for _, now := range []time.Time{time.Unix(0, 0), testNow, testNow.AddDate(30, 0, 0)} {
		a, err := newAuthorities(now)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(a.CA())
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if testNow.Before(cert.NotBefore) || testNow.AddDate(9, 0, 0).After(cert.NotAfter) {
			t.Errorf("made at %s: valid from %s to %s", now, cert.NotBefore, cert.NotAfter)
		}
	}
}

// Whichever write the power fails at, the next boot makes a complete set.
func TestCrashWhileMaking(t *testing.T) {
	for n := range sharedNumber {
		dir := filepath.Join(t.TempDir(), "pki")
		writes := 0
		cut := func(path string, data []byte, perm fs.FileMode) error {
			if writes++; writes > n {
				_ = os.WriteFile(path, nil, perm)
				return errors.New("power cut")
			}
			return write(path, data, perm)
		}
		if _, err := EnsureAuthorities(dir, cut, testNow); err == nil {
			t.Fatal("no error")
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %d writes a part is taken for the whole", n)
		}
		if _, err := EnsureAuthorities(dir, write, testNow); err != nil {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
}

func TestDamagedAuthoritiesAreNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"missing key":   func(dir string) error { return os.Remove(filepath.Join(dir, caKey)) },
		"empty key":     func(dir string) error { return os.WriteFile(filepath.Join(dir, caKey), nil, 0o600) },
		"foreign key":   func(dir string) error { return os.Rename(filepath.Join(dir, etcdKey), filepath.Join(dir, caKey)) },
		"no authority":  func(dir string) error { return os.WriteFile(filepath.Join(dir, frontCert), []byte("x"), 0o600) },
		"no public key": func(dir string) error { return os.WriteFile(filepath.Join(dir, accountPub), []byte("x"), 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "pki")
		before, err := EnsureAuthorities(dir, write, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		_, err = EnsureAuthorities(dir, write, testNow)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if key := string(before.files[caKey]); strings.Contains(err.Error(), key[40:80]) {
			t.Errorf("%s: the error shows a key", name)
		}
	}
}

func TestLay(t *testing.T) {
	a, dir := authorities(t), filepath.Join(t.TempDir(), "etc/kubernetes/pki")
	for _, want := range []bool{true, false} {
		changed, err := Lay(a, dir, write)
		if err != nil || changed != want {
			t.Errorf("changed %t, %v; want %t", changed, err, want)
		}
	}
	for _, name := range sharedNames() {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, info.Mode().Perm())
		}
	}
	// kubeadm takes an empty ca.key for "the key is kept elsewhere" and goes on.
	if err := os.WriteFile(filepath.Join(dir, caKey), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Lay(a, dir, write); err != nil || !changed {
		t.Errorf("an empty key was not mended: %t, %v", changed, err)
	}
	_, err := Lay(authorities(t), dir, write)
	if err == nil || !strings.Contains(err.Error(), "reinstall it") || !strings.Contains(err.Error(), a.CAHash()) {
		t.Errorf("another cluster's authorities: %v", err)
	}
}

func TestBundle(t *testing.T) {
	a := authorities(t)
	data, err := a.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Unbundle(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.files, b.files); diff != "" || a.hash != b.hash {
		t.Error("what comes out differs from what went in")
	}
	for name, bad := range map[string][]byte{
		"cut off":       data[:len(data)/2],
		"two documents": append(bytes.Clone(data), data...),
		"version":       bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1),
		"file missing":  bytes.Replace(data, []byte(`"sa.pub"`), []byte(`"sa.bup"`), 1),
		"too big":       append(bytes.Repeat([]byte(" "), bundleLimit), data...),
	} {
		if _, err := Unbundle(bad); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
}

func FuzzUnbundle(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":{}}`))
	f.Add([]byte(`{"version":1,"files":{"ca.crt":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := Unbundle(data); err == nil && len(a.files) != sharedNumber {
			t.Errorf("%d files", len(a.files))
		}
	})
}

func TestAdopt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := EnsureAuthorities(dir, write, testNow); err != nil {
		t.Fatal(err)
	}
	cluster, other := authorities(t), authorities(t)
	if err := Adopt(other, cluster.CAHash(), dir, write); err == nil || !strings.Contains(err.Error(), "the decree pins") {
		t.Errorf("authorities that the decree does not pin: %v", err)
	}
	for range 2 {
		if err := Adopt(cluster, cluster.CAHash(), dir, write); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadAuthorities(dir)
	if err != nil || got.hash != cluster.hash {
		t.Errorf("holds %s, %v; want %s", got.hash, err, cluster.hash)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	a := authorities(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, a); strings.Contains(s, "PRIVATE") || len(s) > 100 {
			t.Errorf("%s prints %.80s…", verb, s)
		}
	}
}

// kubeadm itself must take our authorities for its own and come to our hash.
func TestRealKubeadmUsesTheAuthorities(t *testing.T) {
	kubeadm := real(t)
	a, dir := authorities(t), filepath.Join(t.TempDir(), "pki")
	if _, err := Lay(a, dir, write); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), kubeadm, "init", "phase", "certs", "all", "--cert-dir", dir,
		"--apiserver-advertise-address", "10.99.14.9", "--kubernetes-version", "v1.36.3").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"Using existing ca certificate authority", "Using existing front-proxy-ca certificate authority", "Using existing etcd/ca certificate authority", `Using the existing "sa" key`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("kubeadm does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "keyless") {
		t.Errorf("kubeadm takes an authority for one without key:\n%s", out)
	}
}
