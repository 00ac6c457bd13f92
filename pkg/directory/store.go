package directory

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// Claim asks for a row, and with it for a role.
type Claim struct {
	Inst     string     `json:"inst"` // 32 hex digits
	HW       string     `json:"hw"`   // 32 hex digits
	Name     string     `json:"name"` // Kubernetes node name, unique
	Address  netip.Addr `json:"address"`
	Eligible bool       `json:"eligible"` // may become a control plane
	// First is the holder of GO: it is a control plane and has the first place,
	// which no other can take even when it asks earlier.
	First bool `json:"first"`
	// ControlPlanes is K of the cluster file; the spec's counts as soon as it is here.
	ControlPlanes int `json:"controlPlanes"`
	// Expect is N of the cluster file: with rows of so many servers, one of other
	// hardware needs an approval. 0 is no limit, for servers that join a formed
	// cluster.
	Expect int `json:"expect"`
}

func (c Claim) validate() error {
	var wrong []string
	if !validHex(c.Inst, 32) {
		wrong = append(wrong, fmt.Sprintf("instance %q is not 32 hex digits", c.Inst))
	}
	if !validHex(c.HW, 32) {
		wrong = append(wrong, fmt.Sprintf("hardware id %q is not 32 hex digits", c.HW))
	}
	if c.Name == "" || len(c.Name) > 253 {
		wrong = append(wrong, fmt.Sprintf("node name %q has %d characters, allowed are 1 to 253", c.Name, len(c.Name)))
	}
	if !c.Address.IsValid() || c.Address.IsUnspecified() {
		wrong = append(wrong, fmt.Sprintf("address %q is not an address of a server", c.Address))
	}
	if c.ControlPlanes < 1 {
		wrong = append(wrong, fmt.Sprintf("%d control planes, at least 1 is needed", c.ControlPlanes))
	}
	if c.Expect < 0 {
		wrong = append(wrong, fmt.Sprintf("%d expected servers, at least 1 is needed, or 0 for no limit", c.Expect))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", ErrInvalid, strings.Join(wrong, "; "))
	}
	return nil
}

// Node is one node of the database itself.
type Node struct {
	Address string `json:"address"`
	Role    string `json:"role"` // voter, stand-by or spare; a spare holds no data
	Leader  bool   `json:"leader"`
}

// store is the operations on the database. Each is one conditional write that
// also checks, in the same statement, that the database is the decree's: a node
// that was wiped can for a moment answer for an empty one.
type store struct {
	db    *sql.DB
	want  decree
	nodes func(context.Context) ([]Node, error)
	learn func([]row) // told all rows whenever they were read

	self     string                 // this instance
	replicas replicas               // the nodes of the database, for Remove
	cut      func([]member.Revoked) // told the revoked instances whenever they were read

	mu    sync.Mutex
	watch watch            // of the join lock's beat
	now   func() time.Time // with a monotonic reading
}

// isTrue holds of a row of meta that is the decree's; its parameters are ?1 to
// ?3: epoch, generation, CA hash.
const isTrue = `meta.id = 1 AND meta.epoch = ?1 AND meta.generation = ?2 AND meta.ca_hash = ?3`

func (s *store) args(more ...any) []any {
	return append([]any{int64(s.want.epoch), int64(s.want.generation), s.want.caHash}, more...)
}

// kept is 1 while the holder of GO has not come: its place is counted, so that it
// finds it free whenever it comes. It is not kept after it was removed, nor in a
// later generation, which knows no GO.
const kept = `(?2 = 0 AND NOT EXISTS (SELECT 1 FROM member WHERE first = 1) AND NOT EXISTS (SELECT 1 FROM revoked WHERE first = 1))`

// places is K: that of the cluster's spec, and until it is here that of the claim.
const places = `coalesce((SELECT control_planes FROM spec), ?10)`

// claimStatement inserts a row unless the instance, the name or the first place
// is there already, the instance was removed, or the server is one too many.
// Servers that were approved or joined a formed cluster are none of the expected
// ones: they take no place from a founding server that comes late.
const claimStatement = `
INSERT INTO member (inst, hw, name, address, role, first, phase, detail, epoch, expected)
SELECT ?4, ?5, ?6, ?7,
       CASE WHEN ?8 = 1 THEN 'control-plane'
            WHEN ?9 = 1 AND (SELECT count(*) FROM member WHERE role = 'control-plane') + ` + kept + ` < ` + places + `
            THEN 'control-plane' ELSE 'worker' END,
       ?8, ?11, '', meta.epoch, NOT (?12 = 0 OR EXISTS (SELECT 1 FROM approval WHERE hw = ?5))
FROM meta WHERE ` + isTrue + ` AND NOT EXISTS (SELECT 1 FROM revoked WHERE inst = ?4)
AND (?8 = 1 OR ?12 = 0 OR (SELECT count(DISTINCT hw) FROM member WHERE expected = 1) + ` + kept + ` < ?12
     OR EXISTS (SELECT 1 FROM member WHERE hw = ?5) OR EXISTS (SELECT 1 FROM approval WHERE hw = ?5))
ON CONFLICT DO NOTHING`

// ClaimRole gives the instance a row and returns its role, or the role that it
// has. At most K instances get member.ControlPlane.
func (s *store) ClaimRole(ctx context.Context, c Claim) (member.Role, error) {
	if err := c.validate(); err != nil {
		return member.NoRole, err
	}
	var role member.Role
	err := retry(ctx, "claim a role for "+c.Name, func(ctx context.Context) error {
		// A worker's row gives nothing that a claim does not give anybody; that of a
		// control plane is for Kubernetes to say.
		known := member.Record{Inst: c.Inst, HW: c.HW, Name: c.Name, Address: c.Address, Role: member.Worker}
		if err := s.adopt(ctx, s.db, known); err != nil {
			return err
		}
		if _, err := s.db.ExecContext(ctx, claimStatement, s.args(c.Inst, c.HW, c.Name, c.Address.String(),
			number(c.First), number(c.Eligible), int64(c.ControlPlanes), string(member.Enrolling), int64(c.Expect))...); err != nil {
			return err
		}
		rows, err := s.rows(ctx)
		if err != nil {
			return err
		}
		s.learn(rows)
		if role, err = claimed(rows, c); errors.Is(err, ErrFalse) || errors.Is(err, ErrSurplus) {
			if revoked := s.isRevoked(ctx, c.Inst); revoked != nil {
				err = revoked
			}
		}
		return err
	})
	return role, err
}

// claimed finds the answer to a claim in the rows after the insertion.
func claimed(rows []row, c Claim) (member.Role, error) {
	for _, r := range rows {
		if r.Inst == c.Inst && r.Name != c.Name {
			return member.NoRole, fmt.Errorf("%w: instance %s is registered as %q and now calls itself %q; give the server its former hostname",
				ErrInvalid, c.Inst, r.Name, c.Name)
		}
		if r.Inst == c.Inst && c.First && !r.first {
			return member.NoRole, fmt.Errorf("%w: instance %s is registered without the first place", ErrFirstTaken, c.Inst)
		}
		if r.Inst == c.Inst {
			return r.Role, nil
		}
	}
	for _, r := range rows {
		if r.Name == c.Name {
			hint := "two servers have the same hostname: change one"
			if r.HW == c.HW {
				hint = "the same hardware was installed anew and the row of its former life is kept: `bootstrap replace` on a control plane gives it that place, or give the server another hostname"
			}
			return member.NoRole, fmt.Errorf("%w: %q belongs to instance %s at %s; %s", ErrNameTaken, c.Name, r.Inst, r.Address, hint)
		}
	}
	for _, r := range rows {
		if r.first && c.First {
			return member.NoRole, fmt.Errorf("%w: it belongs to %q, instance %s", ErrFirstTaken, r.Name, r.Inst)
		}
	}
	if err := surplus(rows, c); err != nil {
		return member.NoRole, err
	}
	return member.NoRole, fmt.Errorf("%w: no row was written for %q", ErrFalse, c.Name)
}

// Members returns all rows, control planes first, each group by name.
func (s *store) Members(ctx context.Context) ([]member.Member, error) {
	out := []member.Member{}
	err := retry(ctx, "read the members", func(ctx context.Context) error {
		rows, err := s.rows(ctx)
		if err == nil {
			s.learn(rows)
		}
		out = out[:0]
		for _, r := range rows {
			out = append(out, r.Member)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// row is a row of member.
type row struct {
	member.Member
	first, expected bool
}

// rows reads all members; no row of meta that is true is ErrFalse.
func (s *store) rows(ctx context.Context) ([]row, error) {
	result, err := s.db.QueryContext(ctx, `
		SELECT member.inst, member.hw, member.name, member.address, member.role, member.first, member.phase, member.detail, member.epoch, member.expected
		FROM meta LEFT JOIN member ON member.epoch = meta.epoch
		WHERE `+isTrue+` ORDER BY member.role, member.name`, s.args()...)
	if err != nil {
		return nil, err
	}
	defer result.Close() //nolint:errcheck // Err is asked below
	var out []row
	found := false
	for result.Next() {
		found = true
		var inst, hw, name, address, role, phase, detail sql.NullString
		var first, epoch, expected sql.NullInt64
		if err := result.Scan(&inst, &hw, &name, &address, &role, &first, &phase, &detail, &epoch, &expected); err != nil {
			return nil, err
		}
		if !inst.Valid {
			continue // the decree's directory, and nobody in it yet
		}
		at, err := netip.ParseAddr(address.String)
		if err != nil {
			return nil, fmt.Errorf("address of member %s: %w", name.String, err)
		}
		out = append(out, row{first: first.Int64 == 1, expected: expected.Int64 == 1, Member: member.Member{
			Inst: inst.String, HW: hw.String, Name: name.String, Address: at, Role: member.Role(role.String),
			Phase: member.Phase(phase.String), Detail: detail.String, Epoch: uint64(epoch.Int64),
		}})
	}
	if err := result.Err(); err != nil {
		return nil, err
	}
	if !found {
		return nil, s.notTrue(ctx)
	}
	return out, nil
}

// notTrue says what the database that answers says of itself.
func (s *store) notTrue(ctx context.Context) error {
	if err := verifyMeta(ctx, s.db, s.want); err != nil {
		return err
	}
	// It was another a moment ago: a node that was wiped answered. Ask again.
	return errors.Join(sqldriver.ErrBadConn, ErrFalse)
}

// maxDetail bounds what a server may write into its row, in bytes.
const maxDetail = 1024

// SetPhase writes how far an instance is. detail is a sentence for people, at
// most 1024 bytes, and no secret.
func (s *store) SetPhase(ctx context.Context, inst string, phase member.Phase, detail string) error {
	if phase == "" || len(phase) > 64 || len(detail) > maxDetail {
		return fmt.Errorf("%w: phase %q with a detail of %d bytes; a phase is needed and a detail has at most %d bytes",
			ErrInvalid, phase, len(detail), maxDetail)
	}
	return retry(ctx, "write the phase of "+inst, func(ctx context.Context) error {
		n, err := s.write(ctx, `UPDATE member SET phase = ?5, detail = ?6
			WHERE inst = ?4 AND EXISTS (SELECT 1 FROM meta WHERE `+isTrue+`)`, inst, string(phase), detail)
		if err != nil || n == 1 {
			return err
		}
		_, err = s.find(ctx, inst)
		return err
	})
}

// Nodes returns the nodes of the database, by address.
func (s *store) Nodes(ctx context.Context) ([]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the directory's nodes: %w: %w", ErrUnavailable, err)
	}
	return nodes, nil
}

// find returns the row of an instance, or ErrUnknownMember.
func (s *store) find(ctx context.Context, inst string) (row, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return row{}, err
	}
	for _, r := range rows {
		if r.Inst == inst {
			return r, nil
		}
	}
	if err := s.isRevoked(ctx, inst); err != nil {
		return row{}, err
	}
	return row{}, fmt.Errorf("%w: %s has no row; it must claim a role first", ErrUnknownMember, inst)
}

// write executes a statement whose first three parameters are isTrue's, and
// returns how many rows it changed.
func (s *store) write(ctx context.Context, statement string, args ...any) (int64, error) {
	result, err := s.db.ExecContext(ctx, statement, s.args(args...)...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
