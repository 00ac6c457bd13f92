package cluster

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRedacted(t *testing.T) {
	file := strings.Replace(staticFile, "version: v1.37.0", "version: v1.37.0, kubelet: {clusterDNS: [10.0.0.1], registryPassword: hunter2, nested: {token: hunter2}}", 1)
	c := mustParse(t, file)
	c.Secret = "hunter2"
	data, err := Marshal(Redacted(c))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "hunter2") || strings.Count(string(data), Hidden) != 3 {
		t.Errorf("three secrets are hidden, and shown none:\n%s", data)
	}
	want := strings.Replace(file, "hunter2", Hidden, -1)
	if diff := cmp.Diff(mustParse(t, want), mustParse(t, string(data)), equal); diff != "" {
		t.Errorf("besides, something changed (-want +got):\n%s", diff)
	}
	if c.Secret != "hunter2" || c.Spec.Static[0].BGPNeighbors[0].MD5 != "hunter2" || c.Spec.Kubernetes.Kubelet["registryPassword"] != "hunter2" {
		t.Error("the cluster itself was changed")
	}
}

// TestRedactedOfAnything: no secret of any field survives, and no other field is
// touched.
func TestRedactedOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Cluster
		fill(t, reflect.ValueOf(&c).Elem(), "")
		secrets := 0
		eachSecret(reflect.ValueOf(&c).Elem(), func(v reflect.Value) { v.SetString("hunter2"); secrets++ })
		r := Redacted(c)
		eachSecret(reflect.ValueOf(&r).Elem(), func(v reflect.Value) {
			if v.String() == "hunter2" {
				t.Fatal("a secret is left")
			}
			v.SetString("hunter2")
		})
		if secrets < 2 {
			t.Fatalf("%d secrets in a full cluster file; is there no field for them any more?", secrets)
		}
		if diff := cmp.Diff(c, r, equal); diff != "" && !strings.Contains(diff, Hidden) {
			t.Fatalf("besides (-was +is):\n%s", diff)
		}
	})
}

// TestShared: what servers share has none of what lets a server in.
func TestShared(t *testing.T) {
	c := mustParse(t, good)
	c.Secret, c.AcceptSecret, c.APIToken = "hunter2", "hunter3", "hunter4"
	data, err := Marshal(Shared(c))
	if err != nil || strings.Contains(string(data), "hunter") {
		t.Errorf("%v\n%s", err, data)
	}
}

// eachSecret calls what for every field of type Secret in v.
func eachSecret(v reflect.Value, what func(reflect.Value)) {
	switch {
	case v.Type() == secretType:
		what(v)
	case v.Kind() == reflect.Struct && !isScalarStruct(v.Type()):
		for i := range v.NumField() {
			eachSecret(v.Field(i), what)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			eachSecret(v.Index(i), what)
		}
	}
}
