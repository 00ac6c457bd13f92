package kubeadm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestEtcdURL(t *testing.T) {
	for at, want := range map[string]string{
		"10.99.14.9:6443": "https://10.99.14.9:2379/v3/cluster/member/list", "[fd66::1:1]:6443": "https://[fd66::1:1]:2379/v3/cluster/member/list",
	} {
		if got := etcdURL(netip.MustParseAddrPort(at)); got != want {
			t.Errorf("etcd beside %s: %s, expected %s", at, got, want)
		}
	}
}

func TestPromoted(t *testing.T) {
	for _, c := range []struct {
		name, members string
		status        int
		want, fails   bool
	}{
		{"voter", `[{"ID":"1","name":"cp1"},{"ID":"2","name":"cp2"}]`, 200, true, false},
		{"learner", `[{"ID":"1","name":"cp1"},{"ID":"2","name":"cp2","isLearner":true}]`, 200, false, false},
		{"added, not started", `[{"ID":"1","name":"cp1"},{"ID":"2","peerURLs":["https://10.0.0.2:2380"],"isLearner":true}]`, 200, false, false},
		{"not a member", `[{"ID":"1","name":"cp1"}]`, 200, false, false},
		{"a learner refuses", `[]`, 503, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/v3/cluster/member/list" {
					t.Errorf("%s %s, expected POST of a question for the members", r.Method, r.URL.Path)
				}
				w.WriteHeader(c.status)
				fmt.Fprintf(w, `{"header":{"cluster_id":"1"},"members":%s}`, c.members)
			}))
			defer etcd.Close()
			got, err := promoted(t.Context(), etcd.Client(), etcd.URL+"/v3/cluster/member/list", "cp2")
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("got %v, %v; expected %v, error %v", got, err, c.want, c.fails)
			}
		})
	}
}
