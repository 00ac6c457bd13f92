package kubeadm

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/plan"
)

// What a drain asks of the API server, and what it makes of the answers.
func TestDrain(t *testing.T) {
	var asked []string
	mux := http.NewServeMux()
	mux.HandleFunc("PATCH /api/v1/nodes/cp2", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Header.Get("Content-Type")+" "+string(body))
	})
	mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("fieldSelector"))
		fmt.Fprint(w, `{"items":[
			{"metadata":{"namespace":"default","name":"web","ownerReferences":[{"kind":"Other"},{"kind":"ReplicaSet","controller":true}]},"status":{"phase":"Running"}},
			{"metadata":{"namespace":"kube-system","name":"etcd-cp2","annotations":{"kubernetes.io/config.mirror":"x"},"ownerReferences":[{"kind":"Node","controller":true}]}},
			{"metadata":{"namespace":"default","name":"done","deletionTimestamp":"2026-11-26T15:00:00Z"},"status":{"phase":"Failed"}}]}`)
	})
	mux.HandleFunc("POST /api/v1/namespaces/default/pods/{name}/eviction", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.PathValue("name")+" "+string(body))
		switch r.PathValue("name") {
		case "held":
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"kind":"Status","message":"Cannot evict pod as it would violate the pod's disruption budget."}`)
		case "gone":
			w.WriteHeader(http.StatusNotFound)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	api, ctx := &API{base: base, http: server.Client()}, t.Context()
	if err := api.cordon(ctx, "cp2"); err != nil {
		t.Error(err)
	}
	if err := api.cordon(ctx, "gone"); err != nil {
		t.Errorf("a node that is gone: %v", err)
	}
	pods, err := api.pods(ctx, "cp2")
	want := []plan.Pod{
		{Namespace: "default", Name: "web", Owner: "ReplicaSet"},
		{Namespace: "kube-system", Name: "etcd-cp2", Owner: "Node", Static: true},
		{Namespace: "default", Name: "done", Ended: true, Going: true},
	}
	if diff := cmp.Diff(want, pods); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for name, says := range map[string]string{"web": "", "gone": "", "held": "disruption budget"} {
		err := api.evict(ctx, plan.Pod{Namespace: "default", Name: name})
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("evicting %s: %v, expected %q", name, err, says)
		}
	}
	sent := []string{`application/merge-patch+json {"spec":{"unschedulable":true}}`, "spec.nodeName=cp2"}
	if diff := cmp.Diff(sent, asked[:2]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	const eviction = `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web","namespace":"default"}}`
	if !strings.Contains(strings.Join(asked, "\n"), "web "+eviction) {
		t.Errorf("no eviction %s in %q", eviction, asked)
	}
}
