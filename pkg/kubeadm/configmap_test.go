package kubeadm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestConfigMap: who writes from an older sight is told, and nothing is lost.
func TestConfigMap(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	api, ctx := admin(t, a, s), t.Context()
	const name = "muster-addons"
	if data, version, err := api.ConfigMap(ctx, name); data != nil || version != "" || err != nil {
		t.Fatalf("before there is one: %v, %q, %v", data, version, err)
	}
	write := func(text, version string) string {
		t.Helper()
		next, err := api.WriteConfigMap(ctx, name, map[string]string{"state": text}, version)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	first := write("one", "")
	if first == "" {
		t.Fatal("it was not created")
	}
	if write("other", "") != "" {
		t.Error("it was created twice")
	}
	second := write("two", first)
	if second == "" || write("other", first) != "" {
		t.Error("a write from an older sight went through, or one from the newest did not")
	}
	data, version, err := api.ConfigMap(ctx, name)
	if err != nil || version != second {
		t.Errorf("version %q, expected %q; %v", version, second, err)
	}
	if diff := cmp.Diff(map[string]string{"state": "two"}, data); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
