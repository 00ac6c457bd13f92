package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// code is the status of an error of act, 200 for none.
func code(err error) int {
	var f failure
	if errors.As(err, &f) {
		return f.code
	}
	return http.StatusOK
}

// The API server gives resourceVersion its meaning: who changes what he has not
// read last is refused.
func TestResourceVersion(t *testing.T) {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	const lease = leases + "/muster-directory"
	var db database
	do := func(method, at string, body object, want int) object {
		t.Helper()
		reply, err := act(&db, method, at, body)
		if code(err) != want {
			t.Fatalf("%s %s: %v, expected %d", method, at, err, want)
		}
		b, err := json.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		var o object
		_ = json.Unmarshal(b, &o) // null after an error
		return o
	}
	named := func(version, holder string) object {
		return object{"metadata": object{"name": "muster-directory", "resourceVersion": version}, "spec": object{"holderIdentity": holder}}
	}
	do(http.MethodGet, lease, nil, http.StatusNotFound)
	do(http.MethodPut, lease, named("", "a"), http.StatusNotFound)
	made := do(http.MethodPost, leases, named("", "a"), http.StatusOK)
	do(http.MethodPost, leases, named("", "b"), http.StatusConflict)
	first := version(made)
	second := version(do(http.MethodPut, lease, named(first, "b"), http.StatusOK))
	if second == first {
		t.Errorf("the version stays %s over a change", first)
	}
	do(http.MethodPut, lease, named(first, "c"), http.StatusConflict)
	patched := do(http.MethodPatch, lease, object{"spec": object{"holderIdentity": nil, "leaseTransitions": 1}}, http.StatusOK)
	if diff := cmp.Diff(object{"leaseTransitions": 1.0}, patched["spec"]); diff != "" {
		t.Error(diff)
	}
	if items := do(http.MethodGet, leases, nil, http.StatusOK)["items"]; len(items.([]any)) != 1 {
		t.Errorf("the list is %v", items)
	}
	do(http.MethodDelete, lease, nil, http.StatusOK)
	do(http.MethodGet, lease, nil, http.StatusNotFound)
}

func TestCollections(t *testing.T) {
	for at, want := range map[string]bool{
		"/api/v1/nodes": true, "/api/v1/nodes/cp1": false, "/api/v1/namespaces/kube-system/secrets": true,
		"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases": true, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x": false,
	} {
		if isCollection(at) != want {
			t.Errorf("%s: collection %v, expected %v", at, !want, want)
		}
	}
}

// etcd takes one learner at a time and promotes one that runs.
func TestMembers(t *testing.T) {
	db := database{Members: []etcdMember{{ID: "1", Name: "cp1", PeerURLs: []string{peerURL("192.0.2.1")}}}}
	second, err := addMember(&db, memberRequest{PeerURLs: []string{peerURL("192.0.2.2")}, IsLearner: true})
	if err != nil || second.ID == "" || second.address() != "192.0.2.2" {
		t.Fatalf("%+v, %v", second, err)
	}
	for what, r := range map[string]memberRequest{
		"a second learner": {PeerURLs: []string{peerURL("192.0.2.3")}, IsLearner: true},
		"the same address": {PeerURLs: []string{peerURL("192.0.2.1")}},
	} {
		if m, err := addMember(&db, r); err == nil {
			t.Errorf("%s was added: %+v", what, m)
		}
	}
	if _, err := promoteMember(&db, memberRequest{ID: second.ID}); err == nil {
		t.Error("a member that never started was promoted")
	}
	if _, err := promoteMember(&db, memberRequest{ID: "1"}); err == nil {
		t.Error("a voter was promoted")
	}
	if _, err := removeMember(&db, memberRequest{ID: second.ID}); err != nil {
		t.Error(err)
	}
	if _, err := removeMember(&db, memberRequest{ID: second.ID}); err == nil {
		t.Error("a member was removed twice")
	}
	if !slices.ContainsFunc(db.Members, func(m etcdMember) bool { return m.ID == "1" }) || len(db.Members) != 1 {
		t.Errorf("%+v is left", db.Members)
	}
}

// The answer to a promotion that was done is lost; the next look finds a voter.
func TestPromotionWithALostAnswer(t *testing.T) {
	learner := etcdMember{ID: "2", Name: "cp2", IsLearner: true}
	promotions := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /list", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, memberReply{Members: []etcdMember{{ID: "1", Name: "cp1"}, learner}})
	})
	mux.HandleFunc("POST /promote", func(http.ResponseWriter, *http.Request) {
		promotions++
		learner.IsLearner = false
		panic(http.ErrAbortHandler)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := promote(ctx, &client{base: server.URL}, "2"); err != nil || promotions != 1 {
		t.Errorf("%v after %d promotions", err, promotions)
	}
}

// A member that listens is reached, one that does not is not.
func TestReaches(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.3:"+peerPort)
	if err != nil {
		t.Fatal(err)
	}
	if !reaches("127.0.0.3") {
		t.Error("a member that listens is not reached")
	}
	_ = l.Close()
	if reaches("127.0.0.3") {
		t.Error("a member that does not listen is reached")
	}
}
