package directory

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

// takeOverAfter is how long the beat of the join lock must stand still, on the
// clock of one watcher, before its holder is given up. A join renews every few
// seconds. A wrong take-over is no disaster: etcd's own membership refuses a
// second learner.
const takeOverAfter = 3 * time.Minute

// lock is the one row of join_lock.
type lock struct {
	holder      string // instance; empty when free
	token, beat int64
}

// watch is what one process saw of the lock: since when it stands as it does.
// Clocks of different servers are never compared.
type watch struct {
	seen  lock
	since time.Time
}

// look updates a watch with the lock as it is at a time, and says whether its
// holder may be given up. The beat only ever counts up, so two sights of the
// same lock mean that nothing happened in between.
func (w watch) look(l lock, at time.Time) (next watch, mayTake bool) {
	if w.since.IsZero() || w.seen != l {
		return watch{seen: l, since: at}, false
	}
	return w, l.holder != "" && at.Sub(w.since) >= takeOverAfter
}

// AcquireJoin asks for the turn to join as a control plane. It is granted when
// nobody has it, when inst has it already (with a new token: the former one is
// void), or when the holder has not renewed it for three minutes under this
// server's eyes. Otherwise the answer names the holder; ask again later.
func (s *store) AcquireJoin(ctx context.Context, inst string) (agent.JoinTurn, error) {
	var turn agent.JoinTurn
	err := retry(ctx, "acquire the join lock for "+inst, func(ctx context.Context) error {
		asker, err := s.find(ctx, inst)
		if err != nil {
			return err
		}
		if asker.Role != member.ControlPlane {
			return fmt.Errorf("%w: %s is a %s", ErrNotControlPlane, asker.Name, asker.Role)
		}
		l, err := s.readLock(ctx)
		if err != nil {
			return err
		}
		if l.holder != "" && l.holder != inst && !s.look(l) {
			turn = agent.JoinTurn{Holder: l.holder}
			return nil
		}
		n, err := s.write(ctx, `UPDATE join_lock SET holder = ?4, token = token + 1, beat = beat + 1
			WHERE id = 1 AND coalesce(holder, '') = ?5 AND token = ?6 AND beat = ?7
			AND EXISTS (SELECT 1 FROM member WHERE inst = ?4) AND EXISTS (SELECT 1 FROM meta WHERE `+isTrue+`)`, inst, l.holder, l.token, l.beat)
		if err != nil {
			return err
		}
		if n == 1 {
			turn = agent.JoinTurn{Granted: true, Holder: inst, Token: l.token + 1}
			return nil
		}
		if l, err = s.readLock(ctx); err != nil { // another was faster
			return err
		}
		turn = agent.JoinTurn{Holder: l.holder}
		return nil
	})
	if err != nil {
		return agent.JoinTurn{}, err
	}
	return turn, nil
}

// RenewJoin tells that the holder is alive. Call it every few seconds while the
// join runs. ErrLockLost says that the turn is over: stop before the next step.
func (s *store) RenewJoin(ctx context.Context, inst string, token int64) error {
	return retry(ctx, "renew the join lock of "+inst, func(ctx context.Context) error {
		n, err := s.write(ctx, `UPDATE join_lock SET beat = beat + 1 WHERE id = 1 AND holder = ?4 AND token = ?5
			AND EXISTS (SELECT 1 FROM meta WHERE `+isTrue+`)`, inst, token)
		if err != nil || n == 1 {
			return err
		}
		return s.lost(ctx, token)
	})
}

// ReleaseJoin ends the turn. It is no error when the turn has ended already and
// nobody has the lock.
func (s *store) ReleaseJoin(ctx context.Context, inst string, token int64) error {
	return retry(ctx, "release the join lock of "+inst, func(ctx context.Context) error {
		n, err := s.write(ctx, `UPDATE join_lock SET holder = NULL, beat = beat + 1 WHERE id = 1 AND holder = ?4 AND token = ?5
			AND EXISTS (SELECT 1 FROM meta WHERE `+isTrue+`)`, inst, token)
		if err != nil || n == 1 {
			return err
		}
		l, err := s.readLock(ctx)
		if err != nil || l.holder == "" && l.token == token {
			return err
		}
		return s.lost(ctx, token)
	})
}

func (s *store) look(l lock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, mayTake := s.watch.look(l, s.now())
	s.watch = next
	return mayTake
}

func (s *store) lost(ctx context.Context, token int64) error {
	l, err := s.readLock(ctx)
	if err != nil {
		return err
	}
	if l.holder == "" {
		return fmt.Errorf("%w: token %d is void and nobody holds it now (token %d); acquire it again", ErrLockLost, token, l.token)
	}
	return fmt.Errorf("%w: token %d is void, %s holds it with token %d; wait for its end and acquire it again", ErrLockLost, token, l.holder, l.token)
}

func (s *store) readLock(ctx context.Context) (lock, error) {
	var l lock
	err := s.db.QueryRowContext(ctx, `SELECT coalesce(holder, ''), token, beat FROM join_lock, meta
		WHERE join_lock.id = 1 AND `+isTrue, s.args()...).Scan(&l.holder, &l.token, &l.beat)
	if err == sql.ErrNoRows {
		return lock{}, s.notTrue(ctx)
	}
	return l, err
}
