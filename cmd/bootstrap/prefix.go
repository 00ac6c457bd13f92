package main

import (
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/layout"
)

// ownPrefix is the prefix of this server, told by where this program lies. One that
// lies elsewhere, such as in a directory of a build, is of a server with the default.
func ownPrefix() layout.Prefix {
	own, err := os.Executable()
	if err != nil {
		return layout.Local
	}
	return prefixOf(own, filepath.EvalSymlinks)
}

// prefixOf looks for the directory of a program among those of the prefixes, which may
// be reached through links: Fedora CoreOS has /opt at /var/opt.
func prefixOf(program string, resolve func(path string) (string, error)) layout.Prefix {
	for _, p := range layout.Prefixes {
		if bin, err := resolve(p.Bin()); err == nil && bin == filepath.Dir(program) {
			return p
		}
	}
	return layout.Local
}
