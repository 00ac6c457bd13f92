// Package units holds the systemd units of a server and carries them in the
// binaries: the generator puts the first two into user-data, the image recipe
// and the agent install all of them.
//
// Floor 0.
package units

import (
	"embed"
	"io/fs"
)

//go:embed *.service
var files embed.FS

// For returns every unit, by its name. They are written for programs below /usr/local;
// move makes the text of a unit that of another prefix (layout.Prefix.Move).
func For(move func(text string) string) map[string][]byte {
	names, err := fs.Glob(files, "*.service")
	if err != nil {
		panic(err) // only a malformed pattern
	}
	out := map[string][]byte{}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is in this program
		}
		out[name] = []byte(move(string(text)))
	}
	return out
}

// Pods is the drop-in for the scopes of containers, which orders their end after that
// of the speaker (layout.PodScopes).
//
//go:embed pods.conf
var Pods []byte
