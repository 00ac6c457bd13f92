// Package events tells listeners outside how far this server is: the platform, at
// the address that its metadata name for that, and a webhook of the user's own. It
// is best effort: nobody ever waits for it, and what cannot be told is dropped.
//
// Floor 2.
package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/plan"
)

// Bounds of what is spent on listeners.
const (
	queued   = 32               // notices kept for one; the oldest goes first
	patience = 5 * time.Second  // one attempt
	attempts = 3                // for one notice
	pause    = 2 * time.Second  // before the second, doubled for the third
	quiet    = 10 * time.Minute // a failure is not logged again meanwhile
)

// Events sends notices to at most two listeners.
type Events struct {
	log       *slog.Logger
	client    *http.Client
	platform  listener
	webhook   listener
	listeners []*listener
}

// listener is one URL with what it has not heard yet.
type listener struct {
	what string // for the log
	mu   sync.Mutex
	url  string
	told time.Time // when its failure was logged last
	// queue holds notices also before the URL is known.
	queue []plan.Notice
	more  chan struct{} // holds one when the queue or the URL changed
}

// New prepares events. webhook may be empty; userState says whether the platform is
// told, once it is known where.
func New(webhook string, userState bool, log *slog.Logger) *Events {
	e := &Events{log: log, client: &http.Client{
		Timeout: patience,
		// A listener that moved has to be told so; what is posted goes where it was meant to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	e.platform = listener{what: "user_state", more: make(chan struct{}, 1)}
	e.webhook = listener{what: "webhook", url: webhook, more: make(chan struct{}, 1)}
	if userState {
		e.listeners = append(e.listeners, &e.platform)
	}
	if webhook != "" {
		e.listeners = append(e.listeners, &e.webhook)
	}
	return e
}

// Aim says where the platform takes events; empty is nowhere.
func (e *Events) Aim(at string) {
	e.platform.mu.Lock()
	e.platform.url = at
	e.platform.mu.Unlock()
	e.platform.nudge()
}

// Tell queues a notice and returns at once.
func (e *Events) Tell(n plan.Notice) {
	for _, l := range e.listeners {
		l.mu.Lock()
		if l.queue = append(l.queue, n); len(l.queue) > queued {
			l.queue = l.queue[1:]
		}
		l.mu.Unlock()
		l.nudge()
	}
}

func (l *listener) nudge() {
	select {
	case l.more <- struct{}{}:
	default: // one is there
	}
}

// Run sends until ctx ends. One listener does not hold up the other.
func (e *Events) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	for _, l := range e.listeners {
		work.Go(func() error { e.serve(ctx, l); return nil })
	}
	return work.Wait()
}

func (e *Events) serve(ctx context.Context, l *listener) {
	for {
		n, to, found := l.next()
		if !found {
			select {
			case <-ctx.Done():
				return
			case <-l.more:
			}
			continue
		}
		if err := e.send(ctx, to, n); ctx.Err() != nil {
			return
		} else if err != nil {
			l.complain(ctx, e.log, n, err)
		}
	}
}

// next takes the oldest notice, when it is known where to send it.
func (l *listener) next() (n plan.Notice, to string, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.url == "" || len(l.queue) == 0 {
		return n, "", false
	}
	n, l.queue = l.queue[0], l.queue[1:]
	return n, l.url, true
}

func (l *listener) complain(ctx context.Context, log *slog.Logger, n plan.Notice, err error) {
	l.mu.Lock()
	again := time.Since(l.told) < quiet
	if !again {
		l.told = time.Now()
	}
	l.mu.Unlock()
	level := slog.LevelWarn
	if again {
		level = slog.LevelDebug
	}
	log.Log(ctx, level, "an event was not delivered", "to", l.what, "code", n.Code, "error", err)
}

// send makes the attempts for one notice.
func (e *Events) send(ctx context.Context, to string, n plan.Notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	wait := pause
	for try := 1; ; try++ {
		if err = e.post(ctx, to, body); err == nil || try == attempts {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		wait *= 2
	}
}

// post sends once. Its errors show the host only: the path of a webhook is often a
// secret.
func (e *Events) post(ctx context.Context, to string, body []byte) error {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("it is no http or https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("posting to %s: it is no URL", u.Host)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := e.client.Do(request)
	if err != nil {
		var told *url.Error // its text has the whole URL
		if errors.As(err, &told) {
			err = told.Err
		}
		return fmt.Errorf("posting to %s: %w", u.Host, err)
	}
	defer response.Body.Close()
	const enough = 64 << 10 // a connection is used again when its answer was read
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, enough))
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s", u.Host, response.Status)
	}
	return nil
}
