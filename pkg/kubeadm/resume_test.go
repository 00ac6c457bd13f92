package kubeadm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/layout"
)

func TestInitStep(t *testing.T) {
	left := Evidence{AdminConf: true, Manifests: 4, EtcdData: true, Endpoint: "e:6443", CAHash: "sha256:a"}
	for _, row := range []struct {
		why  string
		f    Facts
		want Step
	}{
		{"fresh disk", Facts{}, Run},
		{"begun, power lost before kubeadm wrote anything", Facts{Started: true}, Run},
		{"power lost in the middle", Facts{Started: true, Evidence: left, Endpoint: "e:6443", CAHash: "sha256:a"}, ResetRun},
		{"add-ons failed", Facts{Started: true, Evidence: left, Endpoint: "e:6443", CAHash: "sha256:a", Alive: true}, Finish},
		{"the endpoint was changed meanwhile", Facts{Started: true, Evidence: left, Endpoint: "f:6443", CAHash: "sha256:a", Alive: true}, ResetRun},
		{"another authority in place", Facts{Started: true, Evidence: left, Endpoint: "e:6443", CAHash: "sha256:b", Alive: true}, ResetRun},
		{"a torn certificate, nothing else", Facts{Started: true, Evidence: Evidence{Leftovers: []string{"/etc/kubernetes/pki/apiserver.crt"}}}, ResetRun},
		{"the image's files, no run yet", Facts{Evidence: Evidence{Leftovers: []string{"/var/lib/kubelet/config.yaml"}}}, Run},
		{"somebody else's node", Facts{Evidence: Evidence{KubeletConf: true}}, NotOurs},
		{"done", Facts{Done: true, Started: true, Evidence: left}, Nothing},
	} {
		if got := InitStep(row.f); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

func TestJoinStep(t *testing.T) {
	for _, row := range []struct {
		why  string
		f    Facts
		want Step
	}{
		{"fresh disk", Facts{}, Run},
		{"authorities laid only", Facts{Started: true, Evidence: Evidence{CAHash: "sha256:a"}}, Run},
		{"half-written admin.conf", Facts{Started: true, Evidence: Evidence{AdminConf: true}}, ResetRun},
		{"manifests, etcd never started", Facts{Started: true, Evidence: Evidence{AdminConf: true, Manifests: 4}}, ResetRun},
		{"etcd has data: perhaps a voter", Facts{Started: true, Evidence: Evidence{AdminConf: true, Manifests: 4, EtcdData: true}}, Finish},
		{"the kubelet is in: the node may be Ready", Facts{Started: true, Evidence: Evidence{KubeletConf: true}}, Finish},
		{"etcd's data, taken out of etcd meanwhile", Facts{Started: true, EtcdGone: true, Evidence: Evidence{AdminConf: true, EtcdData: true}}, ResetRun},
		{"no data yet, so etcd knows of none", Facts{Started: true, EtcdGone: true, Evidence: Evidence{AdminConf: true, Manifests: 3}}, ResetRun},
		{"done, and taken out by hand", Facts{Done: true, Started: true, EtcdGone: true, Evidence: Evidence{EtcdData: true}}, Nothing},
		{"a worker's CA, from kubeadm", Facts{Started: true, Evidence: Evidence{Leftovers: []string{"/etc/kubernetes/pki/ca.crt"}}}, ResetRun},
		{"a torn certificate beside etcd's data", Facts{Started: true, Evidence: Evidence{EtcdData: true, Leftovers: []string{"/etc/kubernetes/pki/apiserver.crt"}}}, Finish},
		{"somebody else's node", Facts{Evidence: Evidence{EtcdData: true}}, NotOurs},
		{"done", Facts{Done: true, Evidence: Evidence{KubeletConf: true}}, Nothing},
	} {
		if got := JoinStep(row.f); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

// Whatever is found: a member with etcd's data that etcd knows is never reset, and nothing
// is reset that the journal does not know.
func TestNeverReset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(name string) bool { return rapid.Bool().Draw(t, name) }
		f := Facts{Done: b("done"), Started: b("started"), Alive: b("alive"), EtcdGone: b("gone"), Evidence: Evidence{
			AdminConf: b("admin"), KubeletConf: b("kubelet"), EtcdData: b("etcd"), Manifests: rapid.IntRange(0, 4).Draw(t, "manifests"),
		}}
		if JoinStep(f) == ResetRun && (f.Evidence.EtcdData && !f.EtcdGone || !f.Started || f.Done) {
			t.Fatalf("join resets %+v", f)
		}
		if InitStep(f) == ResetRun && (!f.Started || f.Done) {
			t.Fatalf("init resets %+v", f)
		}
	})
}

func TestLook(t *testing.T) {
	root := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := Look(root, testNow); got.Any() || got.String() != "nothing of Kubernetes" {
		t.Errorf("an empty disk: %+v", got)
	}
	put(layout.AdminConf, "apiVersion: v1\nclus") // torn
	put(layout.Manifests+"/etcd.yaml", "x")
	put(layout.EtcdData+"/member/snap/db", "x")
	put(layout.KubeletConf, "torn")
	a := authorities(t)
	if _, err := Lay(a, filepath.Join(root, layout.KubernetesPKI), write); err != nil {
		t.Fatal(err)
	}
	want := Evidence{
		AdminConf: true, Manifests: 1, EtcdData: true, CAHash: a.CAHash(),
		Leftovers: []string{layout.AdminConf, layout.KubeletConf}, // the authorities are ours
	}
	if diff := cmp.Diff(want, Look(root, testNow)); diff != "" {
		t.Error(diff)
	}
}

// What a power loss leaves of a kubeadm that was cut off before it wrote anything
// that proves a node: names, with nothing behind them.
func TestLookFindsLeftovers(t *testing.T) {
	for name, paths := range map[string][]string{
		"control plane, certificates": {layout.KubernetesPKI + "/apiserver.crt", layout.KubernetesPKI + "/etcd/peer.key"},
		"kubelet about to start":      {layout.Kubernetes + "/bootstrap-kubelet.conf", layout.KubeletData + "/config.yaml"},
	} {
		root := t.TempDir()
		if _, err := Lay(authorities(t), filepath.Join(root, layout.KubernetesPKI), write); err != nil {
			t.Fatal(err)
		}
		if e := Look(root, testNow); e.Any() || e.Leftovers != nil {
			t.Errorf("%s: the authorities alone are %+v", name, e)
		}
		for _, p := range paths {
			if err := errors.Join(os.MkdirAll(filepath.Join(root, filepath.Dir(p)), 0o755), os.WriteFile(filepath.Join(root, p), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		e := Look(root, testNow)
		if diff := cmp.Diff(paths, e.Leftovers); diff != "" || e.Any() {
			t.Errorf("%s: %+v %s", name, e, diff)
		}
	}
	worker := t.TempDir()
	ca := filepath.Join(worker, layout.KubernetesPKI, caCert)
	if err := errors.Join(os.MkdirAll(filepath.Dir(ca), 0o755), os.WriteFile(ca, authorities(t).CA(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if e := Look(worker, testNow); len(e.Leftovers) != 1 {
		t.Errorf("a worker's CA, which kubeadm refuses to find: %+v", e)
	}
}
