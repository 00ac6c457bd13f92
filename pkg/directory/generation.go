package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// entry is a name in the directory of all databases, and in it epoch and
// generation.
var entry = regexp.MustCompile(`^e([0-9]+)-g([0-9]+)(\.new|\.lock)?$`)

// Latest returns the highest generation of an epoch that this server has begun to
// run, below root; 0 when there is none. A server that learned of a generation
// never goes back to a lower one.
func Latest(root string, epoch uint64) (uint64, error) {
	var latest uint64
	err := eachEntry(root, func(_ string, e, g uint64) error {
		if e == epoch {
			latest = max(latest, g)
		}
		return nil
	})
	return latest, err
}

// Complete says whether Dir holds a database that was complete once, so that no
// right is needed.
func (c Config) Complete() (bool, error) {
	return present(filepath.Join(c.Dir, formedFile))
}

// dropOlder removes the files of lower generations: what they held is in this one,
// or void. The marks that they were made stay.
func dropOlder(c Config) error {
	root := filepath.Dir(c.Dir)
	return eachEntry(root, func(name string, e, g uint64) error {
		if e != c.Epoch || g >= c.Generation {
			return nil
		}
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return fmt.Errorf("remove an older generation: %w", err)
		}
		return nil
	})
}

func eachEntry(root string, do func(name string, epoch, generation uint64) error) error {
	list, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for generations of the directory: %w", err)
	}
	for _, one := range list {
		m := entry.FindStringSubmatch(one.Name())
		if m == nil {
			continue
		}
		epoch, err1 := strconv.ParseUint(m[1], 10, 64)
		generation, err2 := strconv.ParseUint(m[2], 10, 64)
		if err1 != nil || err2 != nil {
			continue // not a name that DataDir makes
		}
		if err := do(one.Name(), epoch, generation); err != nil {
			return err
		}
	}
	return nil
}
