package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// document is a fixture of pkg/device; its README names the sources.
func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../device/testdata/packet/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPacket(t *testing.T) {
	whole := document(t, "equinix-ibx-ny5-2021-bgp-eip")
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		err     string
	}{
		{name: "good", handler: answer(200, whole)},
		{name: "particular about Accept", handler: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") != "*/*" || r.URL.Path != "/metadata" || r.Method != http.MethodGet {
				w.WriteHeader(http.StatusNotAcceptable)
				return
			}
			fmt.Fprint(w, whole)
		}},
		{name: "not there yet", handler: answer(404, `{"message":"instance not found"}`), err: `does not know this server yet: it answers 404 and says "{\"message\":\"instance not found\"}"`},
		{name: "500", handler: answer(500, ""), err: "is in trouble: it answers 500 Internal Server Error"},
		{name: "503", handler: answer(503, "<html>\n  busy</html>"), err: `is in trouble: it answers 503 Service Unavailable and says "<html> busy</html>"`},
		{name: "406", handler: answer(406, ""), err: "answers 406 Not Acceptable; expected 200"},
		{name: "redirect", handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://login.example/", 302) }, err: `answers 302 and points to "http://login.example/"`},
		{name: "cut off by the connection", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			fmt.Fprint(w, whole[:1000])
		}, err: "is cut off after 1000 bytes"},
		{name: "cut off by the service", handler: answer(200, whole[:1000]), err: "is cut off after 1000 bytes"},
		{name: "hangs up", handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, err: "hung up"},
		{name: "HTML", handler: answer(200, "<html>Sign in</html>"), err: "is HTML or XML"},
		{name: "too large", handler: answer(200, strings.Repeat(" ", maxDocument+1)), err: "larger than 1048576 bytes"},
		{name: "error document", handler: answer(200, `{"error":"no such instance"}`), err: "with an error document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			d, err := Packet{BaseURL: server.URL + "/"}.Device(t.Context())
			if tt.err == "" {
				if err != nil || d.Hostname != "infra-green-ci" || len(d.BGPNeighbors) != 2 {
					t.Errorf("device %+v, error %v", d, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "metadata: GET "+server.URL+"/metadata: ") {
				t.Errorf("error = %v; want one with %q", err, tt.err)
			}
		})
	}
}

func TestPacketUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if _, err := (Packet{BaseURL: server.URL}).Device(t.Context()); err == nil || !strings.Contains(err.Error(), "is not there yet: dial tcp") {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Packet{BaseURL: server.URL}).Device(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := (Packet{BaseURL: "http://bad host"}).Device(t.Context()); err == nil || !strings.Contains(err.Error(), "spec.metadata.url") {
		t.Errorf("bad URL: %v", err)
	}
}

// A proxy in the environment would answer for itself, not for this server.
func TestPacketIgnoresProxies(t *testing.T) {
	whole := document(t, "hegel-v0.6-metadata-instance")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, whole) }))
	defer server.Close()
	if transport := (Packet{}).client().Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("the client of its own asks for a proxy")
	}
	own := &http.Client{Timeout: time.Minute}
	if _, err := (Packet{BaseURL: server.URL, HTTP: own}).Device(t.Context()); err != nil || own.CheckRedirect != nil {
		t.Errorf("with a client of the caller: %v; it was changed: %v", err, own.CheckRedirect != nil)
	}
}

// The service takes the connection and says nothing more, or sends half.
func TestPacketSlow(t *testing.T) {
	for name, head := range map[string]string{
		"no answer":   "",
		"half a body": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				go func() {
					buf := make([]byte, 4096)
					if _, err := far.Read(buf); err == nil && head != "" {
						_, _ = io.WriteString(far, head)
					}
				}()
				client := &http.Client{Transport: &http.Transport{
					DialContext:       func(context.Context, string, string) (net.Conn, error) { return near, nil },
					DisableKeepAlives: true,
				}}
				began := time.Now()
				_, err := Packet{BaseURL: "http://metadata", HTTP: client}.Device(t.Context())
				if err == nil || !strings.Contains(err.Error(), "did not answer within 5s") || time.Since(began) != attemptTimeout {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}

// script is a source whose answers are given beforehand; the last one stays.
type script struct {
	answers []func(context.Context) (device.Device, error)
	asked   int
}

func (s *script) Device(ctx context.Context) (device.Device, error) {
	answer := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	return answer(ctx)
}

func fails(text string) func(context.Context) (device.Device, error) {
	return func(context.Context) (device.Device, error) { return device.Device{}, errors.New(text) }
}

func gives(d device.Device) func(context.Context) (device.Device, error) {
	return func(context.Context) (device.Device, error) { return d, nil }
}

func hangs(ctx context.Context) (device.Device, error) {
	<-ctx.Done()
	return device.Device{}, ctx.Err()
}

func TestPoll(t *testing.T) {
	bare := device.Device{ID: "i1"}
	complete := device.Device{ID: "i1", BGPNeighbors: []device.Neighbor{{Family: 4}}}
	foreign := func(d device.Device) error {
		if len(d.BGPNeighbors) == 0 {
			return errors.New("describes another server")
		}
		return nil
	}
	type answers = []func(context.Context) (device.Device, error)
	tests := []struct {
		name    string
		answers answers
		policy  Policy
		reports []string
		err     string
	}{
		{name: "at once", answers: answers{gives(bare)}, policy: Policy{Deadline: time.Minute}},
		{name: "late", answers: answers{fails("404"), fails("500"), gives(bare)}, policy: Policy{Deadline: time.Minute}, reports: []string{"1 404", "2 500"}},
		{name: "neighbours come late", answers: answers{gives(bare), gives(bare), gives(complete)}, policy: Policy{Deadline: time.Minute, RequireBGP: true},
			reports: []string{"1 " + errNoBGP.Error(), "2 " + errNoBGP.Error()}},
		{name: "a former owner's document", answers: answers{gives(bare), gives(complete)}, policy: Policy{Deadline: time.Minute, Check: foreign}, reports: []string{"1 metadata: describes another server"}},
		{name: "never", answers: answers{fails("404")}, policy: Policy{Deadline: 2 * time.Second}, reports: []string{"1 404", "2 404", "3 404"}, err: "no usable metadata within 2s, in 3 attempts; the last said: 404"},
		{name: "the deadline cuts an attempt short", answers: answers{fails("404"), hangs}, policy: Policy{Deadline: 20 * time.Second}, reports: []string{"1 404", "2 context deadline exceeded"}, err: "in 2 attempts; the last said: 404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports []string
				var last time.Duration
				d, err := Poll(t.Context(), &script{answers: tt.answers}, tt.policy, func(err error, attempt int, since time.Duration) {
					if since < last {
						t.Errorf("time runs backwards: %v after %v", since, last)
					}
					last = since
					reports = append(reports, fmt.Sprint(attempt, " ", err))
				})
				if diff := cmp.Diff(tt.reports, reports); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
				if tt.err == "" && (err != nil || d.ID != "i1") || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("device %q, error %v; want error %q", d.ID, err, tt.err)
				}
			})
		})
	}
}

// Over a long outage a server asks about every ten seconds, not faster.
func TestPollBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(context.Context) (device.Device, error){fails("404")}}
		if _, err := Poll(t.Context(), s, Policy{Deadline: 10 * time.Minute}, nil); err == nil {
			t.Fatal("no error")
		}
		if s.asked < 50 || s.asked > 85 {
			t.Errorf("asked %d times in ten minutes", s.asked)
		}
	})
}

func TestPollStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]func(context.Context) (device.Device, error){"in an attempt": hangs, "between attempts": fails("404")} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			began := time.Now()
			_, err := Poll(ctx, &script{answers: []func(context.Context) (device.Device, error){answer}}, Policy{Deadline: time.Minute}, nil)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
				t.Errorf("%s: after %v: %v", name, time.Since(began), err)
			}
			cancel()
		}
	})
}

func TestStatic(t *testing.T) {
	servers := []cluster.StaticServer{
		{Match: cluster.StaticMatch{Hostname: "CP1"}, ID: "id1", Hostname: "cp1", Tags: []string{"a"},
			Addresses: []cluster.StaticAddress{
				{Address: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
				{Address: netip.MustParsePrefix("147.75.1.3/31"), Gateway: netip.MustParseAddr("147.75.1.2"), Public: true},
			},
			BGPNeighbors: []cluster.StaticNeighbor{
				{CustomerAS: 65000, PeerAS: 65530, CustomerIP: netip.MustParseAddr("fd00::9"), PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::e")}},
				{CustomerAS: 65000, PeerAS: 65530, Multihop: true, MD5: "pw", PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.2"), netip.MustParseAddr("169.254.255.1")}},
			}},
		{Match: cluster.StaticMatch{MAC: "02-00-00-00-00-02"}, Hostname: "w1"},
		{Match: cluster.StaticMatch{Address: "10.99.14.13"}, ID: "id3", Hostname: "w2"},
	}
	want := device.Device{ID: "id1", Hostname: "cp1", Tags: []string{"a"},
		Addresses: []device.Address{
			{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
			{Prefix: netip.MustParsePrefix("147.75.1.3/31"), Gateway: netip.MustParseAddr("147.75.1.2"), Public: true},
		},
		BGPNeighbors: []device.Neighbor{
			{Family: 4, CustomerAS: 65000, CustomerIP: netip.MustParseAddr("10.99.14.9"), PeerAS: 65530, Multihop: true, MD5: "pw", PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}},
			{Family: 6, CustomerAS: 65000, CustomerIP: netip.MustParseAddr("fd00::9"), PeerAS: 65530, PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::e")}},
		}}
	ask := func(f Facts) (device.Device, error) {
		return Static{Servers: servers, Facts: func() (Facts, error) { return f, nil }}.Device(t.Context())
	}
	got, err := ask(Facts{Hostname: "cp1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		facts    Facts
		id, fail string
	}{
		{facts: Facts{Hostname: "x", MACs: []string{"02:00:00:00:00:02"}}, id: "w1"},
		{facts: Facts{Addresses: []netip.Addr{netip.MustParseAddr("10.99.14.13")}}, id: "id3"},
		{facts: Facts{Hostname: "x", MACs: []string{"02:00:00:00:00:09"}}, fail: `none of the 3 servers in spec.static matches this one: hostname "x", MACs 02:00:00:00:00:09, addresses none`},
		{facts: Facts{Hostname: "cp1", MACs: []string{"02:00:00:00:00:02"}}, fail: "spec.static[0 1] all match this server"},
	} {
		d, err := ask(tt.facts)
		if d.ID != tt.id || (err != nil) != (tt.fail != "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
			t.Errorf("%+v: %q, %v; want %q, %q", tt.facts, d.ID, err, tt.id, tt.fail)
		}
	}
	broken := Static{Facts: func() (Facts, error) { return Facts{}, errors.New("no hostname") }}
	if _, err := broken.Device(t.Context()); err == nil || !strings.Contains(err.Error(), "no hostname") {
		t.Errorf("without facts: %v", err)
	}
}

func TestNew(t *testing.T) {
	yes := true
	spec := cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: "http://m", Deadline: time.Minute, RequireBGP: &yes}}
	source, policy, err := New(spec, nil)
	if packet, ok := source.(Packet); err != nil || !ok || packet.BaseURL != "http://m" || !policy.RequireBGP || policy.Deadline != time.Minute {
		t.Errorf("packet: %+v, %+v, %v", source, policy, err)
	}
	spec.Platform, spec.MetadataSource.Deadline = cluster.PlatformStatic, 0
	source, policy, err = New(spec, nil)
	if _, ok := source.(Static); err != nil || !ok || policy.RequireBGP || policy.Deadline != 5*time.Minute {
		t.Errorf("static: %+v, %+v, %v", source, policy, err)
	}
	spec.Platform = "ec2"
	if _, _, err := New(spec, nil); err == nil || !strings.Contains(err.Error(), `is "ec2"`) {
		t.Errorf("unknown: %v", err)
	}
}

func TestCache(t *testing.T) {
	for _, name := range []string{"equinix-ibx-ny5-2021-bgp-eip", "packet-old-ewr1-bgp-reconstructed", "equinix-ibx-da11-2022-nobgp"} {
		d, err := device.ParsePacket([]byte(document(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, again, byValue); diff != "" {
			t.Errorf("%s (-stored +read):\n%s", name, diff)
		}
		if _, err := Unmarshal(b[:len(b)/2]); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("half of it: %v", err)
		}
	}
	if _, err := Unmarshal([]byte(`{"version":2,"device":{"id":"i1"}}`)); err == nil || !strings.Contains(err.Error(), `version 2 with id "i1"; expected version 1`) {
		t.Errorf("another version: %v", err)
	}
}
