package directory

import (
	"context"
	"crypto/tls"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/canonical/go-dqlite/client"
	"github.com/canonical/go-dqlite/driver"
)

const (
	// dialTimeout bounds one TCP connection to a node. go-dqlite waits for the
	// slowest dial even when it has found the leader, so a server that is off
	// costs this much at each new connection.
	dialTimeout = time.Second
	// attemptTimeout bounds handshake and first answer of one node.
	attemptTimeout = 3 * time.Second
	// operationTimeout bounds one operation, with all its retries.
	operationTimeout = 15 * time.Second
)

// dialer returns the dial function for connections to a node over mutual TLS.
func dialer(config *tls.Config) client.DialFunc {
	return client.DialFuncWithTLS(func(ctx context.Context, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "tcp", address)
	}, config)
}

// nodesFile reads the addresses of the nodes that app keeps in cluster.yaml, anew
// at every connection.
type nodesFile string

// Get returns the nodes as they stand in the file.
func (f nodesFile) Get(ctx context.Context) ([]client.NodeInfo, error) {
	s, err := client.NewYamlNodeStore(string(f))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", string(f), err)
	}
	return s.Get(ctx)
}

// Set does nothing: app writes the file.
func (f nodesFile) Set(context.Context, []client.NodeInfo) error { return nil }

// addresses returns a node store of fixed addresses.
func addresses(ctx context.Context, list []string) (client.NodeStore, error) {
	nodes := make([]client.NodeInfo, 0, len(list))
	for _, a := range list {
		nodes = append(nodes, client.NodeInfo{Address: a})
	}
	store := client.NewInmemNodeStore()
	if err := store.Set(ctx, nodes); err != nil {
		return nil, fmt.Errorf("keep node addresses: %w", err)
	}
	return store, nil
}

// openDB returns the database behind whichever of the nodes leads. One
// connection: the operations of this process queue here, where that is free,
// and not at the database, where the second one is told that it is locked.
func openDB(store client.NodeStore, dial client.DialFunc, log *slog.Logger) (*sql.DB, error) {
	d, err := driver.New(store, driver.WithDialFunc(dial), driver.WithLogFunc(logFunc(log)),
		driver.WithConnectionTimeout(operationTimeout), driver.WithAttemptTimeout(attemptTimeout))
	if err != nil {
		return nil, fmt.Errorf("make the database driver: %w", err)
	}
	connector, err := d.OpenConnector(database)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// retry runs op until it succeeds, fails for good, or operationTimeout ends.
// Every operation of this package may be repeated after an answer was lost.
func retry(ctx context.Context, what string, op func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	wait := 4 * time.Millisecond
	for {
		err := op(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && !transient(err) {
			return fmt.Errorf("%s: %w", what, explain(err))
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("%s: %w", what, context.Canceled)
			}
			// Not wrapped: the last error is no second kind of this one.
			return fmt.Errorf("%s: %w: no answer within %s, last: %v; a majority of the control planes that hold it must be up",
				what, ErrUnavailable, operationTimeout, err) //nolint:errorlint // see above
		case <-timer.C:
		}
		wait = min(2*wait, 250*time.Millisecond)
	}
}

// SQLite's result codes (sqlite.org/rescode.html); dqlite adds its own under
// IOERR for a leader that was deposed.
const (
	sqliteBusy  = 5
	sqliteIOErr = 10
)

// transient says whether the same operation may well succeed a moment later.
func transient(err error) bool {
	if errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, driver.ErrNoAvailableLeader) || errors.Is(err, net.ErrClosed) {
		return true
	}
	var failed driver.Error
	if errors.As(err, &failed) {
		return failed.Code&0xff == sqliteBusy || failed.Code&0xff == sqliteIOErr
	}
	return false
}

// explain names the one error of SQL that has a meaning here: a node that was
// wiped and started as a first one answers for a database without tables.
func explain(err error) error {
	var failed driver.Error
	if errors.As(err, &failed) && strings.Contains(failed.Message, "no such table") {
		return fmt.Errorf("%w: it has no tables (%w)", ErrFalse, err)
	}
	return err
}

// logFunc hands dqlite's messages to log. Its warnings are the ordinary life of
// a cluster that starts (no leader yet, a peer is off), so they are debug here;
// what a person must know, this package says itself.
func logFunc(log *slog.Logger) client.LogFunc {
	return func(level client.LogLevel, format string, args ...any) {
		text := "dqlite: " + fmt.Sprintf(format, args...)
		if level == client.LogError {
			log.Info(text)
		} else {
			log.Debug(text)
		}
	}
}
