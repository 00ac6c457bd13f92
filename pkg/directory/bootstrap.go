package directory

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	dqlite "github.com/canonical/go-dqlite"
	"github.com/canonical/go-dqlite/client"
	"gopkg.in/yaml.v3"
)

// Files of a database's directory. The first three are go-dqlite's; its raft
// adds metadata1, metadata2, segments and snapshots.
const (
	infoFile   = "info.yaml"    // id and address of this node
	nodesYAML  = "cluster.yaml" // the nodes, refreshed by go-dqlite
	joinFile   = "join"         // this node was not added yet, or its end was not written
	formedFile = "formed.json"  // ours: complete, and for which decree
	startsFile = "starts"       // ours: starts in a row that did not get ready
)

// formed is the content of formedFile.
type formed struct {
	Version    int    `json:"version"`
	Epoch      uint64 `json:"epoch"`
	Generation uint64 `json:"generation"`
	CAHash     string `json:"caHash"`
}

const formedVersion = 1

// stagedDir is where a new database is made until it is complete; madeFile says,
// for as long as the server's disk lives, that one was made here. It lies beside
// the directory of all databases, so that whoever throws those away does not
// throw the mark away with them: a first node that is made again under its old id
// is believed by the others (dqlite 1.18.1).
func stagedDir(dir string) string { return dir + ".new" }
func madeFile(dir string) string {
	return filepath.Dir(dir) + "-" + filepath.Base(dir) + ".made"
}

// Bootstrap makes the database of a directory that does not exist yet: the one
// function that does. It works offline, beside Dir, and renames at the end: no
// other node can reach a database that is not complete, and a crash leaves
// nothing but a directory to be thrown away. It refuses when Dir exists or when
// a database was made here before: that one may live on at the other members.
func Bootstrap(ctx context.Context, right Right, c Config) error {
	want := c.decree()
	if err := right.permits(want); err != nil {
		return err
	}
	for _, path := range []string{c.Dir, madeFile(c.Dir)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s exists, so this server made the directory before; a second one beside it would be false", ErrRefused, path)
		}
	}
	staged := stagedDir(c.Dir)
	if err := os.RemoveAll(staged); err != nil {
		return fmt.Errorf("remove what an interrupted start left: %w", err)
	}
	if err := os.Mkdir(staged, 0o700); err != nil {
		return fmt.Errorf("make the directory's files: %w", err)
	}
	if err := makeDatabase(ctx, right, c, staged); err != nil {
		return fmt.Errorf("make the directory in %s: %w", staged, err)
	}
	self := client.NodeInfo{ID: dqlite.BootstrapID, Address: c.Address.String(), Role: client.Voter}
	if err := writeYAML(filepath.Join(staged, infoFile), self); err != nil {
		return err
	}
	if err := writeYAML(filepath.Join(staged, nodesYAML), []client.NodeInfo{self}); err != nil {
		return err
	}
	if err := writeFormed(staged, want); err != nil {
		return err
	}
	return publish(c.Dir)
}

// publish renames a complete staged database to its place. The marker comes
// first: with it and the staged database, the next start finishes the rename.
func publish(dir string) error {
	if err := writeFile(madeFile(dir), []byte("a directory was made here; it must not be made again\n")); err != nil {
		return err
	}
	if err := os.Rename(stagedDir(dir), dir); err != nil {
		return fmt.Errorf("put the new directory in its place: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// makeDatabase starts a single node on an abstract socket that nobody else can
// use (dqlite accepts only its own process there), and creates the tables.
func makeDatabase(ctx context.Context, right Right, c Config, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // takes 0.1 s; a slow disk may need longer
	defer cancel()
	socket := "@muster-directory-" + rand.Text()
	node, err := dqlite.New(dqlite.BootstrapID, c.Address.String(), dir, dqlite.WithBindAddress(socket),
		dqlite.WithNetworkLatency(networkLatency), dqlite.WithSnapshotParams(snapshots()))
	if err != nil {
		return fmt.Errorf("create node: %w", err)
	}
	if err := node.Start(); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	store, err := addresses(ctx, []string{c.Address.String()})
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return client.DefaultDialFunc(ctx, socket) }
	db, err := openDB(store, dial, c.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return createSchema(ctx, db, right, c.Rows)
}

func snapshots() dqlite.SnapshotParams {
	return dqlite.SnapshotParams{Threshold: snapshotThreshold, Trailing: snapshotTrailing}
}

func (c Config) decree() decree {
	return decree{epoch: c.Epoch, generation: c.Generation, caHash: c.CAHash}
}

func writeFormed(dir string, d decree) error {
	data, err := json.Marshal(formed{Version: formedVersion, Epoch: d.epoch, Generation: d.generation, CAHash: d.caHash})
	if err != nil {
		return fmt.Errorf("write %s: %w", formedFile, err)
	}
	return writeFile(filepath.Join(dir, formedFile), append(data, '\n'))
}

func writeYAML(path string, v any) error {
	data, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, data)
}

// writeFile replaces a file whole, durably, with mode 0600.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()           //nolint:errcheck // the first error is told
			os.Remove(f.Name()) //nolint:errcheck // best effort
		}
	}()
	if _, err = f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err = f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close() //nolint:errcheck // opened for reading
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
