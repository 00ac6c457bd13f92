package gossip

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// quiet is how long a warning that was logged is not logged again. A foreign
// server that knocks with another key or label would fill the journal.
const quiet = time.Minute

// logWriter takes memberlist's lines ("[WARN] memberlist: …") to slog. Its
// warnings are about normal life (a probe that came late, a node that refutes);
// only errors are worth a person's eye.
type logWriter struct {
	log *slog.Logger
	// leaving is set when the sockets are about to be closed: what memberlist
	// still tries then fails, and nobody need know.
	leaving atomic.Bool

	mu     sync.Mutex
	logged map[string]time.Time
}

func (w *logWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	tag := ""
	if before, after, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(before, "[") {
		tag, text = before[1:], after
	}
	text = "gossip: " + strings.TrimPrefix(text, "memberlist: ")
	switch {
	case w.leaving.Load():
		w.log.Debug(text)
	case (tag == "ERR" || tag == "ERROR") && !w.repeated(text):
		w.log.Warn(text)
	case tag == "WARN" && !w.repeated(text):
		w.log.Info(text)
	default:
		w.log.Debug(text)
	}
	return len(line), nil
}

// repeated says whether a line of this kind was logged within quiet. Lines that
// differ in numbers only are of one kind.
func (w *logWriter) repeated(text string) bool {
	kind := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '0'
		}
		return r
	}, text)
	const manyKinds = 256
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logged == nil || len(w.logged) > manyKinds {
		w.logged = map[string]time.Time{}
	}
	if last, ok := w.logged[kind]; ok && now.Sub(last) < quiet {
		return true
	}
	w.logged[kind] = now
	return false
}
