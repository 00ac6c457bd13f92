package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

const (
	// writeSpec puts a revision in the place of the one that was expected; where
	// there is none, that is 0.
	writeSpec = `
INSERT INTO spec (id, revision, control_planes, text, epoch)
SELECT 1, ?4, ?5, ?6, meta.epoch FROM meta WHERE ` + isTrue + ` AND coalesce((SELECT revision FROM spec), 0) = ?7
ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, control_planes = excluded.control_planes, text = excluded.text`

	// restoreSpec puts a revision in the place of a lower one or of none.
	restoreSpec = `
INSERT INTO spec (id, revision, control_planes, text, epoch)
SELECT 1, ?4, ?5, ?6, meta.epoch FROM meta WHERE ` + isTrue + ` AND coalesce((SELECT revision FROM spec), -1) < ?4
ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, control_planes = excluded.control_planes, text = excluded.text`
)

// Spec returns the revision of the cluster's spec, nil when there is none yet. Its
// text is left out when the revision is known already.
func (s *store) Spec(ctx context.Context, known int64) (*member.Spec, error) {
	var spec *member.Spec
	err := retry(ctx, "read the cluster's spec", func(ctx context.Context) (err error) {
		spec, err = s.readSpec(ctx, known)
		return err
	})
	return spec, err
}

// readSpec also asks whether the database is the decree's.
func (s *store) readSpec(ctx context.Context, known int64) (*member.Spec, error) {
	var revision, planes sql.NullInt64
	var text sql.NullString
	err := s.db.QueryRowContext(ctx, `
		SELECT spec.revision, spec.control_planes, CASE WHEN spec.revision = ?4 THEN '' ELSE spec.text END
		FROM meta LEFT JOIN spec ON spec.epoch = meta.epoch WHERE `+isTrue, s.args(known)...).Scan(&revision, &planes, &text)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, s.notTrue(ctx)
	case err != nil || !revision.Valid:
		return nil, err
	}
	return &member.Spec{Revision: uint64(revision.Int64), ControlPlanes: int(planes.Int64), Text: text.String}, nil
}

// WriteSpec writes a revision that comes after the expected one. Somebody else's
// in between is ErrStale.
func (s *store) WriteSpec(ctx context.Context, spec member.Spec, expected uint64) error {
	if err := validSpec(spec); err != nil {
		return err
	}
	if spec.Revision <= expected {
		return fmt.Errorf("%w: revision %d of the spec does not come after %d", ErrInvalid, spec.Revision, expected)
	}
	return retry(ctx, "write the cluster's spec", func(ctx context.Context) error {
		n, err := s.write(ctx, writeSpec, int64(spec.Revision), int64(spec.ControlPlanes), spec.Text, int64(expected))
		if err != nil || n == 1 {
			return err
		}
		now, err := s.readSpec(ctx, -1)
		switch {
		case err != nil:
			return err
		case now != nil && *now == spec:
			return nil // the answer was lost
		case now == nil:
			return fmt.Errorf("%w: revision %d was expected, there is none", ErrStale, expected)
		}
		return fmt.Errorf("%w: revision %d was expected, the cluster has %d by now", ErrStale, expected, now.Revision)
	})
}

// RestoreSpec brings a revision back that was kept elsewhere, unless there is the
// same or a higher one.
func (s *store) RestoreSpec(ctx context.Context, spec member.Spec) error {
	if err := validSpec(spec); err != nil {
		return err
	}
	return retry(ctx, "restore the cluster's spec", func(ctx context.Context) error {
		n, err := s.write(ctx, restoreSpec, int64(spec.Revision), int64(spec.ControlPlanes), spec.Text)
		if err != nil || n == 1 {
			return err
		}
		_, err = s.readSpec(ctx, -1) // as high, or the database is not the decree's
		return err
	})
}

func validSpec(spec member.Spec) error {
	if spec.ControlPlanes < 1 || len(spec.Text) == 0 || len(spec.Text) > cluster.SpecMax {
		return fmt.Errorf("%w: a spec of %d bytes (1 to %d) for %d control planes (at least 1)", ErrInvalid, len(spec.Text), cluster.SpecMax, spec.ControlPlanes)
	}
	return nil
}
