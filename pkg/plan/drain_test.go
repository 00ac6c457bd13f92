package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Pods of the node itself stay, and one that nothing starts again is named.
func TestDrainTold(t *testing.T) {
	pods := []Pod{
		{Namespace: "kube-system", Name: "etcd-cp2", Owner: "Node", Static: true},
		{Namespace: "kube-system", Name: "kube-proxy-x", Owner: "DaemonSet"},
		{Namespace: "default", Name: "done", Ended: true},
		{Namespace: "default", Name: "web", Owner: "ReplicaSet", Going: true},
		{Namespace: "default", Name: "bare"},
	}
	if diff := cmp.Diff(pods[3:], ToEvict(pods)); diff != "" {
		t.Errorf("who goes (-want +got)\n%s", diff)
	}
	want := []string{
		"Its node cp2 is cordoned and drained: 2 pods go elsewhere.",
		"DANGER: no controller starts the pod default/bare again: it ends for good.",
	}
	if diff := cmp.Diff(want, DrainTold("cp2", pods)); diff != "" {
		t.Errorf("what is said (-want +got)\n%s", diff)
	}
}
