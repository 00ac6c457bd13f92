package directory

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/canonical/go-dqlite/client"

	"github.com/mustermetal/muster/pkg/member"
)

// removeTimeout bounds Remove: the leader may have to be elected anew, and the
// nodes of servers that are off are asked.
const removeTimeout = time.Minute

// replica is a node of the database, as Remove needs to know it.
type replica struct {
	id      uint64
	address string
	role    client.NodeRole
	leader  bool
	answers bool // its process spoke to us a moment ago
}

// replicas changes which nodes the database has.
type replicas interface {
	look(ctx context.Context) ([]replica, error)
	lead(ctx context.Context, id uint64) error // hands leadership over
	expel(ctx context.Context, id uint64) error
}

// Remove revokes a member and takes its node out of the database. First the row
// goes and the certificate, in one transaction, then the node: a crash between
// leaves a node that nobody lets in, and the same call again, by the former name or
// instance, takes it out. Without do it only looks.
func (s *store) Remove(ctx context.Context, who string, do bool) (member.Removal, error) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	removal, node, heir, err := s.planRemoval(ctx, who)
	if err != nil || !do {
		return removal, err
	}
	if node != nil && node.leader {
		// The rest would elect another once it is cut off; this takes 30 ms.
		if err := s.replicas.lead(ctx, heir); err != nil {
			return removal, fmt.Errorf("hand the directory's leadership over: %w: %w", ErrUnavailable, err)
		}
	}
	if err := s.revoke(ctx, removal.Member); err != nil {
		return removal, err
	}
	if _, err := s.Revoked(ctx); err != nil { // cuts its connections here; the others learn it soon
		return removal, err
	}
	if node == nil {
		return removal, nil
	}
	return removal, retry(ctx, "remove the node of "+removal.Member.Name, func(ctx context.Context) error {
		return s.expel(ctx, node.id)
	})
}

// expel removes a node, unless it is gone.
func (s *store) expel(ctx context.Context, id uint64) error {
	err := s.replicas.expel(ctx, id)
	if err == nil {
		return nil
	}
	nodes, looked := s.replicas.look(ctx)
	if looked == nil && !slices.ContainsFunc(nodes, func(r replica) bool { return r.id == id }) {
		return nil // the answer was lost
	}
	return errors.Join(sqldriver.ErrBadConn, err) // as after an election: try again
}

// planRemoval finds who is meant, its node, and who would lead instead of it.
func (s *store) planRemoval(ctx context.Context, who string) (removal member.Removal, node *replica, heir uint64, err error) {
	// The nodes are looked at first: if another instance comes to the address
	// meanwhile, its node has another id.
	nodes, err := s.replicas.look(ctx)
	if err != nil {
		return removal, nil, 0, fmt.Errorf("list the directory's nodes: %w: %w", ErrUnavailable, err)
	}
	err = retry(ctx, "find "+who, func(ctx context.Context) error {
		rows, err := s.rows(ctx)
		if err != nil {
			return err
		}
		revoked, err := s.revoked(ctx)
		if err != nil {
			return err
		}
		if removal, err = target(rows, revoked, who); err != nil {
			return err
		}
		if removal.Member.Inst == s.self {
			return fmt.Errorf("%w: %s is this server; remove it on another control plane", ErrMustStay, removal.Member.Name)
		}
		if node = nodeOf(nodes, rows, removal.Member); node == nil {
			return nil
		}
		removal.Node = node.role.String()
		heir, err = mayExpel(nodes, rows, *node, removal.Member.Name)
		return err
	})
	for _, r := range nodes {
		if r.role == client.Voter && (node == nil || r.id != node.id) {
			removal.Voters++
		}
	}
	return removal, node, heir, err
}

// target finds the member by name or instance, or the one that was removed.
func target(rows []row, revoked []member.Revoked, who string) (member.Removal, error) {
	for _, r := range rows {
		if r.Name == who || r.Inst == who {
			return member.Removal{Role: r.Role, Member: member.Revoked{
				Inst: r.Inst, HW: r.HW, Name: r.Name, Address: r.Address, First: r.first, Epoch: r.Epoch}}, nil
		}
	}
	for _, r := range slices.Backward(revoked) { // of several lives, the last
		if r.Name == who || r.Inst == who {
			return member.Removal{Member: r}, nil
		}
	}
	return member.Removal{}, fmt.Errorf("%w: nobody is or was called %q; bootstrap status names the members", ErrUnknownMember, who)
}

// nodeOf is the member's node of the database, or nil. An address may have come
// to another control plane since the member was removed: that one's node stays.
func nodeOf(nodes []replica, rows []row, m member.Revoked) *replica {
	for _, r := range rows {
		if r.Role == member.ControlPlane && r.Address == m.Address && r.Inst != m.Inst {
			return nil
		}
	}
	for _, n := range nodes {
		if at, err := addressOf(n.address); err == nil && at == m.Address {
			return &n
		}
	}
	return nil
}

// nameOf is what the member of a node is called; its address where nobody knows.
func nameOf(n replica, rows []row) string {
	for _, r := range rows {
		if at, err := addressOf(n.address); err == nil && at == r.Address {
			return r.Name
		}
	}
	return n.address
}

// mayExpel refuses what would leave the database without a majority of voters
// that answer, and names the voter that leads afterwards.
func mayExpel(nodes []replica, rows []row, gone replica, name string) (heir uint64, err error) {
	voters, answering := 0, 0
	var silent []string
	for _, n := range nodes {
		if n.role != client.Voter || n.id == gone.id {
			continue
		}
		voters++
		if n.answers {
			answering++
			heir = n.id
		} else {
			silent = append(silent, nameOf(n, rows))
		}
	}
	switch need := voters/2 + 1; {
	case gone.role != client.Voter:
		return heir, nil
	case voters == 0:
		return 0, fmt.Errorf("%w: %s is the only voter of the directory, the other nodes hold no data yet; with three control planes there are more voters", ErrMustStay, name)
	case answering < need:
		return 0, fmt.Errorf("%w: without %s the directory has %d voters, of which %d answer and %d are needed; start first: %s", ErrMustStay, name, voters, answering, need, strings.Join(silent, ", "))
	}
	return heir, nil
}
