package discovery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// devices answers like the API: pages, filters, a token.
func devices(t *testing.T, all []map[string]any, filters bool) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":["hunter2 is invalid"]}`)
			return
		}
		if r.URL.Path != "/metal/v1/projects/p1/devices" {
			http.NotFound(w, r)
			return
		}
		var page, size int
		fmt.Sscan(r.URL.Query().Get("page"), &page)
		fmt.Sscan(r.URL.Query().Get("per_page"), &size)
		var fit []map[string]any
		for _, d := range all {
			if tag := r.URL.Query().Get("tag"); !filters || tag == "" || slices.Contains(d["tags"].([]string), tag) {
				fit = append(fit, d)
			}
		}
		last := max((len(fit)+size-1)/size, 1)
		from := min((page-1)*size, len(fit))
		_ = json.NewEncoder(w).Encode(map[string]any{
			"devices": append([]map[string]any{}, fit[from:min(from+size, len(fit))]...),
			"meta":    map[string]any{"current_page": page, "last_page": last, "total": len(fit)},
		})
	}))
	t.Cleanup(server.Close)
	return server
}

func listed(i int, state, metro string, tags ...string) map[string]any {
	return map[string]any{
		"id": fmt.Sprint(i), "state": state, "tags": tags, "metro": map[string]any{"code": metro},
		"ip_addresses": []map[string]any{
			{"address": fmt.Sprintf("147.75.%d.%d", i/250, i%250), "public": true, "management": true},
			{"address": fmt.Sprintf("10.99.%d.%d", i/250, i%250), "public": false, "management": true},
			{"address": "10.0.0.99", "public": false, "management": false}, // an Elastic IP
			{"address": fmt.Sprintf("fd00::%x", i), "public": false},
		},
	}
}

func TestPacketAPI(t *testing.T) {
	var all []map[string]any
	for i := range 230 {
		all = append(all, listed(i+1, "active", "ny", "muster"))
	}
	all = append(all, listed(301, "deprovisioning", "ny", "muster"), listed(302, "active", "da", "muster"), listed(303, "active", "ny", "other"))
	for _, filters := range []bool{true, false} {
		server := devices(t, all, filters)
		api := PacketAPI{
			API:    cluster.PacketAPI{URL: server.URL + "/metal/v1/", Project: "p1", Tag: "muster", Metro: "NY"},
			Token:  "hunter2",
			Self:   at("10.99.0.1"),
			Client: server.Client(),
		}
		found := map[netip.Addr]bool{}
		if err := api.Find(t.Context(), func(a netip.Addr) { found[a] = true }); err != nil {
			t.Fatal(err)
		}
		if len(found) != 230 || !found[at("10.99.0.230")] {
			t.Errorf("an API that filters: %v; found %d addresses of 230 on three pages", filters, len(found))
		}
	}
}

// What can go wrong, and that the token shows in none of it.
func TestPacketAPIFails(t *testing.T) {
	server := devices(t, []map[string]any{listed(1, "active", "ny", "muster")}, true)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirection was followed, with token %q", r.Header.Get("X-Auth-Token"))
	}))
	defer other.Close()
	answer := func(status int, header, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", header)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	for name, row := range map[string]struct {
		api   cluster.PacketAPI
		token cluster.Secret
		want  string
	}{
		"wrong token":   {cluster.PacketAPI{URL: server.URL + "/metal/v1", Project: "p1"}, "hunter3", "answers 401 Unauthorized; the token is wrong, or may not read the project"},
		"wrong project": {cluster.PacketAPI{URL: server.URL + "/metal/v1", Project: "p2"}, "hunter2", "answers 404 Not Found; is spec.discovery's packetAPI url the base"},
		"no device":     {cluster.PacketAPI{URL: server.URL + "/metal/v1", Project: "p1", Tag: "x"}, "hunter2", "lists no device that fits"},
		"redirection":   {cluster.PacketAPI{URL: answer(302, other.URL, ""), Project: "p1"}, "hunter2", "a redirection, which is not followed"},
		"too many":      {cluster.PacketAPI{URL: answer(429, "", ""), Project: "p1"}, "hunter2", "too many requests"},
		"HTML":          {cluster.PacketAPI{URL: answer(200, "", "<html>"), Project: "p1"}, "hunter2", "is not the JSON that was expected"},
		"no list":       {cluster.PacketAPI{URL: answer(200, "", "{}"), Project: "p1"}, "hunter2", "has no devices"},
		"bad address":   {cluster.PacketAPI{URL: answer(200, "", `{"devices":[{"ip_addresses":[{"address":"10.0.0.1/31"}]}]}`), Project: "p1"}, "hunter2", `devices[0].ip_addresses[0].address "10.0.0.1/31" is no IP address`},
		"endless pages": {cluster.PacketAPI{URL: answer(200, "", `{"devices":[],"meta":{"last_page":100000}}`), Project: "p1"}, "hunter2", "more than 100 pages"},
		"endless page":  {cluster.PacketAPI{URL: answer(200, "", strings.Repeat(" ", mostPageBytes+1)), Project: "p1"}, "hunter2", "is larger than 8388608 bytes"},
		"nobody there":  {cluster.PacketAPI{URL: "http://127.0.0.1:1", Project: "p1"}, "hunter2", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			api := PacketAPI{API: row.api, Token: row.token, Self: at("10.99.0.1"), Client: http.DefaultClient}
			err := api.Find(t.Context(), func(a netip.Addr) {})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("error %v; want %q", err, row.want)
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("the token shows in %v", err)
			}
		})
	}
}

// One page with the fields that the specification of the API lists, public, private,
// Elastic and missing addresses among them.
func TestParseDevices(t *testing.T) {
	body, err := os.ReadFile("testdata/devices.json")
	if err != nil {
		t.Fatal(err)
	}
	got, pages, err := parseDevices(body)
	if err != nil {
		t.Fatal(err)
	}
	if pages != 2 || len(got) != 3 {
		t.Fatalf("%d devices, %d pages", len(got), pages)
	}
	ny := cluster.PacketAPI{Tag: "muster-role=control-plane", Metro: "ny"}
	for i, want := range []bool{true, false, false} { // the second has no address yet, the third is elsewhere
		if got[i].fits(ny) != want {
			t.Errorf("devices[%d] %+v fits: %v", i, got[i], !want)
		}
	}
	if !slices.Equal(got[0].private, addrs("10.99.14.9")) {
		t.Errorf("private addresses are %v", got[0].private)
	}
}

func FuzzDevices(f *testing.F) {
	body, err := os.ReadFile("testdata/devices.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"devices":[null,{}],"meta":null}`))
	f.Add([]byte(`{"devices":[{"ip_addresses":[{"address":"fe80::1%eth0","management":null}]}],"meta":{"last_page":-1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, pages, err := parseDevices(body)
		if err != nil {
			return
		}
		if pages < 1 {
			t.Errorf("%d pages", pages)
		}
		for _, d := range got {
			for _, a := range d.private {
				if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
					t.Errorf("address %v", a)
				}
			}
		}
	})
}
