package announce

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/plan"
)

func goodPlan() plan.Announcement {
	return plan.Announcement{
		Version: 1, RouterID: netip.MustParseAddr("10.70.1.1"), AS: 65000,
		Peers: []plan.Peer{{Address: netip.MustParseAddr("169.254.255.1"), Source: netip.MustParseAddr("10.70.1.1"),
			AS: 65530, Multihop: true, Password: "s3cret-s3cret"}},
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("147.75.40.8/32")},
		HealthURL: "https://10.70.1.1:6443/readyz", HealthCA: "/etc/kubernetes/pki/ca.crt",
	}
}

func TestReadPlan(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*plan.Announcement)
		says string
	}{
		{"good", func(*plan.Announcement) {}, ""},
		{"version", func(p *plan.Announcement) { p.Version = 2 }, "version 2, expected 1"},
		{"router id", func(p *plan.Announcement) { p.RouterID = netip.MustParseAddr("::1") }, `routerID "::1"`},
		{"as", func(p *plan.Announcement) { p.AS = 0 }, "as 0"},
		{"no peers", func(p *plan.Announcement) { p.Peers = nil }, "no peers"},
		{"mixed families", func(p *plan.Announcement) { p.Peers[0].Source = netip.MustParseAddr("fd00::1") }, "one family"},
		{"peer as", func(p *plan.Announcement) { p.Peers[0].AS = 0 }, "router's number"},
		{"long password", func(p *plan.Announcement) {
			p.Peers[0].Password = cluster.Secret(strings.Repeat("s3cret-s3cret", 7))
		}, "91 bytes"},
		{"twice", func(p *plan.Announcement) { p.Peers = append(p.Peers, p.Peers[0]) }, "twice"},
		{"network", func(p *plan.Announcement) { p.Prefixes[0] = netip.MustParsePrefix("147.75.40.8/29") }, "/32 or /128"},
		{"http", func(p *plan.Announcement) { p.HealthURL = "http://10.70.1.1:6443/readyz" }, "https://"},
		{"ca", func(p *plan.Announcement) { p.HealthCA = "" }, "healthCA"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := goodPlan()
			tc.edit(&p)
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "announce.json")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadPlan(file)
			if tc.says == "" {
				if err != nil || !slices.Equal(got.Peers, p.Peers) {
					t.Errorf("plan %+v, error %v", got, err)
				}
				return
			}
			if !errors.Is(err, ErrPlan) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want ErrPlan with %q", err, tc.says)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	if _, err := ReadPlan(filepath.Join(t.TempDir(), "announce.json")); !errors.Is(err, ErrNoPlan) {
		t.Errorf("no file: %v, want ErrNoPlan", err)
	}
	for _, raw := range []string{"", "{", `{"version":1} {}`, `{"surprise":1}`} {
		if _, err := parsePlan([]byte(raw)); err == nil {
			t.Errorf("%q was taken for a plan", raw)
		}
	}
}

func TestDue(t *testing.T) {
	a, b := netip.MustParsePrefix("147.75.40.8/32"), netip.MustParsePrefix("147.75.40.9/32")
	both := []netip.Prefix{a, b}
	lo := map[netip.Prefix]bool{a: true, b: true, netip.MustParsePrefix("127.0.0.1/8"): true}
	for _, tc := range []struct {
		name     string
		lo, held map[netip.Prefix]bool
		open     bool
		want     []netip.Prefix
	}{
		{"all conditions", lo, nil, true, both},
		{"gate shut", lo, nil, false, nil},
		{"not on lo", map[netip.Prefix]bool{b: true}, nil, true, []netip.Prefix{b}},
		{"lo not read yet", nil, nil, true, nil},
		{"withheld", lo, map[netip.Prefix]bool{a: true}, true, []netip.Prefix{b}},
	} {
		if got := due(both, tc.lo, tc.held, tc.open); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestReason(t *testing.T) {
	p := goodPlan().Peers[0]
	open := p
	open.Password = ""
	for _, tc := range []struct {
		name string
		peer plan.Peer
		f    facts
		says string
	}{
		{"source missing", p, facts{}, "10.70.1.1 is on no interface"},
		{"no route", p, facts{sourceHere: true, routeErr: unix.ENETUNREACH}, "no route to 169.254.255.1"},
		{"refused", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "dial tcp: connect: connection refused"}, "refuses"},
		{"host unreachable", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "connect: no route to host"}, "no router on the way"},
		{"public way", p, facts{sourceHere: true, routeSrc: netip.MustParseAddr("147.75.1.3"), dialErr: "i/o timeout"}, "would send from 147.75.1.3"},
		{"silence with a password", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout"}, "MD5"},
		{"silence without", open, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout"}, "does not know this server"},
		{"signed otherwise", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout", md5: md5Counters{wrong: 3, missing: 1}}, "signs with another MD5 password: the kernel dropped 3"},
		{"unsigned", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout", md5: md5Counters{missing: 2}}, "answers without MD5"},
		{"signed for nothing", open, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout", md5: md5Counters{unexpected: 2}}, "the metadata has no password"},
		{"counters of others", open, facts{sourceHere: true, routeSrc: p.Source, dialErr: "i/o timeout", md5: md5Counters{missing: 2, wrong: 2}}, "does not know this server"},
		{"their AS", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{sent: true, code: 2, subcode: 2}, as: 65000}, "169.254.255.1 has another AS number than 65530"},
		{"our AS", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{code: 2, subcode: 2}, as: 65000, dialErr: "notification-received"}, "another AS number than 65000"},
		{"our AS, most likely", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{untold: true}, as: 65000, dialErr: "read-failed"}, "AS mismatch suspected: 169.254.255.1 answers"},
		{"our AS, when it was asked", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{untold: true, code: 2, subcode: 2}, as: 65000, dialErr: "read-failed"}, "AS mismatch: 169.254.255.1 knows this server by another AS number than 65000"},
		{"notification", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{code: 6, subcode: 3}}, "169.254.255.1 ended the session with the notification code 6(cease)"},
		{"own notification", p, facts{sourceHere: true, routeSrc: p.Source, note: notification{sent: true, code: 4}}, "this server ended the session with 169.254.255.1 with the notification code 4(hold timer expired)"},
		{"closed", p, facts{sourceHere: true, routeSrc: p.Source, dialErr: "read-failed"}, "ended: read-failed"},
		{"just started", p, facts{sourceHere: true, routeSrc: p.Source}, "not up yet"},
	} {
		got := reason(tc.peer, tc.f)
		if !strings.Contains(got, tc.says) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %q, want %q and no password", tc.name, got, tc.says)
		}
	}
}
