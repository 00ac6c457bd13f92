// Package directory keeps the cluster's members, their roles, their phases and
// the order of joins in a small replicated database: dqlite, on the control
// planes only. It runs in a process of its own (muster-directory.service),
// because a damaged segment file kills the process that opens it.
//
// The directory decides nothing about who may initialise a cluster: that is the
// fence (package election). It is never the only copy of anything, and one
// whose CA hash differs from the decree's is false. Only Bootstrap makes a new
// one, and it asks for a Right.
//
// The package links against dqlite 1.18 or later, statically; images/sysroot.sh
// makes the libraries and prints the environment that go build and go test need.
//
// Floor 2.
package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// Errors that callers tell apart with errors.Is. Client returns the same ones as
// the server.
var (
	// ErrRefused: this server may not run the directory as it was told to; a
	// restart cannot help.
	ErrRefused = errors.New("the directory may not start")
	// ErrFalse: the database that answers belongs to another cluster CA or epoch
	// than the decree names.
	ErrFalse = errors.New("the directory is not the one of the decree")
	// ErrUnavailable: no leader of the directory answered in time. A retry makes
	// sense.
	ErrUnavailable = errors.New("the directory does not answer")
	// ErrNameTaken: another instance has a row with this node name.
	ErrNameTaken = errors.New("the node name is taken")
	// ErrFirstTaken: another instance has the first control plane's place.
	ErrFirstTaken = errors.New("the first place is taken")
	// ErrUnknownMember: the instance has no row; it must claim a role first.
	ErrUnknownMember = errors.New("the instance is not a member")
	// ErrNotControlPlane: only control planes take turns to join.
	ErrNotControlPlane = errors.New("the instance is not a control plane")
	// ErrLockLost: somebody else holds the join lock, or its token moved on.
	ErrLockLost = errors.New("the join lock is lost")
	// ErrKeyTaken: the instance is bound to another key.
	ErrKeyTaken = errors.New("the instance enrolled with another key")
	// ErrRevoked: the instance was removed from the cluster, for ever.
	ErrRevoked = errors.New("the instance was removed from this cluster")
	// ErrSurplus: the cluster has all the servers that it expects, and nobody
	// approved one more of this hardware.
	ErrSurplus = errors.New("one server more than expected")
	// ErrMustStay: the member must not be removed as things stand.
	ErrMustStay = errors.New("the member must stay")
	// ErrStale: the spec has another revision than was expected.
	ErrStale = errors.New("somebody else changed the spec meanwhile")
	// ErrInvalid: the request itself is wrong.
	ErrInvalid = errors.New("the request is invalid")
)

// Config is what Run needs.
type Config struct {
	// Dir is the database's directory, one for each epoch and generation:
	// DataDir names it. Its parent must exist.
	Dir string
	// Address is where the other control planes reach this node for ever; a node
	// that moves joins anew.
	Address netip.AddrPort
	// Listen authenticates connections from other control planes: ClientCAs must
	// be set, since go-dqlite takes the side of the server only then. Dial is for
	// connections to them: ClientCAs must not be set, and ServerName must be the
	// name that all leaves carry.
	Listen, Dial *tls.Config
	// Inst is this instance. PeerInst returns the instance that a certificate of
	// the other side names; only instances with a control plane's row, and Inst
	// itself, may connect.
	Inst     string
	PeerInst func(tls.ConnectionState) (string, error)
	// Right permits Bootstrap when Dir holds no database; nil everywhere but on
	// the server that holds GO, or the Lease of a generation that is not made yet.
	Right *Right
	// Rows are what a new generation begins with.
	Rows []member.Record
	// Peers are nodes to join through: the addresses of other control planes,
	// which may include this one. A database that is complete does not need them.
	Peers []netip.AddrPort
	// Epoch, Generation and CAHash come from the decree; a database that says
	// otherwise is false.
	Epoch, Generation uint64
	CAHash            string
	// Socket is the path of the unix socket for the agent of this server; made
	// with mode 0600 once the database is ready.
	Socket string
	Log    *slog.Logger
	// Status, if set, is told in a sentence what Run waits for.
	Status func(string)
	// Ready, if set, is called once, when Socket serves.
	Ready func()
}

// DataDir returns the directory of one epoch and generation below root
// (layout.Directory).
func DataDir(root string, epoch, generation uint64) string {
	return filepath.Join(root, fmt.Sprintf("e%d-g%d", epoch, generation))
}

const (
	// database is the name of the one database in dqlite.
	database = "directory"
	// networkLatency is what dqlite derives its timeouts and its heartbeat from: a
	// leader is given up after about fifteen times as much. Nothing in the directory
	// is worth more than seconds, and the heartbeat costs: at 50 ms it took the
	// leader's idle process 0.7 % of a core.
	networkLatency = 150 * time.Millisecond
	// A few hundred rows: keep little log in memory and on disk.
	snapshotThreshold, snapshotTrailing = 256, 2048
	// rolesPeriod is how often the leader of the database replaces a voter that
	// is away by a spare that is there.
	rolesPeriod = 10 * time.Second
)

func (c Config) validate() error {
	var wrong []string
	check := func(ok bool, text string) {
		if !ok {
			wrong = append(wrong, text)
		}
	}
	check(filepath.IsAbs(c.Dir), fmt.Sprintf("directory %q is not an absolute path", c.Dir))
	check(c.Address.IsValid() && !c.Address.Addr().IsUnspecified() && c.Address.Port() != 0,
		fmt.Sprintf("address %q is not a private address with a port", c.Address))
	check(validHash(c.CAHash), fmt.Sprintf("CA hash %q is not sha256: and 64 hex digits", c.CAHash))
	check(asksForCertificates(c.Listen),
		"the listening TLS configuration does not ask for client certificates")
	check(c.Dial != nil && c.Dial.ClientCAs == nil, "the dialling TLS configuration is missing or has client CAs")
	check(validHex(c.Inst, 32) && c.PeerInst != nil, fmt.Sprintf("instance %q is not 32 hex digits, or nobody reads the peers'", c.Inst))
	check(c.Socket != "", "the socket's path is empty")
	check(c.Log != nil, "the logger is missing")
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", ErrRefused, strings.Join(wrong, "; "))
	}
	return nil
}

// asksForCertificates says whether a listening configuration lets nobody in
// without a certificate that it checks, by its pool or by a callback.
func asksForCertificates(t *tls.Config) bool {
	if t == nil || t.ClientCAs == nil {
		return false
	}
	return t.ClientAuth == tls.RequireAndVerifyClientCert ||
		t.ClientAuth == tls.RequireAnyClientCert && t.VerifyConnection != nil
}

// others returns the peers without this node, as dqlite writes addresses.
func (c Config) others() []string {
	var out []string
	for _, p := range c.Peers {
		if p != c.Address {
			out = append(out, p.String())
		}
	}
	return out
}

func (c Config) say(ctx context.Context, text string) {
	c.Log.InfoContext(ctx, text)
	if c.Status != nil {
		c.Status(text)
	}
}

// validHash says whether s is sha256: and 64 lower-case hex digits, as kubeadm
// writes CA hashes.
func validHash(s string) bool {
	digits, ok := strings.CutPrefix(s, "sha256:")
	return ok && validHex(digits, 64)
}

// validHex says whether s is exactly n lower-case hex digits.
func validHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}
