package announce

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

// TestDialLog: what counts is the last failure since the session was up.
func TestDialLog(t *testing.T) {
	counters := md5Counters{missing: 5}
	var asked []string
	d := newDialLog(slog.DiscardHandler, func() (md5Counters, error) { return counters, nil }, func(peer string) { asked = append(asked, peer) })
	log := slog.New(d).With("Topic", "Peer").With("Key", "169.254.255.1")
	peer := netip.MustParseAddr("169.254.255.1")
	atStart := failure{md5: counters}
	counters = md5Counters{missing: 9}
	badAS, known := notification{code: 2, subcode: 2}, notification{untold: true, code: 2, subcode: 2}
	for _, step := range []struct {
		name string
		say  func()
		want failure
	}{
		{"nothing yet", func() {}, atStart},
		{"a message that says nothing", func() { log.Info("Peer added") }, atStart},
		{"dial", func() { log.Debug("failed to connect", "Error", "i/o timeout") }, failure{why: "i/o timeout", md5: atStart.md5}},
		{"the router's notification", func() {
			log.Info("received notification", "Code", 2, "Subcode", 2)
			log.Debug("outgoing connection IO error", "reason", "notification-received code 2")
		}, failure{why: "notification-received code 2", note: badAS, md5: atStart.md5}},
		{"idle between dials", func() {
			log.Debug("state changed", "old", "BGP_FSM_IDLE", "new", "BGP_FSM_ACTIVE", "reason", "idle-hold-timer-expired")
		},
			failure{why: "notification-received code 2", note: badAS, md5: atStart.md5}},
		{"closed without a word", func() { log.Debug("outgoing connection IO error", "reason", "read-failed") }, failure{why: "read-failed", note: badAS, md5: atStart.md5}},
		{"then it is gone", func() { log.Debug("failed to connect", "Error", "connection refused") }, failure{why: "connection refused", md5: atStart.md5}},
		{"our notification", func() { log.Info("sent notification", "Code", 2, "Subcode", 2) }, failure{why: "connection refused", note: notification{sent: true, code: 2, subcode: 2}, md5: atStart.md5}},
		{"one for an OPEN", func() { log.Info("sent notification", "Code", 5, "Subcode", 1) }, failure{why: "connection refused", note: notification{untold: true}, md5: atStart.md5}},
		{"dial again", func() { log.Debug("failed to connect", "Error", "i/o timeout") }, failure{why: "i/o timeout", md5: atStart.md5}},
		{"one for a KEEPALIVE", func() {
			log.Debug("state changed", "old", "BGP_FSM_OPENCONFIRM", "new", "BGP_FSM_IDLE", "reason", "invalid-msg")
		}, failure{why: "i/o timeout", note: notification{untold: true}, md5: atStart.md5}},
		{"the router told its code", func() { d.told(peer, badAS) }, failure{why: "i/o timeout", note: known, told: known, md5: atStart.md5}},
		{"refused again", func() { log.Info("sent notification", "Code", 5, "Subcode", 1) }, failure{why: "i/o timeout", note: known, told: known, md5: atStart.md5}},
		{"gone, and refused again", func() {
			log.Debug("failed to connect", "Error", "connection refused")
			log.Info("sent notification", "Code", 5, "Subcode", 1)
		}, failure{why: "connection refused", note: known, told: known, md5: atStart.md5}},
		{"up", func() {
			log.Debug("state changed", "old", "BGP_FSM_OPENCONFIRM", "new", "BGP_FSM_ESTABLISHED", "reason", "")
		}, failure{md5: counters}},
		{"down", func() {
			log.Debug("state changed", "old", "BGP_FSM_ESTABLISHED", "new", "BGP_FSM_IDLE", "reason", "hold-timer-expired")
		},
			failure{why: "hold-timer-expired", md5: counters}},
	} {
		step.say()
		if got := d.failure(peer); got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
		if got := d.failure(netip.MustParseAddr("169.254.255.2")); got != atStart {
			t.Errorf("%s: the other peer has %+v", step.name, got)
		}
	}
	if want := "169.254.255.1 169.254.255.1 169.254.255.1 169.254.255.1"; strings.Join(asked, " ") != want {
		t.Errorf("to be asked for their code: %q, want %q", asked, want)
	}
}

func TestParseMD5Counters(t *testing.T) {
	const header = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure Last\n"
	for _, tc := range []struct {
		name, text string
		want       md5Counters
		fails      bool
	}{
		{"a kernel", header + "TcpExt: 1 2 3 4 5\nIpExt: InNoRoutes\nIpExt: 7\n", md5Counters{missing: 2, unexpected: 3, wrong: 4}, false},
		{"without MD5", "TcpExt: SyncookiesSent\nTcpExt: 1\n", md5Counters{}, false},
		{"nothing", "", md5Counters{}, false},
		{"cut off", header + "TcpExt: 1 2\n", md5Counters{}, true},
		{"no number", header + "TcpExt: 1 x 3 4 5\n", md5Counters{}, true},
	} {
		got, err := parseMD5Counters(tc.text)
		if (err != nil) != tc.fails || !tc.fails && got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v, an error: %t", tc.name, got, err, tc.want, tc.fails)
		}
	}
	if _, err := readMD5Counters(); err != nil {
		t.Error(err)
	}
}
