package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/canonical/go-dqlite/app"
	"github.com/canonical/go-dqlite/client"
	"golang.org/x/sys/unix"
)

// Run runs this server's node of the directory and serves Socket until ctx ends.
// Where Dir holds no database it makes one, with the Right, or joins through the
// peers; a join that was interrupted or a node that was wiped is put right first.
// It waits for a leader for as long as ctx allows and says so through Status.
// An error that wraps ErrRefused or ErrFalse cannot be helped by a restart.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	unlock, err := lockFile(c.Dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err := prepare(ctx, c); err != nil {
		return err
	}
	n, err := start(ctx, c)
	if err != nil {
		return err
	}
	if err := dropOlder(c); err != nil {
		c.Log.WarnContext(ctx, "older generations of the directory stay on the disk", "error", err)
	}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { n.watchRevoked(watching) })
	err = n.serve(ctx)
	stop()
	watch.Wait()
	n.handOver(context.WithoutCancel(ctx))
	return errors.Join(err, n.close())
}

// prepare brings the files to a state in which a node can start.
func prepare(ctx context.Context, c Config) error {
	f, err := inspect(c.Dir)
	if err != nil {
		return err
	}
	what, why := decide(f, c)
	c.Log.InfoContext(ctx, "starting the directory", "step", string(what), "why", why, "dir", c.Dir, "address", c.Address.String())
	switch what {
	case refuseIt:
		return fmt.Errorf("%w: %s", ErrRefused, why)
	case publishIt:
		return publish(c.Dir)
	case makeIt:
		c.say(ctx, "making the directory: "+why)
		return Bootstrap(ctx, *c.Right, c)
	case joinIt:
		c.say(ctx, "joining the directory: "+why)
		return prepareJoin(ctx, c, f, true)
	case resumeIt:
		c.say(ctx, "resuming the join of the directory: "+why)
		return prepareJoin(ctx, c, f, false)
	}
	return nil
}

// node is a started node that is ready.
type node struct {
	config Config
	admit  *admission
	app    *app.App
	db     *sql.DB
	store  *store
	barred *barred
}

// start starts dqlite and returns when the node is a member of the decree's
// directory.
func start(ctx context.Context, c Config) (*node, error) {
	if err := countStart(c.Dir); err != nil {
		return nil, err
	}
	// Always with a cluster: without, go-dqlite makes a new database whenever it
	// finds no files. A first node that is complete does not look at it.
	through := c.others()
	if len(through) == 0 {
		through = []string{c.Address.String()}
	}
	admit, err := newAdmission(c)
	if err != nil {
		return nil, err
	}
	barred, err := newBarred(c)
	if err != nil {
		return nil, err
	}
	c.Dial = barred.Client(c.Dial, nil)
	a, err := app.New(c.Dir, app.WithAddress(c.Address.String()), app.WithCluster(through), app.WithTLS(barred.Guard(admit.guard(c.listening())), c.dialling()),
		app.WithVoters(3), app.WithNetworkLatency(networkLatency), app.WithSnapshotParams(snapshots()),
		app.WithRolesAdjustmentFrequency(rolesPeriod), app.WithLogFunc(logFunc(c.Log)))
	if err != nil {
		return nil, fmt.Errorf("start the directory's node in %s: %w", c.Dir, err)
	}
	n := &node{config: c, admit: admit, app: a, barred: barred}
	if err := n.settle(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// settle waits until the node is ready, checks that it is a member and that the
// database is the decree's, and writes that the start was a good one.
func (n *node) settle(ctx context.Context) error {
	c := n.config
	if err := n.awaitReady(ctx); err != nil {
		return err
	}
	nodes := nodesFile(filepath.Join(c.Dir, nodesYAML))
	var err error
	if n.db, err = openDB(nodes, n.barred.dialer(c.dialling()), c.Log); err != nil {
		return err
	}
	n.store = &store{db: n.db, want: c.decree(), nodes: n.nodes, learn: n.admit.learn, now: time.Now,
		self: c.Inst, replicas: n, cut: n.barred.learn}
	if err := retry(ctx, "check the directory", func(ctx context.Context) error { return verifyMeta(ctx, n.db, c.decree()) }); err != nil {
		return err
	}
	if _, err := n.store.Members(ctx); err != nil { // and learn who may connect
		return err
	}
	n.admit.open(ctx, n.store)
	members, err := n.nodes(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(members, func(m Node) bool { return m.Address == c.Address.String() }) {
		return n.expelled()
	}
	return errors.Join(writeFormed(c.Dir, c.decree()), n.survived())
}

// survived ends the count of failed starts: damaged files kill the process as it
// opens them, and one that waits for a leader has opened them.
func (n *node) survived() error {
	if err := os.Remove(filepath.Join(n.config.Dir, startsFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end the count of starts: %w", err)
	}
	return nil
}

// expelled makes the next start join anew: the members removed this node while
// it was away.
func (n *node) expelled() error {
	if err := os.Remove(filepath.Join(n.config.Dir, formedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the former membership: %w", err)
	}
	return fmt.Errorf("the members removed the node %d at %s from the directory while it was away; the next start joins anew", n.app.ID(), n.config.Address)
}

func (n *node) awaitReady(ctx context.Context) error {
	const first, later = 2 * time.Second, 10 * time.Second
	began := time.Now()
	for patience := first; ; patience = later {
		wait, cancel := context.WithTimeout(ctx, patience)
		err := n.app.Ready(wait)
		cancel()
		if err == nil && ctx.Err() == nil {
			return nil
		}
		if err := n.survived(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.config.say(ctx, fmt.Sprintf("waiting since %s for a leader of the directory; a majority of the control planes that hold it must be up (peers: %s)",
			time.Since(began).Round(time.Second), strings.Join(n.config.others(), ", ")))
	}
}

// nodes asks the leader for the nodes, in the order of their addresses.
func (n *node) nodes(ctx context.Context) ([]Node, error) {
	store := nodesFile(filepath.Join(n.config.Dir, nodesYAML))
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	cli, err := client.FindLeader(ctx, store, client.WithDialFunc(dialer(n.config.dialling())), client.WithLogFunc(logFunc(n.config.Log)))
	if err != nil {
		return nil, fmt.Errorf("find the directory's leader: %w", err)
	}
	defer cli.Close() //nolint:errcheck // only read from
	leader, err := cli.Leader(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask who leads the directory: %w", err)
	}
	list, err := cli.Cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the directory's nodes: %w", err)
	}
	out := make([]Node, 0, len(list))
	for _, m := range list {
		out = append(out, Node{Address: m.Address, Role: m.Role.String(), Leader: m.ID == leader.ID})
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(a.Address, b.Address) })
	return out, nil
}

// handOver gives leadership to another voter before this one stops, so that the
// others need not wait for an election. It takes 30 ms, and when all
// servers stop at once nobody takes it over: half a second, no error.
func (n *node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	cli, err := n.app.Client(ctx)
	if err != nil {
		return
	}
	defer cli.Close() //nolint:errcheck // the node stops anyway
	leader, err := cli.Leader(ctx)
	if err != nil || leader.ID != n.app.ID() {
		return
	}
	list, err := cli.Cluster(ctx)
	if err != nil {
		return
	}
	for _, m := range list {
		if m.ID == n.app.ID() || m.Role != client.Voter {
			continue
		}
		if err := cli.Transfer(ctx, m.ID); err == nil {
			n.config.Log.Info("handed the directory's leadership over", "to", m.Address)
			return
		}
	}
}

func (n *node) close() error {
	var err error
	if n.db != nil {
		err = n.db.Close()
	}
	return errors.Join(err, n.app.Close())
}

// countStart counts this start until it is known to be good.
func countStart(dir string) error {
	f, err := inspect(dir)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, startsFile), []byte(strconv.Itoa(f.starts+1)+"\n"))
}

// lockFile keeps a second process away from the same files.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // nothing was written
		return nil, fmt.Errorf("lock %s: %w; another process runs the directory on this server", path, err)
	}
	return func() { f.Close() }, nil //nolint:errcheck // closing unlocks
}
