package directory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/canonical/go-dqlite/client"
	"gopkg.in/yaml.v3"
)

// found is what lies on the disk before dqlite is started.
type found struct {
	exists bool // Dir
	staged bool // a complete database beside it, not renamed yet
	made   bool // a database was made here once
	formed *formed
	info   *client.NodeInfo
	nodes  bool // cluster.yaml
	join   bool // the join flag
	raft   bool // raft's metadata
	starts int  // starts in a row that did not get ready
}

// step is what to do with it.
type step string

const (
	openIt    step = "open"      // start the node on what is there
	publishIt step = "publish"   // finish the rename of a complete new database
	makeIt    step = "bootstrap" // make the first database; needs the right
	joinIt    step = "join"      // throw away what is there, join through the peers
	resumeIt  step = "resume"    // a join was interrupted: see how far it came
	refuseIt  step = "refuse"
)

// maxStarts is how many starts in a row may fail before the files count as
// damaged: a truncated segment kills the process (dqlite 1.18.1).
const maxStarts = 3

// decide chooses the step and says why. It grants no right: makeIt is chosen
// only for a caller that brings one.
func decide(f found, c Config) (step, string) {
	peers := len(c.others()) > 0
	switch {
	case !f.exists && f.staged:
		return publishIt, "a new directory was complete when the server stopped"
	case f.formed != nil:
		return decideFormed(f, c, peers)
	case c.Right != nil && !f.made && !f.exists:
		return makeIt, "it is this server's to make, and there is none yet"
	case !f.exists && peers:
		return joinIt, "there is no directory on this server yet"
	case !peers && f.made:
		return refuseIt, fmt.Sprintf("the directory was made here once and its files in %s are gone or incomplete; it cannot be made again, and there is no other control plane to join it at; once the cluster is sealed, its control planes make a new generation when none has answered for 5 minutes", c.Dir)
	case !peers:
		return refuseIt, fmt.Sprintf("%s holds no complete directory, nothing permits to make one here, and no other control plane is named to join at; bootstrap status tells what this server waits for", c.Dir)
	case f.info == nil || !f.nodes:
		return joinIt, "an interrupted start left half of the node's files"
	case f.info.Address != c.Address.String():
		return joinIt, fmt.Sprintf("the node's files are for address %s, this server is %s", f.info.Address, c.Address)
	case f.starts >= maxStarts:
		return joinIt, fmt.Sprintf("%d starts in a row failed", f.starts)
	}
	return resumeIt, "the join was interrupted"
}

func decideFormed(f found, c Config, peers bool) (step, string) {
	if *f.formed != (formed{formedVersion, c.Epoch, c.Generation, c.CAHash}) {
		return refuseIt, fmt.Sprintf("the files in %s are those of epoch %d, generation %d, cluster CA %s; the decree says epoch %d, generation %d, cluster CA %s; move the directory away if it is of no use",
			c.Dir, f.formed.Epoch, f.formed.Generation, f.formed.CAHash, c.Epoch, c.Generation, c.CAHash)
	}
	// A first node whose raft files are gone would make an empty database under
	// its old id, and the other members would believe it for some seconds. So
	// files that are not whole are never opened.
	var damage string
	switch {
	case f.info == nil || !f.nodes || !f.raft:
		damage = fmt.Sprintf("some of %s, %s and raft's metadata are missing", infoFile, nodesYAML)
	case f.info.Address != c.Address.String():
		damage = fmt.Sprintf("its files are for address %s, this server is %s", f.info.Address, c.Address)
	case f.starts >= maxStarts && peers:
		damage = fmt.Sprintf("%d starts in a row failed", f.starts)
	default:
		return openIt, "the directory's files are complete"
	}
	if peers {
		return joinIt, damage
	}
	return refuseIt, fmt.Sprintf("the directory in %s is damaged (%s) and no other control plane has a copy; the cluster runs on, and when no directory has answered for 5 minutes its control planes make a new generation: bootstrap status tells", c.Dir, damage)
}

// inspect reads what decide needs to know.
func inspect(dir string) (found, error) {
	var f found
	var err error
	if f.exists, err = present(dir); err != nil {
		return f, err
	}
	if f.made, err = present(madeFile(dir)); err != nil {
		return f, err
	}
	if f.staged, err = present(filepath.Join(stagedDir(dir), formedFile)); err != nil || !f.exists {
		return f, err
	}
	if f.nodes, err = present(filepath.Join(dir, nodesYAML)); err != nil {
		return f, err
	}
	if f.join, err = present(filepath.Join(dir, joinFile)); err != nil {
		return f, err
	}
	for _, name := range []string{"metadata1", "metadata2"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Size() > 0 {
			f.raft = true
		}
	}
	// Files that cannot be decoded count as missing: they were cut off.
	if data, err := os.ReadFile(filepath.Join(dir, infoFile)); err == nil {
		var info client.NodeInfo
		if yaml.Unmarshal(data, &info) == nil && info.ID != 0 {
			f.info = &info
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, formedFile)); err == nil {
		var mark formed
		if json.Unmarshal(data, &mark) == nil {
			f.formed = &mark
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, startsFile)); err == nil {
		f.starts, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	return f, nil
}

func present(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the directory's files: %w", err)
	}
	return true, nil
}
