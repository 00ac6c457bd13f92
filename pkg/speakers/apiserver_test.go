package speakers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAPIServerTakesThem gives everything that is rendered for MetalLB, Calico and
// Cilium to a real API server with the projects' definitions: a server-side apply with
// strict validation, so that defaulting, CEL rules and unknown fields count as there.
// MUSTER_COMPONENTS names a directory with etcd, kube-apiserver and kubectl, such as
// make image makes (~/.cache/muster/components-…/bin).
func TestAPIServerTakesThem(t *testing.T) {
	bin := os.Getenv("MUSTER_COMPONENTS")
	if bin == "" {
		t.Skip("MUSTER_COMPONENTS is not set: no API server to ask")
	}
	try := startAPIServer(t, bin)
	kubectl := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil {
			t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	kubectl(t, "apply", "--server-side", "-f", "testdata/crd")
	kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
	kubectl(t, "create", "namespace", "ns") // that of the golden files
	files, err := filepath.Glob("testdata/*-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for _, file := range files {
		name := filepath.Base(file)
		speaker, _, _ := strings.Cut(name, "-")
		if speaker == "kube" { // a static pod: no API server is asked
			continue
		}
		t.Run(name, func(t *testing.T) {
			out := kubectl(t, "apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", file)
			applied += strings.Count(out, "serverside-applied")
			kubectl(t, "delete", "--wait=true", "-f", file)
		})
	}
	// The same with one misspelt field: a check that lets it pass sees nothing.
	data, err := os.ReadFile("testdata/metallb-shared.yaml")
	misspelt := filepath.Join(t.TempDir(), "misspelt.yaml")
	if err == nil {
		err = os.WriteFile(misspelt, bytes.ReplaceAll(data, []byte("myASN:"), []byte("myAsn:")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := try("apply", "--server-side", "--validate=strict", "-f", misspelt); err == nil || !strings.Contains(out, "myAsn") {
		t.Errorf("a misspelt field: %v: %s", err, out)
	}
	t.Logf("%d objects applied", applied)
	if applied < len(files) {
		t.Errorf("%d objects of %d files were applied", applied, len(files))
	}
}

// startAPIServer runs etcd and an API server on loopback until the test ends, and
// returns kubectl. Nobody else is in the cluster: there are no controllers, and everybody
// may do everything.
func startAPIServer(t *testing.T, bin string) func(...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	var logs bytes.Buffer
	var started []*exec.Cmd
	t.Cleanup(func() {
		stop()
		for _, cmd := range started {
			_ = cmd.Wait()
		}
		if t.Failed() {
			text := logs.String()
			t.Log(text[max(0, len(text)-4000):])
		}
	})
	run := func(name string, args ...string) {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		cmd.Stdout, cmd.Stderr = &logs, &logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started = append(started, cmd)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	accounts, tokens := filepath.Join(dir, "accounts.key"), filepath.Join(dir, "tokens")
	for path, data := range map[string][]byte{accounts: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), tokens: []byte("token,admin,admin,system:masters\n")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, peer, secure := freePort(t), freePort(t), freePort(t)
	etcd := fmt.Sprintf("http://127.0.0.1:%d", client)
	run("etcd", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer))
	run("kube-apiserver", "--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(secure), "--cert-dir", filepath.Join(dir, "pki"),
		"--token-auth-file", tokens, "--authorization-mode", "AlwaysAllow", "--service-cluster-ip-range", "10.96.0.0/16", "--disable-admission-plugins", "ServiceAccount",
		"--service-account-issuer", "https://test", "--service-account-key-file", accounts, "--service-account-signing-key-file", accounts)
	kubectl := func(args ...string) (string, error) {
		args = append([]string{"--server", fmt.Sprintf("https://127.0.0.1:%d", secure), "--insecure-skip-tls-verify", "--token", "token", "--kubeconfig", os.DevNull, "--cache-dir", filepath.Join(dir, "cache")}, args...)
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), args...).CombinedOutput()
		return string(out), err
	}
	const patience = 2 * time.Minute
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		out, err := kubectl("get", "--raw", "/readyz")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API server is not ready after %s: %v: %s", patience, err, out)
		}
	}
	return kubectl
}

// freePort is one that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
