package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// bindStatement remembers the first key of an instance and no other, and none of
// one that was removed.
const bindStatement = `
INSERT INTO enrolment (inst, hw, key, epoch)
SELECT ?4, ?5, ?6, meta.epoch FROM meta WHERE ` + isTrue + ` AND NOT EXISTS (SELECT 1 FROM revoked WHERE inst = ?4) ON CONFLICT DO NOTHING`

// BindKey binds an instance to the hash of its public key before a certificate
// is signed for it. Whoever has the user-data can sign itself an enrolment
// certificate in any instance's name; the key is what it cannot copy. A row is
// never changed, so the same call may be repeated after its answer was lost.
func (s *store) BindKey(ctx context.Context, inst, hw, keyHash string) error {
	if !validHex(inst, 32) || !validHex(hw, 32) || !validHash(keyHash) {
		return fmt.Errorf("%w: instance %q and hardware id %q must have 32 hex digits, and key %q must be sha256: and 64 hex digits",
			ErrInvalid, inst, hw, keyHash)
	}
	return retry(ctx, "bind the key of "+inst, func(ctx context.Context) error {
		n, err := s.write(ctx, bindStatement, inst, hw, keyHash)
		if err != nil || n == 1 {
			return err
		}
		if err := s.isRevoked(ctx, inst); err != nil {
			return err
		}
		var bound string
		err = s.db.QueryRowContext(ctx, `SELECT enrolment.key FROM enrolment, meta WHERE enrolment.inst = ?4 AND `+isTrue, s.args(inst)...).Scan(&bound)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return s.notTrue(ctx)
		case err == nil && bound != keyHash:
			return fmt.Errorf("%w: instance %s is bound to the key %s, asked for is %s", ErrKeyTaken, inst, bound, keyHash)
		}
		return err
	})
}
