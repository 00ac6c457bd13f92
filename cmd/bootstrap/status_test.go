package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mustermetal/muster/pkg/member"
)

var update = flag.Bool("update", false, "write golden files and generated pages anew")

// compare holds text against a golden file.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got; go test -update writes it anew):\n%s", path, diff)
	}
}

// serverStatus is a server that answers, whose clock is an hour wrong.
func serverStatus(name, address string, role member.Role, phase member.Phase, in time.Duration, d member.Decree) member.Status {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	return member.Status{
		Member: member.Member{Inst: id("a"), HW: id("b"), Name: name, Address: netip.MustParseAddr(address), Role: role, Phase: phase},
		Since:  now.Add(-in), Time: now, Decree: d,
	}
}

func decreed(state string) member.Decree {
	d := member.Decree{State: state, Votes: 5, Quorum: 4, Expect: 5}
	if state != "forming" {
		d.Leader, d.LeaderName, d.CAHash = id("a"), "cp1", "sha256:"+strings.Repeat("0", 64)
	}
	return d
}

// situations are status as it is at three moments of a life.
func situations() map[string][]member.Status {
	forming := decreed("forming")
	forming.Votes = 3
	cp1 := serverStatus("cp1", "10.99.14.9", "", member.RollCall, 42*time.Second, forming)
	cp1.Waiting = "no leader yet: 4 of 5 votes needed, 3 here (cp1, cp2, w1), missing: 2 that never answered; power them on, or check that they reach this server's gossip and agents ports"
	early := member.Status{Member: member.Member{Phase: member.Metadata}, Problem: "metadata: GET http://192.0.2.1/metadata: 500 Internal Server Error"}

	leader := serverStatus("cp1", "10.99.14.9", member.ControlPlane, member.Ready, time.Minute+3500*time.Millisecond, decreed("sealed"))
	leader.Network = member.NetworkStatus{
		ElasticIPs: []netip.Prefix{netip.MustParsePrefix("147.75.194.92/32"), netip.MustParsePrefix("2604:1380:1::a/128")},
		Peers: []member.PeerStatus{
			{Address: netip.MustParseAddr("169.254.255.1"), State: "established"},
			{Address: netip.MustParseAddr("169.254.255.2"), State: "active", Since: leader.Time.Add(-42 * time.Second), Reason: "the router refuses the session: bad MD5 password"},
			{Address: netip.MustParseAddr("169.254.255.3"), State: "idle"},
		},
	}
	joiner := serverStatus("cp2", "10.99.14.11", member.ControlPlane, member.Waiting, 0, decreed("sealed"))
	joiner.Waiting = "the turn to join: control planes join one at a time"
	joiner.Problem = "it is the turn of cp3: not ready\n10.99.14.13: connection refused"
	off := member.Status{Member: member.Member{Inst: id("c"), HW: id("d"), Name: "w1", Address: netip.MustParseAddr("10.99.14.15"), Role: member.Worker, Phase: member.Joining},
		Problem: "not in sight; it was last in phase joining: is it powered on, and does its network reach 10.99.14.9?"}

	later := decreed("sealed")
	later.Epoch = 1
	ready := serverStatus("cp-1.ams1.example.net", "fd00:99:14::9", member.ControlPlane, member.Ready, 49*time.Hour, later)
	ready.Network.ElasticIPs = leader.Network.ElasticIPs[:1]
	ready.Network.Firewall = member.FirewallStatus{State: member.FirewallOn}
	worker := serverStatus("w1", "10.99.14.15", member.Worker, member.Ready, 90*time.Minute, later)
	worker.Network.Firewall = member.FirewallStatus{State: member.FirewallFailed, Reason: "nft is not installed"}

	full := member.Status{Member: member.Member{Phase: member.Identity}, Waiting: "this server's identity",
		Problem: "settling this server's identity: /var/lib/muster/elect cannot hold votes, so this server does not vote: write /var/lib/muster/elect/probe: " +
			"no space left on device; make room for 1024 KiB (df -h, df -i): it goes on by itself"}
	clone := serverStatus("cp2", "10.99.14.11", "", member.RollCall, time.Second, forming)
	clone.Waiting = cp1.Waiting
	clone.Problem = "the state on this disk was made on hardware " + id("d") + ", this is " + id("b") + ": a cloned or moved disk, or spec.identity.source was changed; " +
		"this server takes part as a new instance"
	spared := serverStatus("cp3", "10.99.14.13", member.ControlPlane, member.Ready, time.Hour, later)
	spared.Cordoned = true
	spared.Spared = "revision 4 of the spec has controlPlanes: 1, and this one is more; its pods go first: shop/web-0: the disruption budget web needs 2 healthy pods and has 2 currently"
	return map[string][]member.Status{
		"identity": {clone, full}, "spared": {spared},
		"forming": {cp1, early}, "joining": {leader, joiner, off}, "ready": {ready, worker}, "nobody": nil,
	}
}

// TestTable: what a person sees.
func TestTable(t *testing.T) {
	for name, servers := range situations() {
		var out bytes.Buffer
		if err := writeTable(&out, servers); err != nil {
			t.Fatal(err)
		}
		compare(t, filepath.Join("testdata", "status-"+name+".golden"), out.String())
	}
}

// agentAt answers on a socket as the agent does, or wrongly.
func agentAt(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return path
}

// bootstrapRun runs the command line.
func bootstrapRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), args, &out, &talk)
	return code, out.String(), talk.String()
}

// TestStatusJSON: what a program sees fits the published schema, which allows
// nothing more.
func TestStatusJSON(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, servers := range situations() {
		if len(servers) == 0 {
			continue // the agent is among them itself
		}
		socket := agentAt(t, func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(serverList{Version: statusVersion, Servers: servers})
		})
		code, stdout, stderr := bootstrapRun(t, "status", "-o", "json", "-socket", socket)
		if code != 0 || stderr != "" {
			t.Fatalf("%s: exit code %d, %s", name, code, stderr)
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(stdout))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v\n%s", name, err, stdout)
		}
		var back serverList
		if err := json.Unmarshal([]byte(stdout), &back); err != nil {
			t.Fatal(err)
		}
		same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
		if diff := cmp.Diff(servers, back.Servers, same); diff != "" {
			t.Errorf("%s (-sent +read):\n%s", name, diff)
		}
	}
}

// TestStatusUnavailable: whatever is wrong with the agent, the code is 69 and
// the sentence says what to do.
func TestStatusUnavailable(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "agent.sock")
	left := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ socket, want string }{
		"not running": {nothing, "bootstrap status: the agent does not answer at " + nothing + ": dial unix " + nothing +
			": connect: no such file or directory (systemctl status muster; journalctl -u muster -u muster-fetch)\n"},
		"killed": {left, "connection refused (systemctl status muster"},
		"another version": {agentAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":2}`) }),
			"speaks version 2 of status, this program 1; systemctl restart muster"},
		"an old agent":     {agentAt(t, http.NotFound), "answers 404 Not Found, expected 200 OK"},
		"cut off":          {agentAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":1,`) }), "reading the agent's answer: unexpected EOF"},
		"no JSON at all":   {agentAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }), "reading the agent's answer"},
		"hangs up at once": {agentAt(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "the agent does not answer"},
	} {
		code, stdout, stderr := bootstrapRun(t, "status", "--socket", tt.socket)
		if code != exitUnavailable || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
	}
}

// TestServeLocal: the socket is for root only, replaces what a killed agent left,
// and is gone when the agent ends.
func TestServeLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	server := quietServer(t)
	go func() { done <- serveLocal(ctx, path, server, func() { close(ready) }) }()
	<-ready
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	code, stdout, stderr := bootstrapRun(t, "status", "--socket", path)
	// An agent that just started is in the first of its phases, or on the way there.
	phase := strings.Contains(stdout, string(member.Metadata)) || strings.Contains(stdout, string(member.Identity))
	if code != 0 || !phase || strings.Count(stdout, "\n") != 2 {
		t.Errorf("exit code %d, stdout:\n%s%s", code, stdout, stderr)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("serveLocal: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
	if err := serveLocal(t.Context(), filepath.Join(path, "x"), server, func() {}); err == nil {
		t.Error("a socket in a directory that is not there")
	}
}
