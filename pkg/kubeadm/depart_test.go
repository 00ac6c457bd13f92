package kubeadm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/plan"
)

// etcdFake is the gateway of three members: cp2 is ill, the third never started.
func etcdFake(t *testing.T, answerLost, noLeader bool) (etcdGateway, *[]string) {
	t.Helper()
	members := []string{"1", "18446744073709551615", "3"}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	text := map[string]string{
		"1":                    `{"ID":"1","name":"cp1","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["` + server.URL + `/up"]}`,
		"18446744073709551615": `{"ID":"18446744073709551615","name":"cp2","peerURLs":["https://[fd00::2]:2380"],"clientURLs":["` + server.URL + `/ill"]}`,
		"3":                    `{"ID":"3","peerURLs":["https://10.0.0.3:2380"],"isLearner":true}`,
	}
	mux.HandleFunc("POST /v3/cluster/member/list", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Linearizable bool }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		if q.Linearizable && noLeader {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"message":"etcdserver: no leader"}`)
			return
		}
		var out []string
		for _, id := range members {
			out = append(out, text[id])
		}
		fmt.Fprintf(w, `{"members":[%s]}`, strings.Join(out, ","))
	})
	mux.HandleFunc("POST /v3/cluster/member/remove", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ ID string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		for i, id := range members {
			if id == q.ID {
				members = append(members[:i:i], members[i+1:]...)
				if answerLost {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"etcdserver: member not found"}`)
	})
	mux.HandleFunc("GET /up/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /ill/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	return etcdGateway{client: server.Client(), base: server.URL}, &members
}

func TestEtcdMembers(t *testing.T) {
	g, _ := etcdFake(t, false, false)
	got, err := g.members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.EtcdMember{
		{ID: 1, Name: "cp1", Address: netip.MustParseAddr("10.0.0.1"), Healthy: true},
		{ID: 1<<64 - 1, Name: "cp2", Address: netip.MustParseAddr("fd00::2")},
		{ID: 3, Address: netip.MustParseAddr("10.0.0.3"), Learner: true},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// Whether etcd's data here may be wiped hangs on this answer: it is of the majority,
// or there is none.
func TestEtcdHas(t *testing.T) {
	g, _ := etcdFake(t, false, false)
	for address, want := range map[string]bool{"10.0.0.1": true, "fd00::2": true, "10.0.0.3": true, "10.0.0.4": false} {
		if got, err := g.has(t.Context(), "cp9", netip.MustParseAddr(address)); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", address, got, err, want)
		}
	}
	if got, err := g.has(t.Context(), "cp2", netip.MustParseAddr("10.0.0.4")); err != nil || !got {
		t.Errorf("by its name, at another address: %v, %v", got, err)
	}
	g, _ = etcdFake(t, false, true)
	if _, err := g.has(t.Context(), "cp9", netip.MustParseAddr("10.0.0.4")); err == nil || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("without a majority: %v", err)
	}
	if members, err := g.members(t.Context()); err != nil || len(members) != 3 {
		t.Errorf("the list of this member, without a majority: %v, %v", members, err)
	}
}

func TestRemoveEtcdMember(t *testing.T) {
	for _, lost := range []bool{false, true} {
		g, members := etcdFake(t, lost, false)
		for range 2 { // again: it is gone
			if err := g.remove(t.Context(), 1<<64-1); err != nil {
				t.Errorf("answer lost %v: %v", lost, err)
			}
		}
		if diff := cmp.Diff([]string{"1", "3"}, *members); diff != "" {
			t.Errorf("answer lost %v: members (-want +got):\n%s", lost, diff)
		}
	}
}
