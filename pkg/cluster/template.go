package cluster

import (
	_ "embed"
	"strconv"
	"strings"
)

//go:embed template.yaml
var template string

// Template is the commented cluster file that `userdata init` writes, for so many
// servers in all, and control planes among them. Its addresses are of ranges reserved for documentation, so that check warns until
// they are replaced.
func Template(name, id string, expect, controlPlanes int) []byte {
	return []byte(strings.NewReplacer("@NAME@", name, "@ID@", id,
		"@EXPECT@", strconv.Itoa(expect), "@PLANES@", strconv.Itoa(controlPlanes)).Replace(template))
}
