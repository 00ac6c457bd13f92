package kubeadm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

func TestRemoveTorn(t *testing.T) {
	root := t.TempDir()
	a := authorities(t)
	if _, err := Lay(a, filepath.Join(root, layout.KubernetesPKI), write); err != nil {
		t.Fatal(err)
	}
	const certificate, key = caCert, caKey // any will do
	for path, text := range map[string]string{
		layout.KubernetesPKI + "/apiserver.crt":          string(a.files[certificate]),
		layout.KubernetesPKI + "/apiserver.key":          string(a.files[key]),
		layout.KubernetesPKI + "/etcd/server.crt":        "",
		layout.KubernetesPKI + "/etcd/server.key":        string(a.files[key]),
		layout.KubernetesPKI + "/etcd/peer.key":          string(a.files[key]), // the certificate's name was not on disk yet
		layout.KubernetesPKI + "/front-proxy-client.crt": "\x00\x00\x00\x00",
		layout.KubernetesPKI + "/front-proxy-client.key": "",
		layout.AdminConf:                      "apiVersion: v1\nkind: Config\n",
		layout.KubeletConf:                    "",
		layout.Kubernetes + "/scheduler.conf": "apiVersion: v1\n\tclus",
		layout.KubeletData + "/config.yaml":   "\x00\x00",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time there is nothing left to do
		if err := removeTorn(root); err != nil {
			t.Fatal(err)
		}
		want := []string{layout.AdminConf, layout.KubeletData + "/config.yaml", layout.KubernetesPKI + "/apiserver.crt", layout.KubernetesPKI + "/apiserver.key"}
		if diff := cmp.Diff(want, leftBehind(root)); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := ReadAuthorities(filepath.Join(root, layout.KubernetesPKI)); err != nil {
		t.Errorf("the authorities: %v", err)
	}
}

// A worker has the CA without its key, and an operator's certificate has none either.
func TestRemoveTornKeepsWhatHasNoKey(t *testing.T) {
	root := t.TempDir()
	ca := string(authorities(t).files[caCert])
	for _, name := range []string{"/ca.crt", "/oidc-ca.crt"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, layout.KubernetesPKI), 0o755), os.WriteFile(filepath.Join(root, layout.KubernetesPKI+name), []byte(ca), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeTorn(root); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/ca.crt", "/oidc-ca.crt"} {
		if data, err := os.ReadFile(filepath.Join(root, layout.KubernetesPKI+name)); err != nil || string(data) != ca {
			t.Errorf("%s is gone or changed: %v", name, err)
		}
	}
}

// etcd has data, so nothing is reset; a torn certificate would stop every run.
func TestFinishOverTornFiles(t *testing.T) {
	k, h := setUp(t)
	h.begun(StepJoin)
	h.leave(layout.EtcdData+"/member/db", "x")
	h.leave(layout.KubernetesPKI+"/apiserver.crt", "")
	j := plan.Join{ControlPlane: true, Server: "https://10.99.14.11:6443", Token: "9a08jv.c0izixklcxtmnze7", CA: h.a.CA()}
	if err := k.Join(t.Context(), self, j); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{layout.UnitKubeadmJoin}, h.started); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(h.root, layout.KubernetesPKI, "apiserver.crt")); err == nil {
		t.Error("the torn certificate is still there")
	}
}
