package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/canonical/go-dqlite/client"
)

const (
	// roundTimeout bounds one attempt to find the leader through the peers.
	roundTimeout = 10 * time.Second
	// roundPause lies between two attempts.
	roundPause = time.Second
)

// prepareJoin makes the directory's files ready for a node that joins. It waits,
// for as long as ctx allows, for a leader whose database is the decree's; so a
// false directory is never joined. With fresh, what lies in Dir is thrown away,
// after the leader has removed the node that it was: dqlite refuses an address
// or an id that it has already, for ever (go-dqlite 1.22.0).
func prepareJoin(ctx context.Context, c Config, f found, fresh bool) error {
	peers := strings.Join(c.others(), ", ")
	for round := 0; ; round++ {
		err := tryPrepare(ctx, c, f, fresh)
		if ctx.Err() != nil {
			return fmt.Errorf("join the directory at %s: %w", peers, ctx.Err())
		}
		if err == nil || errors.Is(err, ErrFalse) || errors.Is(err, ErrRefused) {
			return err
		}
		if round == 0 || round%10 == 9 {
			c.say(ctx, fmt.Sprintf("waiting for the leader of the directory at %s; a majority of them must be up and know this server as a control plane: %v", peers, err))
		}
		pause(ctx, roundPause)
	}
}

// strangers returns the peers that run another directory than the decree's: such a
// one is never joined. One of an older generation ends when its agent reads the
// Lease.
func strangers(ctx context.Context, c Config) []string {
	var out []string
	for _, peer := range c.others() {
		if isOther(greet(ctx, peer, c.dialling())) {
			out = append(out, peer)
		}
	}
	return out
}

// greet makes a connection to a node and ends it.
func greet(ctx context.Context, address string, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	d := tls.Dialer{Config: config}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func tryPrepare(ctx context.Context, c Config, f found, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	strange := strangers(ctx, c)
	var err error
	if len(strange) < len(c.others()) {
		err = joinThrough(ctx, c, f, fresh)
	} else {
		err = errors.New("none of them runs it")
	}
	if err != nil && len(strange) > 0 {
		return fmt.Errorf("%w; a directory of another epoch, generation or cluster CA, which is not joined, runs at %s", err, strings.Join(strange, ", "))
	}
	return err
}

// joinThrough finds the leader among the peers and settles with it.
func joinThrough(ctx context.Context, c Config, f found, fresh bool) error {
	peers, err := addresses(ctx, c.others())
	if err != nil {
		return err
	}
	db, err := openDB(peers, dialer(c.dialling()), c.Log)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // only read from
	if err := verifyMeta(ctx, db, c.decree()); err != nil {
		return explain(err)
	}
	rows, err := (&store{db: db, want: c.decree()}).rows(ctx)
	if err != nil {
		return err
	}
	leader, err := client.FindLeader(ctx, peers, client.WithDialFunc(dialer(c.dialling())), client.WithLogFunc(logFunc(c.Log)))
	if err != nil {
		return fmt.Errorf("find the leader: %w", err)
	}
	defer leader.Close() //nolint:errcheck // nothing was written through it that is not confirmed
	nodes, err := leader.Cluster(ctx)
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	if err := settleFiles(ctx, c, f, fresh, leader, nodes); err != nil {
		return err
	}
	// Those who call this node must be let in before it can ask who they are.
	return writeAdmitted(filepath.Join(c.Dir, admittedFile), controlPlanes(rows))
}

// settleFiles compares what lies on the disk with what the leader knows of it.
func settleFiles(ctx context.Context, c Config, f found, fresh bool, leader *client.Client, nodes []client.NodeInfo) error {
	added := false
	for _, n := range nodes {
		mine := f.info != nil && n.ID == f.info.ID
		if mine && !fresh {
			added = true
			continue
		}
		if mine || n.Address == c.Address.String() {
			c.Log.InfoContext(ctx, "removing the node that this server was", "id", n.ID, "address", n.Address, "role", n.Role)
			if err := leader.Remove(ctx, n.ID); err != nil {
				return fmt.Errorf("remove node %d at %s, which this server was: %w", n.ID, n.Address, err)
			}
		}
	}
	switch {
	case fresh:
		return clearDir(c.Dir)
	case added && f.join:
		// Added before the crash: adding again would be refused for ever.
		if err := os.Remove(filepath.Join(c.Dir, joinFile)); err != nil {
			return fmt.Errorf("end the interrupted join: %w", err)
		}
		return syncDir(c.Dir)
	case !added && !f.join:
		return clearDir(c.Dir) // was added once, and removed since
	}
	return nil
}

// clearDir leaves an empty directory.
func clearDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("throw the directory's files away: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory's files: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
