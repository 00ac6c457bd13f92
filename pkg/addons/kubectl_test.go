package addons

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// apiServer says of ConfigMaps and Namespaces that they were applied as asked, and
// remembers what was deleted.
type apiServer struct{ deleted []string }

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(code int, x any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(x)
	}
	type object = map[string]any
	verbs := []string{"create", "delete", "get", "patch"}
	switch {
	case r.URL.Path == "/api":
		answer(http.StatusOK, object{"kind": "APIVersions", "versions": []string{"v1"}})
	case r.URL.Path == "/apis":
		answer(http.StatusOK, object{"kind": "APIGroupList", "apiVersion": "v1", "groups": []object{}})
	case r.URL.Path == "/api/v1":
		answer(http.StatusOK, object{"kind": "APIResourceList", "groupVersion": "v1", "resources": []object{
			{"name": "configmaps", "singularName": "configmap", "namespaced": true, "kind": "ConfigMap", "verbs": verbs},
			{"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace", "verbs": verbs},
		}})
	case r.URL.Path == "/openapi/v3":
		answer(http.StatusOK, object{"paths": object{"api/v1": object{"serverRelativeURL": "/openapi/v3/api/v1"}}})
	case r.URL.Path == "/openapi/v3/api/v1": // that the server checks fields itself is all that kubectl asks
		patch := func(kind string) object {
			return object{"patch": object{
				"parameters": []object{{"name": "fieldValidation", "in": "query"}}, "responses": object{},
				"x-kubernetes-group-version-kind": object{"group": "", "version": "v1", "kind": kind},
			}}
		}
		answer(http.StatusOK, object{"openapi": "3.0.0", "info": object{"title": "k", "version": "1"}, "paths": object{
			"/api/v1/namespaces/{namespace}/configmaps/{name}": patch("ConfigMap"), "/api/v1/namespaces/{name}": patch("Namespace"),
		}})
	case r.Method == http.MethodPatch:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			answer(http.StatusBadRequest, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // kubectl applies JSON
	case r.Method == http.MethodDelete:
		a.deleted = append(a.deleted, r.URL.Path)
		answer(http.StatusOK, object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		answer(http.StatusNotFound, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
	}
}

// realKubectl is the kubectl of the components; without them the test is left out.
func realKubectl(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("MUSTER_CACHE")
	if dir, err := os.UserCacheDir(); cache == "" && err == nil {
		cache = filepath.Join(dir, "muster")
	}
	found, err := filepath.Glob(filepath.Join(cache, "components-*/bin/kubectl"))
	if err != nil || len(found) == 0 {
		t.Skip("no kubectl (make e2e builds one): what it prints was not tried")
	}
	slices.Sort(found)
	return found[len(found)-1]
}

// TestKubectlNamesObjects: what is named here is what is taken away later.
func TestKubectlNamesObjects(t *testing.T) {
	const parts = "apiVersion: v1\nkind: Namespace\nmetadata: {name: parts}\n"
	const gate = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: gate, namespace: parts}\n"
	api := &apiServer{}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "conf")
	if err := os.WriteFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := Kubectl{Program: realKubectl(t), Kubeconfig: kubeconfig, Server: server.URL, CacheDir: filepath.Join(dir, "cache")}
	namespace := Object{APIVersion: "v1", Kind: "Namespace", Name: "parts"}
	configMap := Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "parts", Name: "gate"}
	for _, c := range []struct {
		manifests string
		want      []Object
	}{
		{gate, []Object{configMap}},
		{parts + "---\n" + gate, []Object{namespace, configMap}},
	} {
		got, err := k.Apply(t.Context(), []byte(c.manifests))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("applied (-want +got):\n%s", diff)
		}
	}
	if err := k.Delete(t.Context(), []Object{configMap}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/api/v1/namespaces/parts/configmaps/gate"}, api.deleted); diff != "" {
		t.Errorf("deleted (-want +got):\n%s", diff)
	}
}
