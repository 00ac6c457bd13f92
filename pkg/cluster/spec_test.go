package cluster

import (
	"reflect"
	"strings"
	"testing"
)

// TestSharedHasNoSecret: what makes a server one of the cluster, or reads its list of
// servers, is in no spec that servers share, whatever is added to the types.
func TestSharedHasNoSecret(t *testing.T) {
	c, problems := Parse("cluster.yaml", Template("demo", strings.Repeat("0", 32), 5, 3))
	if err := Err(problems); err != nil {
		t.Fatal(err)
	}
	filled := reflect.ValueOf(&c).Elem()
	secrets := 0
	for i := range filled.NumField() {
		if filled.Field(i).Type() == secretType {
			filled.Field(i).SetString("hunter2")
			secrets++
		}
	}
	if secrets < 3 {
		t.Fatalf("%d secrets in the type, expected secret, acceptSecret and apiToken at least", secrets)
	}
	c.Lock, c.Spec.Join.CA, c.Spec.Servers.Eligible.None = []Pin{{Name: "kubelet"}}, "sha256:aa", true
	data, err := Marshal(Shared(c))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hunter2", "kubelet", "sha256:aa", "none: true"} {
		if strings.Contains(string(data), word) {
			t.Errorf("servers share %q:\n%s", word, data)
		}
	}
	back, problems := ParseSpec("spec", data, Beside{})
	if err := Err(problems); err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(Shared(back))
	if err != nil || string(again) != string(data) {
		t.Errorf("read and written again it differs (%v):\n%s", err, again)
	}
}
