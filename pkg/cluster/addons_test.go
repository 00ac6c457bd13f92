package cluster

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

// TestAddonProblems: each mistake, with its place. The list begins in line 22.
func TestAddonProblems(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	files := map[string]string{
		"cni.yaml": configMap, "two.yaml": "# none\n---\n" + configMap + "---\n" + configMap,
		"list.yaml": "apiVersion: v1\nkind: List\nitems: []\n", "empty.yaml": "# later\n", "chart.yaml": "kind: {{ .Values.kind }}\n", "values.yaml": "replicas: 3\n",
	}
	read := func(path string) ([]byte, error) {
		text, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}
	tests := []struct{ name, addons, want string }{
		{"file", "- {name: cni, file: cni.yaml}", ""},
		{"several documents", "- {name: cni, file: two.yaml}", ""},
		{"a list", "- {name: cni, file: list.yaml}", ""},
		{"on the servers", "- {name: cni, file: /usr/share/muster/cni.yaml}", ""},
		{"url", "- {name: cni, url: 'http://mirror/cni.yaml', sha256: " + sum + "}", ""},
		{"waits", "- {name: cni, file: cni.yaml, timeout: 2m, wait: [{rollout: daemonset/cni, namespace: kube-system}, {condition: Available, of: deployment/x}, {crd: a.b.io}]}", ""},
		{"no name", "- {file: cni.yaml}", "22:7: spec.addons[0].name: is missing (such as name: cni)"},
		{"name", "- {name: CNI, file: cni.yaml}", `22:14: spec.addons[0].name: "CNI" is not a DNS label (lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp)`},
		{"twice", "- {name: cni, file: cni.yaml}\n    - {name: cni, file: list.yaml}", `23:14: spec.addons[1].name: "cni" is the name of element 0 too (each add-on has a name of its own)`},
		{"nothing", "- {name: cni}", "22:7: spec.addons[0]: says nothing of where its manifests are (file: calico.yaml, or url: and sha256:, or inline:)"},
		{"two sources", "- {name: cni, file: cni.yaml, url: 'http://m/x', sha256: " + sum + "}", "22:7: spec.addons[0]: the manifests of one add-on come from one place (keep one of file, url and inline)"},
		{"no digest", "- {name: cni, url: 'http://m/x'}", "22:7: spec.addons[0].sha256: is missing (`curl -sL URL | sha256sum` prints it. Without one a mirror could run anything in the cluster)"},
		{"bad digest", "- {name: cni, url: 'http://m/x', sha256: abc}", "22:46: spec.addons[0].sha256: \"abc\" is not a sha256: 64 lower-case hex digits (`curl -sL URL | sha256sum` prints it)"},
		{"digest alone", "- {name: cni, file: cni.yaml, sha256: " + sum + "}", "22:43: spec.addons[0].sha256: is that of what a url answers, and there is none (remove it, or name the url)"},
		{"ftp", "- {name: cni, url: 'ftp://m/x', sha256: " + sum + "}", `22:24: spec.addons[0].url: "ftp://m/x" is no http or https URL (such as https://mirror.example.net/calico.yaml)`},
		{"password", "- {name: cni, url: 'http://u:p@m/x', sha256: " + sum + "}", `22:24: spec.addons[0].url: has a user or a password in it, and user-data is no place for one (serve it without a password: the sha256 protects it)`},
		{"file is missing", "- {name: cni, file: cilium.yaml}", "22:25: spec.addons[0].file: cannot be read: open cilium.yaml: file does not exist (a path from where the cluster file is)"},
		{"file is empty", "- {name: cni, file: empty.yaml}", "22:25: spec.addons[0].file: holds no object (Kubernetes objects, `---` between them)"},
		{"a template", "- {name: cni, file: chart.yaml}", `22:25: spec.addons[0].file: document 1 is no Kubernetes object: line 1: cannot unmarshal !!map into string (templates must be rendered first; kubectl apply --dry-run=client -f FILE says more)`},
		{"values", "- {name: cni, file: values.yaml}", `22:25: spec.addons[0].file: document 1 is no Kubernetes object: apiVersion "", kind "", metadata.name "" (each has all three)`},
		{"inline", "- {name: cni, inline: 'kind: Pod'}", `22:27: spec.addons[0].inline: document 1 is no Kubernetes object: apiVersion "", kind "Pod", metadata.name "" (each has all three)`},
		{"wait for nothing", "- {name: cni, file: cni.yaml, wait: [{namespace: x}]}", "22:42: spec.addons[0].wait[0]: waits for 0 things, expected one ({rollout: daemonset/NAME}, {condition: Available, of: KIND/NAME} or {crd: NAME})"},
		{"wait for two", "- {name: cni, file: cni.yaml, wait: [{crd: a.b, rollout: daemonset/x}]}", "22:42: spec.addons[0].wait[0]: waits for 2 things, expected one ({rollout: daemonset/NAME}, {condition: Available, of: KIND/NAME} or {crd: NAME})"},
		{"rollout of a pod", "- {name: cni, file: cni.yaml, wait: [{rollout: pod/x}]}", `22:52: spec.addons[0].wait[0].rollout: "pod/x" is not deployment, daemonset or statefulset, a slash and a name (such as daemonset/calico-node)`},
		{"condition of nothing", "- {name: cni, file: cni.yaml, wait: [{condition: Available}]}", `22:42: spec.addons[0].wait[0].of: "" is not a kind, a slash and a name (such as deployment/tigera-operator)`},
		{"of without condition", "- {name: cni, file: cni.yaml, wait: [{of: deployment/x}]}", "22:42: spec.addons[0].wait[0].condition: is missing (such as condition: Available)"},
		{"CRD in a namespace", "- {name: cni, file: cni.yaml, wait: [{crd: a.b, namespace: x}]}", "22:64: spec.addons[0].wait[0].namespace: a CRD is in no namespace (remove it)"},
		{"CRD", "- {name: cni, file: cni.yaml, wait: [{crd: ippools}]}", `22:48: spec.addons[0].wait[0].crd: "ippools" is not the name of a CRD (such as ippools.crd.projectcalico.org)`},
		{"timeout", "- {name: cni, file: cni.yaml, timeout: 0s}", "22:44: spec.addons[0].timeout: 0s is no time to wait (such as 5m)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := ParseBeside("c.yaml", []byte(good+"  addons:\n    "+tt.addons+"\n"), Beside{Read: read})
			var got []string
			for _, p := range problems {
				got = append(got, strings.TrimPrefix(p.String(), "c.yaml:"))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestAddonsAreEmbedded: what lies on a server needs no other file, and a file that
// was not embedded is refused there.
func TestAddonsAreEmbedded(t *testing.T) {
	text := good + "  addons:\n    - {name: cni, file: cni.yaml}\n"
	c, problems := ParseBeside("c.yaml", []byte(text), Beside{Read: func(string) ([]byte, error) { return []byte(configMap), nil }})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c.Secret = Secret(strings.Repeat("A", 43) + "=")
	data, err := Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	back, problems := ParseServer("cluster.yaml", data)
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, data)
	}
	if diff := cmp.Diff([]Addon{{Name: "cni", Inline: configMap}}, back.Spec.Addons); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, problems = Parse("c.yaml", []byte(text)); !strings.Contains(fmt.Sprint(problems), "is beside the operator's cluster file") {
		t.Errorf("a file that is not embedded: %v", problems)
	}
}
