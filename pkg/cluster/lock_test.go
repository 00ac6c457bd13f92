package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// lockOf is the lock file that a cluster file asks for.
func lockOf(t *testing.T, file string) Lock {
	t.Helper()
	c, problems := ParseUnlocked("c.yaml", []byte(file), Beside{})
	if err := Err(problems); err != nil {
		t.Fatal(err)
	}
	var l Lock
	for _, a := range c.Spec.Wanted() {
		p := Pin{Name: a.Name, Version: a.Version, URLs: a.URLs}
		for _, arch := range c.Spec.Architectures() {
			p.Set(arch, Digest{SHA256: sum, Size: 42})
		}
		l.Artifacts = append(l.Artifacts, p)
	}
	return l
}

// full is a cluster file that asks for everything that can be pinned.
var full = strings.Replace(good, "  kubernetes:\n", `  agent: {urls: ["http://10.0.0.5/bootstrap_linux_ARCH"]}
  artifacts:
    mirrors: ["http://10.0.0.5/mirror/", publishers]
    versions: {containerd: v2.3.5}
    images: [{name: control-plane, urls: ["http://10.0.0.5/images-ARCH.tar"]}]
  kubernetes:
`, 1)

func TestLockFile(t *testing.T) {
	lock := lockOf(t, full)
	data, err := lock.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, problems := ParseLock("c.lock.yaml", data)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	again, err := back.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(data), string(again)); diff != "" {
		t.Error(diff)
	}
	block := `- name: containerd
    version: v2.3.5
    urls: ['http://10.0.0.5/mirror/github.com/containerd/containerd/releases/download/v2.3.5/containerd-2.3.5-linux-ARCH.tar.gz', 'https://github.com/containerd/containerd/releases/download/v2.3.5/containerd-2.3.5-linux-ARCH.tar.gz']
    amd64:
      sha256: ` + sum + `
      size: 42
`
	if !strings.Contains(string(data), block) {
		t.Errorf("no such block:\n%s\nin\n%s", block, data)
	}
	c, problems := ParseBeside("c.yaml", []byte(full), Beside{Lock: &back})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := c.Spec.Agent.SHA256; got["amd64"] != sum || got["arm64"] != sum {
		t.Errorf("the agent's sha256 are %v", got)
	}
	if len(c.Lock) != 8 { // all but the agent
		t.Errorf("%d pins go to servers, expected 8: %v", len(c.Lock), c.Lock)
	}
}

// TestLockProblems holds what is said of a lock that is not what the cluster file
// asks for.
func TestLockProblems(t *testing.T) {
	for _, row := range []struct {
		name, file string
		change     func(*Lock)
		want       []string
	}{
		{"fine", full, func(*Lock) {}, nil},
		{"fine without artifacts", good, func(*Lock) {}, nil},
		{"missing", full, func(l *Lock) { l.Artifacts = l.Artifacts[:len(l.Artifacts)-1] }, []string{
			"15:5: spec.artifacts: the lock file has no digest of runc (run `userdata lock` and look at what it changes)",
		}},
		{"other version", full, func(l *Lock) { l.Artifacts[5].Version = "v1.36.2" }, []string{
			"19:14: spec.kubernetes.version: the lock file pins kubeadm v1.36.2, expected v1.36.3 (run `userdata lock` and look at what it changes)",
		}},
		{"other place", full, func(l *Lock) { l.Artifacts[0].URLs = []string{"http://10.0.0.6/b"} }, []string{
			"13:10: spec.agent: the lock file has agent from http://10.0.0.6/b, expected http://10.0.0.5/bootstrap_linux_ARCH (run `userdata lock` and look at what it changes)",
		}},
		{"architecture", full, func(l *Lock) { l.Artifacts[2].ARM64 = Digest{} }, []string{
			"15:5: spec.artifacts: the lock file has no digest of containerd for arm64 (run `userdata lock` and look at what it changes)",
		}},
		{"two pins of the agent", strings.Replace(full, "_ARCH\"]}", "_ARCH\"], sha256: {amd64: "+strings.Repeat("a", 64)+"}}", 1), func(*Lock) {}, []string{
			"13:75: spec.agent.sha256.amd64: the lock file pins " + sum + " (keep the pin in one place: remove sha256 here)",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			lock := lockOf(t, row.file)
			row.change(&lock)
			_, problems := ParseBeside("c.yaml", []byte(row.file), Beside{Lock: &lock})
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLockFileProblems: a lock file that was edited or merged badly.
func TestLockFileProblems(t *testing.T) {
	const head = "apiVersion: muster/v1alpha1\nkind: Lock\nartifacts:\n"
	for _, row := range []struct {
		name, file string
		want       []string
	}{
		{"no digest", head + "- name: runc\n  urls: [http://m/runc]\n", []string{
			"4:3: artifacts[0]: runc has no digest (remove this block and let `userdata lock` write it anew)",
		}},
		{"half a digest", head + "- name: runc\n  urls: [http://m/runc]\n  amd64: {size: 3}\n", []string{
			"4:3: artifacts[0]: runc has no digest (remove this block and let `userdata lock` write it anew)",
			`6:3: artifacts[0].amd64.sha256: is missing (such as sha256: "9f86…", made by userdata lock)`,
		}},
		{"short digest", head + "- name: runc\n  urls: [http://m/runc]\n  amd64: {sha256: e3b0, size: 0}\n", []string{
			"6:19: artifacts[0].amd64.sha256: \"e3b0\" is not a sha256: 64 lower-case hex digits (remove this block and let `userdata lock` write it anew)",
			"6:31: artifacts[0].amd64.size: 0 bytes are no artefact (remove this block and let `userdata lock` write it anew)",
		}},
		{"twice", head + "- name: runc\n  urls: [http://m/r]\n  amd64: {sha256: " + sum + ", size: 1}\n- name: runc\n  urls: [http://m/r]\n  amd64: {sha256: " + sum + ", size: 1}\n", []string{
			"7:9: artifacts[1].name: runc is pinned twice (keep one of them, as after a merge, and run `userdata lock`)",
		}},
		{"a merge left open", head + "<<<<<<< ours\n- name: runc\n", []string{
			"4:1: this is not YAML: could not find expected ':' (look at the indentation, quotes and colons of this line and the one above)",
		}},
		{"another kind", strings.Replace(head, "Lock\nartifacts:", "Cluster\nartifacts: []", 1), []string{
			`2:7: kind: "Cluster" is not allowed (allowed: Lock)`,
			"3:1: artifacts: is missing (such as artifacts: [] made by userdata lock)",
		}},
		{"a URL with a password", head + "- name: runc\n  urls: [http://u:p@m/r]\n  amd64: {sha256: " + sum + ", size: 1}\n", []string{
			"5:10: artifacts[0].urls[0]: has a user or a password in it, and user-data is no place for one (serve it without a password: the sha256 protects it)",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, problems := ParseLock("c.yaml", []byte(row.file))
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
