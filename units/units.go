// Package units holds the systemd units of a server and carries them in the
// binaries: the generator puts the first two into user-data, the image recipe
// and the agent install all of them.
//
// Floor 0.
package units

import "embed"

// FS holds every unit file at its root, by its unit name.
//
//go:embed *.service
var FS embed.FS

// Pods is the drop-in for the scopes of containers, which orders their end after that
// of the speaker (layout.PodScopes).
//
//go:embed pods.conf
var Pods []byte
