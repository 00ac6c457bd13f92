package directory

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/canonical/go-dqlite/client"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/revocation"
)

// RevokedFile is the list of revoked instances as last read, beside the databases
// of all generations. It holds when all control planes start at once, the agent
// reads it too, and a directory that is made anew gets it back.
const RevokedFile = "revoked.json"

// revokedPeriod is how often each control plane asks for the list: no later does
// it refuse an instance that was removed at another.
const (
	revokedPeriod   = 2 * time.Second
	revokedPatience = 3 * time.Second // for one answer
)

// revoke takes a member's row and its turn to join, and remembers it for ever.
func (s *store) revoke(ctx context.Context, m member.Revoked) error {
	return retry(ctx, "revoke "+m.Name, func(ctx context.Context) error {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		for _, statement := range []struct {
			text string
			args []any
		}{
			{`INSERT INTO revoked (inst, hw, name, address, first, epoch) SELECT ?4, ?5, ?6, ?7, ?8, ?9
				FROM meta WHERE ` + isTrue + ` ON CONFLICT DO NOTHING`,
				[]any{m.Inst, m.HW, m.Name, m.Address.String(), number(m.First), int64(m.Epoch)}},
			{`UPDATE join_lock SET holder = NULL, token = token + 1, beat = beat + 1
				WHERE id = 1 AND holder = ?4 AND EXISTS (SELECT 1 FROM meta WHERE ` + isTrue + `)`, []any{m.Inst}},
			{`DELETE FROM member WHERE inst = ?4 AND EXISTS (SELECT 1 FROM meta WHERE ` + isTrue + `)`, []any{m.Inst}},
		} {
			if _, err := tx.ExecContext(ctx, statement.text, s.args(statement.args...)...); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		// It is revoked, or the database was not the decree's.
		revoked, err := s.revoked(ctx)
		if err == nil && !slices.Contains(revocation.Insts(revoked), m.Inst) {
			err = s.notTrue(ctx)
		}
		return err
	})
}

// Revoked returns the revoked instances, in the order of their removal.
func (s *store) Revoked(ctx context.Context) ([]member.Revoked, error) {
	var out []member.Revoked
	err := retry(ctx, "read the revoked instances", func(ctx context.Context) (err error) {
		out, err = s.revoked(ctx)
		return err
	})
	if err == nil {
		s.cut(out)
	}
	return out, err
}

func (s *store) revoked(ctx context.Context) ([]member.Revoked, error) {
	result, err := s.db.QueryContext(ctx, `SELECT revoked.inst, revoked.hw, revoked.name, revoked.address, revoked.first, revoked.epoch
		FROM meta LEFT JOIN revoked WHERE `+isTrue+` ORDER BY revoked.rowid`, s.args()...)
	if err != nil {
		return nil, err
	}
	defer result.Close() //nolint:errcheck // Err is asked below
	var out []member.Revoked
	found := false
	for result.Next() {
		found = true
		var inst, hw, name, address sql.NullString
		var first, epoch sql.NullInt64
		if err := result.Scan(&inst, &hw, &name, &address, &first, &epoch); err != nil {
			return nil, err
		}
		if !inst.Valid {
			continue
		}
		at, err := netip.ParseAddr(address.String)
		if err != nil {
			return nil, fmt.Errorf("address of the removed member %s: %w", name.String, err)
		}
		out = append(out, member.Revoked{Inst: inst.String, HW: hw.String, Name: name.String, Address: at, First: first.Int64 == 1, Epoch: uint64(epoch.Int64)})
	}
	if err := result.Err(); err != nil {
		return nil, err
	}
	if !found {
		return nil, s.notTrue(ctx)
	}
	return out, nil
}

// isRevoked is ErrRevoked for an instance that was removed.
func (s *store) isRevoked(ctx context.Context, inst string) error {
	revoked, err := s.revoked(ctx)
	if err != nil {
		return err
	}
	for _, r := range revoked {
		if r.Inst == inst {
			return fmt.Errorf("%w: %s, %s; switch the server off, or reinstall it to come back as a new instance", ErrRevoked, r.Name, r.Inst)
		}
	}
	return nil
}

// barred is the list with its file.
type barred struct {
	*revocation.List
	path string
	log  *slog.Logger

	mu    sync.Mutex
	known []member.Revoked // of the file and of all lists that were read
	dirty bool             // the file lacks some
}

// newBarred starts with what the file says; none is an empty list.
func newBarred(c Config) (*barred, error) {
	b := &barred{path: filepath.Join(filepath.Dir(c.Dir), RevokedFile), log: c.Log}
	data, err := os.ReadFile(b.path)
	if err == nil {
		b.known, err = revocation.Parse(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w (remove it: it is written anew from the directory)", b.path, err)
	}
	b.List = revocation.NewList(c.PeerInst, revocation.Insts(b.known)...)
	return b, nil
}

// learn cuts those that are new, and keeps them on disk.
func (b *barred) learn(list []member.Revoked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range list {
		if slices.ContainsFunc(b.known, func(k member.Revoked) bool { return k.Inst == r.Inst }) {
			continue
		}
		b.known, b.dirty = append(b.known, r), true
		b.log.Info("certificate revoked", "name", r.Name, "inst", r.Inst, "connections", b.Add(r.Inst))
	}
	if !b.dirty {
		return
	}
	data, err := revocation.Marshal(b.known)
	if err == nil {
		err = writeFile(b.path, data)
	}
	if err != nil {
		b.log.Warn("the list of revoked instances is not on disk; the agent of this server does not know it", "error", err)
		return
	}
	b.dirty = false
}

// missing are those that a list lacks.
func (b *barred) missing(list []member.Revoked) []member.Revoked {
	b.mu.Lock()
	defer b.mu.Unlock()
	insts := revocation.Insts(list)
	return slices.DeleteFunc(slices.Clone(b.known), func(r member.Revoked) bool { return slices.Contains(insts, r.Inst) })
}

// dialer is the dial function of the driver, whose connection to a leader that is
// revoked is cut. dqlite's own to its peers only ever send, and to members alone.
func (b *barred) dialer(config *tls.Config) client.DialFunc {
	return func(ctx context.Context, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		raw, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return tls.Client(raw, b.Client(config, raw)), nil
	}
}

// watchRevoked asks for the list until ctx ends. A database that was made anew
// after a loss is told what it forgot.
func (n *node) watchRevoked(ctx context.Context) {
	said := false
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, revokedPatience)
		list, err := n.store.Revoked(asking)
		cancel()
		for _, r := range n.barred.missing(list) {
			if err == nil {
				n.config.Log.InfoContext(ctx, "the directory forgot a removal and is told of it again", "name", r.Name, "inst", r.Inst)
				err = n.store.revoke(ctx, r)
			}
		}
		if err != nil && !said && ctx.Err() == nil {
			n.config.Log.WarnContext(ctx, "removals of members at other control planes are not learnt until the directory answers", "error", err)
		}
		said = err != nil
		pause(ctx, revokedPeriod)
	}
}
