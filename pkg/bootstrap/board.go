package bootstrap

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// board is where the flow writes how far it is and what it waits for, and where
// status reads it. The journal gets a line at each change, systemd its STATUS=.
type board struct {
	log    *slog.Logger
	notify func(status string) // systemd's STATUS=
	now    func() time.Time
	// entered hears that a phase began. It must not wait.
	entered func()

	mu      sync.Mutex
	status  member.Status
	changed chan struct{} // closed and replaced at each change
}

func newBoard(log *slog.Logger, notify func(string), now func() time.Time) *board {
	b := &board{log: log, notify: notify, now: now, entered: func() {}, changed: make(chan struct{})}
	b.status.Phase, b.status.Since = member.Identity, now()
	return b
}

// read returns a copy.
func (b *board) read() member.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Network.ElasticIPs = append([]netip.Prefix(nil), s.Network.ElasticIPs...)
	s.Network.Peers = append([]member.PeerStatus(nil), s.Network.Peers...)
	return s
}

// change applies f and tells whoever waits.
func (b *board) change(f func(*member.Status)) {
	b.mu.Lock()
	f(&b.status)
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
}

// enter begins a phase; what it waited for in the last one is over.
func (b *board) enter(p member.Phase) {
	if b.begin(p) {
		b.entered()
	}
}

// stop begins the last phase, and tells of it when the reason is there.
func (b *board) stop(reason error) {
	b.begin(member.Stopped)
	b.problem(reason)
	b.entered()
}

// begin says whether the phase is another one than before.
func (b *board) begin(p member.Phase) bool {
	var was member.Phase
	var took time.Duration
	b.change(func(s *member.Status) {
		if was = s.Phase; was != p {
			now := b.now()
			took = now.Sub(s.Since)
			s.Phase, s.Since = p, now
		}
		s.Waiting, s.Problem = "", ""
	})
	if was != p {
		// test/bench reads this line.
		b.log.Info("phase", "phase", p, "before", was, "took", took.Round(time.Millisecond))
		b.notify(string(p))
	}
	return was != p
}

// wait says what the server waits for, and why, and what the operator may do;
// "" is nothing.
func (b *board) wait(sentence string) {
	was := b.read()
	if was.Waiting == sentence {
		return
	}
	b.change(func(s *member.Status) { s.Waiting = sentence })
	if sentence == "" {
		b.notify(string(was.Phase))
		return
	}
	b.log.Info("waiting", "for", sentence)
	b.notify(sentence)
}

// over ends a wait, unless the server waits for something else by now.
func (b *board) over(sentence string) {
	if b.read().Waiting == sentence {
		b.wait("")
	}
}

// problem keeps the last error in view until the phase ends or it is solved.
func (b *board) problem(err error) {
	if b.read().Problem == err.Error() {
		return
	}
	b.change(func(s *member.Status) { s.Problem = err.Error() })
	b.log.Warn("problem", "error", err)
}

// solved takes a problem away, unless another one is in view by now.
func (b *board) solved(err error) {
	if b.read().Problem == err.Error() {
		b.change(func(s *member.Status) { s.Problem = "" })
	}
}
