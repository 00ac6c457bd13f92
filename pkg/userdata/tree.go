package userdata

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

// Tree is the format that is no text: the files themselves, for an image that
// belongs to one cluster. `bootstrap bake --user-data` lays it.
const Tree Format = "dir"

// presetFile goes before that of `bootstrap bake`, which disables what it lays.
const presetFile = "/etc/systemd/system-preset/10-muster-user-data.preset"

// Node is a file or a symbolic link of a tree.
type Node struct {
	File
	Target string // of a link; then Mode and Content say nothing
}

// Tree is what lies on a server once it booted with these contents: the files, and
// the units enabled, by links for a boot that is none of a new machine and by a preset for one
// that is.
func (c Contents) Tree() []Node {
	var out []Node
	var preset strings.Builder
	for _, f := range c.Files {
		out = append(out, Node{File: f})
	}
	for _, unit := range c.Enable {
		out = append(out, Node{File: File{Path: layout.UnitDir + "/multi-user.target.wants/" + unit}, Target: unitPath(unit)})
		fmt.Fprintf(&preset, "enable %s\n", unit)
	}
	return append(out, Node{File: File{presetFile, 0o644, preset.String()}})
}

// ParseTree reads the cluster back from a tree, or from the root of a server.
func ParseTree(root fs.FS) (cluster.Cluster, error) {
	data, err := fs.ReadFile(root, strings.TrimPrefix(layout.ClusterFile, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return cluster.Cluster{}, fmt.Errorf("there is no %s in it; `userdata render --format dir` makes a tree that has one", strings.TrimPrefix(layout.ClusterFile, "/"))
	} else if err != nil {
		return cluster.Cluster{}, err
	}
	c, problems := cluster.ParseServer(layout.ClusterFile, data)
	return c, cluster.Err(problems)
}
