package cluster

import (
	_ "embed"
	"strings"
)

//go:embed template.yaml
var template string

// Template is the commented cluster file that `userdata init` writes. Its
// addresses are of ranges reserved for documentation, so that check warns until
// they are replaced.
func Template(name, id string) []byte {
	return []byte(strings.NewReplacer("@NAME@", name, "@ID@", id).Replace(template))
}
