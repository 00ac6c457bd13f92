package kubeadm

import (
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
		{"somebody else's node", Facts{Evidence: Evidence{EtcdData: true}}, NotOurs},
		{"done", Facts{Done: true, Evidence: Evidence{KubeletConf: true}}, Nothing},
	} {
		if got := JoinStep(row.f); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

// Whatever is found: a joined member with etcd's data is never reset, and nothing
// is reset that the journal does not know.
func TestNeverReset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(name string) bool { return rapid.Bool().Draw(t, name) }
		f := Facts{Done: b("done"), Started: b("started"), Alive: b("alive"), Evidence: Evidence{
			AdminConf: b("admin"), KubeletConf: b("kubelet"), EtcdData: b("etcd"), Manifests: rapid.IntRange(0, 4).Draw(t, "manifests"),
		}}
		if JoinStep(f) == ResetRun && (f.Evidence.EtcdData || !f.Started || f.Done) {
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
	want := Evidence{AdminConf: true, Manifests: 1, EtcdData: true, CAHash: a.CAHash()}
	if diff := cmp.Diff(want, Look(root, testNow)); diff != "" {
		t.Error(diff)
	}
}
