package cluster

import (
	"strings"
	"testing"
)

func TestShown(t *testing.T) {
	var c Cluster
	c.Spec.Report.Webhook = "https://user:hunter2@hooks.example.net/hunter2?a=hunter2"
	c.Spec.Addons = []Addon{{Name: "cni", Inline: "hunter2"}}
	c.Spec.Containerd.Extra = map[string]map[string]any{"io.containerd.cri.v1.images": {"headers": map[string]any{"Authorization": []any{"Basic hunter2"}}}}
	data, err := Marshal(Shown(c))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"https://hooks.example.net/REDACTED", "7 bytes, sha256 f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7", "io.containerd.cri.v1.images"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("without %q:\n%s", want, data)
		}
	}
	if strings.Contains(string(data), "hunter2") {
		t.Errorf("shows a secret:\n%s", data)
	}
	if c.Spec.Addons[0].Inline != "hunter2" || c.Spec.Containerd.Extra["io.containerd.cri.v1.images"]["headers"] == nil {
		t.Error("the cluster itself was changed")
	}
}
