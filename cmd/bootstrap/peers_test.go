package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/discovery"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// searched is a search in the middle of it.
func searched() peerList {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	at := netip.MustParseAddr
	return peerList{Version: peersVersion, Time: now, Discovery: member.Discovery{
		Ways: []member.Way{
			{Name: "static", Tried: ago(42 * time.Second), Found: 2},
			{Name: "dns k8s.example.net", Tried: ago(3 * time.Second), Problem: "k8s.example.net does not exist, says the resolver 10.0.0.53:53: make the record, or correct spec.discovery"},
			{Name: "packetAPI 93125c2a", Resting: "of the servers in sight the first one, instance " + id("1") + ", asks for all"},
			{Name: "subnet private"},
		},
		Found: []member.Found{
			{Address: at("10.99.14.9"), By: []string{"static", "subnet private"}, At: ago(time.Minute), Asked: ago(5 * time.Second), Answered: true, Inst: id("1"), HW: id("b"), Name: "cp1"},
			{Address: at("10.99.14.11"), By: []string{"static"}, At: ago(time.Minute)},
			{Address: at("10.99.14.13"), By: []string{member.ByGossip}, Asked: now, Answered: true, Inst: id("3"), HW: id("c")},
		},
	}}
}

func TestPeers(t *testing.T) {
	socket := agentAt(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/peers" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(searched())
	})
	code, stdout, stderr := bootstrapRun(t, "peers", "--socket", socket)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	compare(t, "testdata/peers.golden", stdout)
	code, stdout, stderr = bootstrapRun(t, "peers", "-o", "json", "--socket", socket)
	if code != 0 || stderr != "" {
		t.Fatalf("-o json: exit code %d, %s", code, stderr)
	}
	compare(t, "testdata/peers.json", stdout)
	var back peerList
	if err := json.Unmarshal([]byte(stdout), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(searched(), back, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-sent +read):\n%s", diff)
	}
}

// An agent that has no search yet, and one of another version.
func TestPeersUnavailable(t *testing.T) {
	early := agentAt(t, func(w http.ResponseWriter, r *http.Request) { localHandler(quietServer(t)).ServeHTTP(w, r) })
	other := agentAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":2}`) })
	for name, tt := range map[string]struct{ socket, want string }{
		"early":           {early, "this server looks for no others yet, it is in phase"},
		"another version": {other, "speaks version 2 of peers, this program 1; systemctl restart muster"},
		"an old agent":    {agentAt(t, http.NotFound), "answers 404 Not Found, expected 200 OK"},
	} {
		code, stdout, stderr := bootstrapRun(t, "peers", "--socket", tt.socket)
		if code != exitUnavailable || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
	}
	if code, _, stderr := bootstrapRun(t, "peers", "-o", "yaml"); code != exitUsage || !strings.Contains(stderr, "expected table or json") {
		t.Errorf("-o yaml: exit code %d, %s", code, stderr)
	}
}

// Each element of spec.discovery is a way of its own, but all lists are one.
func TestWays(t *testing.T) {
	c := cluster.Cluster{Spec: cluster.Spec{ID: trustSpec}}
	at := netip.MustParseAddr
	c.Spec.Discovery = []cluster.Discovery{
		{Subnet: "private"}, {Static: []netip.Addr{at("10.0.0.1")}}, {DNS: "k8s.example.net"}, {Multicast: true},
		{PacketAPI: cluster.PacketAPI{URL: "https://api.example.net", Project: "p1"}}, {EIP: true}, {Static: []netip.Addr{at("10.0.0.2")}},
	}
	ways := waysOf(c, bootstrap.Self{Inst: id("1"), Node: plan.Node{Private: at("10.0.0.3")}}, nil, nil)
	var names []string
	for _, w := range ways {
		names = append(names, w.Name())
	}
	want := []string{"static", "subnet private", "dns k8s.example.net", "multicast", "packetAPI p1", "eip"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("ways (-want +got):\n%s", diff)
	}
	if listed := ways[0].(discovery.Static); len(listed) != 2 {
		t.Errorf("listed: %v", listed)
	}
}
