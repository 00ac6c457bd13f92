package rpc_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// record is a log that a test can read.
type record struct {
	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed and replaced at each line
}

type line struct {
	level slog.Level
	text  string
}

func (*record) Enabled(context.Context, slog.Level) bool { return true }
func (r *record) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *record) WithGroup(string) slog.Handler          { return r }

func (r *record) Handle(_ context.Context, entry slog.Record) error {
	text := entry.Message
	entry.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line{entry.Level, text})
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	return nil
}

func (r *record) all() []line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]line(nil), r.lines...)
}

// wait returns when a line of that level says text, or false after a while.
func (r *record) wait(level slog.Level, text string) bool {
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	for {
		r.mu.Lock()
		for _, l := range r.lines {
			if l.level == level && strings.Contains(l.text, text) {
				r.mu.Unlock()
				return true
			}
		}
		if r.more == nil {
			r.more = make(chan struct{})
		}
		more := r.more
		r.mu.Unlock()
		select {
		case <-more:
		case <-patience.C:
			return false
		}
	}
}

// recorder is a response that a test can read.
type recorder struct {
	code   int
	header http.Header
	body   bytes.Buffer
}

func newRecorder() *recorder                           { return &recorder{header: http.Header{}} }
func (w *recorder) Header() http.Header                { return w.header }
func (w *recorder) WriteHeader(code int)               { w.code = code }
func (w *recorder) Write(data []byte) (n int, e error) { return w.body.Write(data) }
