package change

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

// fieldsOf lists every field of the cluster file as the table has them.
func fieldsOf() []string {
	var out []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		if isListOfStructs(t) {
			out = append(out, path+"[]")
			walk(t.Elem(), path+"[]")
			return
		}
		if t.Kind() != reflect.Struct || isWord(t) {
			out = append(out, path)
			return
		}
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			walk(t.Field(i).Type, join(path, key))
		}
	}
	walk(reflect.TypeFor[cluster.Cluster](), "")
	return out
}

// TestEveryFieldHasARule: whoever adds a field to the cluster file says here what
// a change of it means to servers that are there.
func TestEveryFieldHasARule(t *testing.T) {
	fields := fieldsOf()
	for _, f := range fields {
		if _, ok := rules[f]; !ok {
			t.Errorf("%s has no rule; say in pkg/change/rules.go what a change of it means: apply, later-servers or new-cluster", f)
		}
	}
	for f, r := range rules {
		if !slices.Contains(fields, f) {
			t.Errorf("the rule for %s is about no field", f)
		}
		if r.why == "" || rank(r.effect) < 1 {
			t.Errorf("%s: %+v says nothing", f, r)
		}
	}
}

const file = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: lab}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: static
  servers: {expect: 2, controlPlanes: 1}
  discovery: [{static: [10.99.14.9, 10.99.14.11]}]
  static:
    - {match: {hostname: cp1}, id: one, hostname: cp1, addresses: [{address: 10.99.14.9/31, gateway: 10.99.14.8}],
       bgpNeighbors: [{customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1], md5: hunter2}]}
    - {match: {hostname: w1}, id: two, hostname: w1, addresses: [{address: 10.99.14.11/31, gateway: 10.99.14.10}]}
  kubernetes: {version: v1.37.0}
`

func parse(t *testing.T, text string) cluster.Cluster {
	t.Helper()
	c, problems := cluster.Parse("c.yaml", []byte(text))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBetween(t *testing.T) {
	for _, row := range []struct {
		name, old, new string
		want           []Change // without Why
		worst          Effect
	}{
		{"nothing", "kind: Cluster", "kind: Cluster # a comment", nil, ""},
		{"a default written out", "kubernetes: {version: v1.37.0}", "kubernetes: {version: v1.37.0, dnsDomain: cluster.local}", nil, ""},
		{"a word", "expect: 2", "expect: 1", []Change{{Path: "spec.servers.expect", Old: "2", New: "1", Effect: Anew}}, Anew},
		{"a list", "[10.99.14.9, 10.99.14.11]", "[10.99.14.9]", []Change{{Path: "spec.discovery[0].static", Old: "[10.99.14.9, 10.99.14.11]", New: "[10.99.14.9]", Effect: Apply}}, Apply},
		{"a mapping that is passed on", "v1.37.0}", "v1.37.0, kubelet: {maxPods: 200}}", []Change{{Path: "spec.kubernetes.kubelet", New: "{maxPods: 200}", Effect: Anew}}, Anew},
		{"an element by its name", "hostname: w1, addresses", "hostname: w2, addresses", []Change{{Path: "spec.static[two].hostname", Old: "w1", New: "w2", Effect: Later}}, Later},
		{"an element that goes", "    - {match: {hostname: w1}, id: two, hostname: w1, addresses: [{address: 10.99.14.11/31, gateway: 10.99.14.10}]}\n", "", []Change{
			{Path: "spec.static[two]", Old: "{match: {hostname: w1}, id: two, hostname: w1, addresses: [{address: 10.99.14.11/31, gateway: 10.99.14.10}]}", Effect: Apply},
		}, Apply},
		{"a secret", "md5: hunter2", "md5: hunter3", []Change{{Path: "spec.static[one].bgpNeighbors[[169.254.255.1]].md5", Old: cluster.Hidden, New: cluster.Hidden, Effect: Apply}}, Apply},
		{"a secret that goes", ", md5: hunter2", "", []Change{{Path: "spec.static[one].bgpNeighbors[[169.254.255.1]].md5", Old: cluster.Hidden, Effect: Apply}}, Apply},
	} {
		t.Run(row.name, func(t *testing.T) {
			changed := strings.Replace(file, row.old, row.new, 1)
			if row.name == "an element that goes" {
				changed = strings.Replace(changed, "expect: 2", "expect: 1", 1)
				row.want = append([]Change{}, row.want...)
				row.want = append(row.want, Change{Path: "spec.servers.expect", Old: "2", New: "1", Effect: Anew})
				row.worst = Anew
			}
			if changed == file {
				t.Fatalf("%q is not in the file", row.old)
			}
			got := Between(parse(t, file), parse(t, changed))
			if w := Worst(got); w != row.worst {
				t.Errorf("worst %q, want %q", w, row.worst)
			}
			for i := range got {
				if got[i].Why == "" {
					t.Errorf("%s: no reason", got[i].Path)
				}
				got[i].Why = ""
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
