package directory

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/mustermetal/muster/pkg/member"
)

// Records returns what must be kept elsewhere to make the directory again: all
// members with their keys, in the order of Members, then those that were removed.
func (s *store) Records(ctx context.Context) ([]member.Record, error) {
	out := []member.Record{}
	err := retry(ctx, "read the members' records", func(ctx context.Context) error {
		rows, err := s.rows(ctx)
		if err != nil {
			return err
		}
		keys, err := s.keys(ctx)
		if err != nil {
			return err
		}
		revoked, err := s.revoked(ctx)
		if err != nil {
			return err
		}
		out = out[:0]
		for _, r := range rows {
			out = append(out, member.Record{
				Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, Role: r.Role, First: r.first, Key: keys[r.Inst], Extra: !r.expected,
			})
		}
		for _, r := range revoked {
			out = append(out, member.Record{Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, First: r.First, Removed: true})
		}
		return nil
	})
	return out, err
}

// keys returns the key of each instance that enrolled.
func (s *store) keys(ctx context.Context) (map[string]string, error) {
	result, err := s.db.QueryContext(ctx, `SELECT enrolment.inst, enrolment.key FROM enrolment, meta WHERE `+isTrue, s.args()...)
	if err != nil {
		return nil, err
	}
	defer result.Close() //nolint:errcheck // Err is asked below
	keys := map[string]string{}
	for result.Next() {
		var inst, key string
		if err := result.Scan(&inst, &key); err != nil {
			return nil, err
		}
		keys[inst] = key
	}
	return keys, result.Err()
}

// Restore gives rows to members that have none, as they were known elsewhere. It
// changes no row, but one of a node whose instance nobody knew, and brings nobody
// back who was removed.
func (s *store) Restore(ctx context.Context, records []member.Record) error {
	for _, r := range records {
		if err := validRecord(r); err != nil {
			return err
		}
	}
	return retry(ctx, "restore members", func(ctx context.Context) error {
		for _, r := range records {
			r.First = r.First && r.Removed // the first place was given away with the first rows
			if err := s.insert(ctx, s.db, r); err != nil {
				return err
			}
		}
		rows, err := s.rows(ctx)
		if err == nil {
			s.learn(rows)
		}
		return err
	})
}

// validRecord says what a record lacks.
func validRecord(r member.Record) error {
	claim := Claim{Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, ControlPlanes: 1}
	switch err := claim.validate(); {
	case err != nil:
		return err
	case r.Removed:
		return nil
	case r.Role != member.ControlPlane && r.Role != member.Worker:
		return fmt.Errorf("%w: role %q of %s is none", ErrInvalid, r.Role, r.Name)
	case r.Key != "" && !validHash(r.Key):
		return fmt.Errorf("%w: key %q of %s is not sha256: and 64 hex digits", ErrInvalid, r.Key, r.Name)
	}
	return nil
}

// execer is a database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

const (
	adoptStatement = `
UPDATE member SET inst = ?4, hw = ?5 WHERE name = ?6 AND role = ?7 AND address = ?8 AND inst = ?9
AND NOT EXISTS (SELECT 1 FROM member AS other WHERE other.inst = ?4) AND NOT EXISTS (SELECT 1 FROM revoked WHERE revoked.inst = ?4)
AND EXISTS (SELECT 1 FROM meta WHERE ` + isTrue + `)`

	recordStatement = `
INSERT INTO member (inst, hw, name, address, role, first, phase, detail, epoch, expected)
SELECT ?4, ?5, ?6, ?7, ?8, ?9, ?10, '', meta.epoch, ?11 FROM meta WHERE ` + isTrue + `
AND NOT EXISTS (SELECT 1 FROM revoked WHERE inst = ?4) ON CONFLICT DO NOTHING`

	removedStatement = `
INSERT INTO revoked (inst, hw, name, address, first, epoch)
SELECT ?4, ?5, ?6, ?7, ?8, meta.epoch FROM meta WHERE ` + isTrue + ` ON CONFLICT DO NOTHING`

	dropStatement = `DELETE FROM member WHERE inst = ?4 AND EXISTS (SELECT 1 FROM meta WHERE ` + isTrue + `)`
)

// insert writes one record, if neither instance nor name have a row.
func (s *store) insert(ctx context.Context, to execer, r member.Record) error {
	if r.Removed {
		if _, err := to.ExecContext(ctx, removedStatement, s.args(r.Inst, r.HW, r.Name, r.Address.String(), number(r.First))...); err != nil {
			return err
		}
		_, err := to.ExecContext(ctx, dropStatement, s.args(r.Inst)...)
		return err
	}
	if err := s.adopt(ctx, to, r); err != nil {
		return err
	}
	phase := r.Phase
	if phase == "" {
		phase = member.Enrolling
	}
	if _, err := to.ExecContext(ctx, recordStatement, s.args(r.Inst, r.HW, r.Name, r.Address.String(), string(r.Role), number(r.First), string(phase), number(!r.Extra))...); err != nil {
		return err
	}
	if r.Key == "" {
		return nil
	}
	_, err := to.ExecContext(ctx, bindStatement, s.args(r.Inst, r.HW, r.Key)...)
	return err
}

// adopt gives the row of a node whose instance nobody knew to the instance that
// has its name, its role and its address.
func (s *store) adopt(ctx context.Context, to execer, r member.Record) error {
	_, err := to.ExecContext(ctx, adoptStatement, s.args(r.Inst, r.HW, r.Name, string(r.Role), r.Address.String(), member.UnknownInst(r.Name))...)
	return err
}
