package events

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/plan"
)

// sink is a listener of the test.
type sink struct {
	mu    sync.Mutex
	heard []plan.Notice
	wrong []string
}

func (s *sink) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var n plan.Notice
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := json.Unmarshal(body, &n); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		s.wrong = append(s.wrong, fmt.Sprintf("%s %s %v %s", r.Method, r.URL, r.Header, body))
	}
	s.heard = append(s.heard, n)
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
}

func (s *sink) codes() (out []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.heard {
		out = append(out, n.Code)
	}
	return out
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// running runs events in the bubble of a synctest.
func running(t *testing.T, e *Events, to http.RoundTripper) {
	t.Helper()
	e.client.Transport = to
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func notices(from, to int) (out []plan.Notice) {
	for code := from; code <= to; code++ {
		out = append(out, plan.Notice{State: "running", Code: code, Message: "k8s/cp1: x"})
	}
	return out
}

// What was told before the platform's address was known is told then, in order, to
// both listeners, and only what was asked for.
func TestTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		platform, hook := &sink{}, &sink{}
		e := New("http://hook.example.net/x", true, slog.New(slog.DiscardHandler))
		running(t, e, transport(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "hook.example.net" {
				return hook.RoundTrip(r)
			}
			return platform.RoundTrip(r)
		}))
		for _, n := range notices(1000, 1002) {
			e.Tell(n)
		}
		synctest.Wait()
		if got := hook.codes(); !slices.Equal(got, []int{1000, 1001, 1002}) || len(platform.codes()) != 0 {
			t.Errorf("the webhook heard %v, the platform %v", got, platform.codes())
		}
		e.Aim("http://10.0.0.1/events")
		e.Tell(notices(1003, 1003)[0])
		synctest.Wait()
		if got := platform.codes(); !slices.Equal(got, []int{1000, 1001, 1002, 1003}) {
			t.Errorf("the platform heard %v", got)
		}
		if wrong := append(platform.wrong, hook.wrong...); wrong != nil {
			t.Errorf("requests: %v", wrong)
		}
	})
}

func TestUserStateOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New("", false, slog.New(slog.DiscardHandler))
		running(t, e, transport(func(r *http.Request) (*http.Response, error) {
			t.Errorf("%s was asked", r.URL)
			return nil, io.EOF
		}))
		e.Aim("http://10.0.0.1/events")
		e.Tell(notices(1000, 1000)[0])
		synctest.Wait()
	})
}

// A listener that hangs costs nobody anything: telling returns at once, the other
// one hears everything, and what the queue does not hold is dropped, oldest first.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		platform := &sink{}
		e := New("http://hangs.example.net/x", true, slog.New(slog.DiscardHandler))
		var hung atomic.Int64
		running(t, e, transport(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "hangs.example.net" {
				return platform.RoundTrip(r)
			}
			hung.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		e.Aim("http://10.0.0.1/events")
		began := time.Now()
		for i := range 100 {
			e.Tell(plan.Notice{Code: 1000 + i})
			synctest.Wait() // the platform's turn
		}
		if took := time.Since(began); took > time.Second || len(platform.codes()) != 100 {
			t.Errorf("telling took %v, and the platform heard %d of 100", took, len(platform.codes()))
		}
		e.webhook.mu.Lock()
		if n := len(e.webhook.queue); n != queued || e.webhook.queue[n-1].Code != 1099 || e.webhook.queue[0].Code != 1100-queued {
			t.Errorf("the queue holds %d", n)
		}
		e.webhook.mu.Unlock()
		time.Sleep(time.Minute)
		if n := hung.Load(); n < 6 || n > 12 {
			t.Errorf("%d attempts in a minute that each hang for %v", n, patience)
		}
	})
}

// A server that fails is tried three times for one notice, then the next notice has
// its turn. It is logged once, without the path, which may be a secret.
func TestFails(t *testing.T) {
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		e := New("https://hook.example.net/services/SECRET", false, slog.New(slog.NewTextHandler(&log, nil)))
		running(t, e, transport(func(r *http.Request) (*http.Response, error) {
			if asked.Add(1) > 6 {
				return nil, fmt.Errorf("no route to %s", "there")
			}
			return &http.Response{StatusCode: 500, Status: "500 Internal Server Error", Body: http.NoBody}, nil
		}))
		for _, n := range notices(1000, 1002) {
			e.Tell(n)
		}
		time.Sleep(time.Minute)
		if n := asked.Load(); n != 9 {
			t.Errorf("%d attempts for three notices", n)
		}
	})
	if text := log.String(); strings.Count(text, "an event was not delivered") != 1 || !strings.Contains(text, "hook.example.net answers 500 Internal Server Error") || strings.Contains(text, "SECRET") {
		t.Errorf("log: %s", text)
	}
}

// Over a real connection: what goes over the wire, and that no redirection is
// followed.
func TestWire(t *testing.T) {
	bodies, elsewhere := make(chan string, 1), make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.URL.Path }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	e := New("", true, slog.New(slog.DiscardHandler))
	err := e.post(t.Context(), server.URL+"/events", []byte(`{"state":"running","code":1002,"message":"k8s/cp1: roll-call"}`))
	if err == nil || !strings.Contains(err.Error(), "answers 307 Temporary Redirect") {
		t.Errorf("it ends with %v", err)
	}
	if body := <-bodies; body != `{"state":"running","code":1002,"message":"k8s/cp1: roll-call"}` {
		t.Errorf("body %s", body)
	}
	select {
	case path := <-elsewhere:
		t.Errorf("the redirection was followed to %s", path)
	default:
	}
	for _, bad := range []string{"", "ftp://x/y", "http:///x", "file:///etc/passwd", "http://a b/"} {
		if err := e.post(t.Context(), bad, nil); err == nil {
			t.Errorf("posted to %q", bad)
		}
	}
}
