package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// document is a fixture of pkg/shape; its README names the sources.
func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../shape/testdata/packet/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// askPacket reads platform packet at a URL once, on a machine of which nothing is known
// but its addresses.
func askPacket(ctx context.Context, t *testing.T, url string, client *http.Client) (device.Device, error) {
	t.Helper()
	spec := cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: url}}
	r, err := NewReader(spec, Machine{HTTP: client, Facts: func() (Facts, error) {
		return Facts{Links: []device.Link{link("bond0", "147.75.78.41/31", "10.66.142.17/31", "10.87.63.3/31")}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Device(ctx)
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
			d, err := askPacket(t.Context(), t, server.URL+"/", nil)
			if tt.err == "" {
				if err != nil || d.Hostname != "infra-green-ci" || len(d.BGPNeighbors) != 2 {
					t.Errorf("device %+v, error %v", d, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), server.URL+"/metadata: ") {
				t.Errorf("error = %v; want one with %q", err, tt.err)
			}
		})
	}
}

func TestPacketUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if _, err := askPacket(t.Context(), t, server.URL, nil); err == nil || !strings.Contains(err.Error(), "is not there yet: dial tcp") {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := askPacket(ctx, t, server.URL, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := askPacket(t.Context(), t, "http://bad host", nil); err == nil || !strings.Contains(err.Error(), "spec.metadata.url") {
		t.Errorf("bad URL: %v", err)
	}
}

// A proxy in the environment would answer for itself, not for this server.
func TestPacketIgnoresProxies(t *testing.T) {
	whole := document(t, "hegel-v0.6-metadata-instance")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, whole) }))
	defer server.Close()
	if transport := (service{}).client().Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("the client of its own asks for a proxy")
	}
	own := &http.Client{Timeout: time.Minute}
	if _, err := askPacket(t.Context(), t, server.URL, own); err != nil || own.CheckRedirect != nil {
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
				_, err := askPacket(t.Context(), t, "http://metadata", client)
				if err == nil || !strings.Contains(err.Error(), "did not answer within 5s") || time.Since(began) != attemptTimeout {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
