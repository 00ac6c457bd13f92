package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Approve lets servers of this hardware have a row when the cluster has all that
// it expects. It may be repeated.
func (s *store) Approve(ctx context.Context, hw string) error {
	if !validHex(hw, 32) {
		return fmt.Errorf("%w: hardware id %q is not 32 hex digits", ErrInvalid, hw)
	}
	return retry(ctx, "approve the hardware "+hw, func(ctx context.Context) error {
		n, err := s.write(ctx, `INSERT INTO approval (hw, epoch) SELECT ?4, meta.epoch FROM meta WHERE `+isTrue+` ON CONFLICT DO NOTHING`, hw)
		if err != nil || n == 1 {
			return err
		}
		_, err = s.rows(ctx) // approved before, or the database is not the decree's
		return err
	})
}

// surplus says that a claim got no row because it would be of one server more
// than expected, or nil.
func surplus(rows []row, c Claim) error {
	var names, hardware []string
	first := false
	for _, r := range rows {
		first = first || r.first
		if !r.expected {
			continue
		}
		names = append(names, r.Name)
		if !slices.Contains(hardware, r.HW) {
			hardware = append(hardware, r.HW)
		}
	}
	full := len(hardware) >= c.Expect || !first && len(hardware) >= c.Expect-1
	if c.Expect == 0 || c.First || !full || slices.ContainsFunc(rows, func(r row) bool { return r.HW == c.HW }) {
		return nil
	}
	const told = 8 // names, in a sentence that a console shows
	if more := len(names) - told; more > 0 {
		names = append(names[:told:told], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: this cluster expects %d servers and has %d (%s); this one (%s, hardware %s) is one more: `bootstrap approve %s` on a control plane lets it in, or switch it off",
		ErrSurplus, c.Expect, len(hardware), strings.Join(names, ", "), c.Name, c.HW, c.HW)
}
