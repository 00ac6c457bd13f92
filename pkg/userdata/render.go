// Package userdata turns a cluster into the user-data that its servers boot with,
// and user-data back into the cluster. It never asks anything of the machine it
// runs on: no clock, no locale, no network.
//
// Floor 1.
package userdata

import (
	"cmp"
	_ "embed"
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

// Format is a way to write user-data.
type Format string

// All formats leave the same files and enabled units behind.
const (
	CloudConfig Format = "cloud-config" // #cloud-config, for cloud-init
	Script      Format = "script"       // POSIX sh, for cloud-init without modules and for anything that runs a script
	MIME        Format = "mime"         // the cloud-config compressed in a multi-part message
	Ignition    Format = "ignition"     // Ignition 3.4: Fedora CoreOS and its like
)

// Prefix is where servers that boot from this format have their programs, unless it is
// said otherwise: systems with Ignition may have a /usr that nobody can write.
func (f Format) Prefix() layout.Prefix {
	if f == Ignition {
		return layout.Opt
	}
	return layout.Local
}

// Formats lists them, the default first.
var Formats = []Format{CloudConfig, Script, MIME, Ignition}

// Options say how user-data is rendered. The zero value is the default.
type Options struct {
	Format   Format   // default: CloudConfig
	Platform Platform // whose limit holds; default: Any
	// Prefix is where the servers have their programs; default: the format's.
	Prefix layout.Prefix
}

//go:embed fetch.sh
var fetchScript string

// Render makes the user-data of a cluster that Parse of package cluster accepted,
// with its secret. The result is ASCII, the same in every run, without templates,
// and within the limit of the platform; a *SizeError says what is too big.
func Render(c cluster.Cluster, o Options) ([]byte, error) {
	contents, err := NewContents(c, cmp.Or(o.Prefix, o.Format.Prefix()))
	if err != nil {
		return nil, err
	}
	return contents.Render(o)
}

// Render writes the contents in a format.
func (c Contents) Render(o Options) ([]byte, error) {
	text, err := c.write(o.Format)
	if err != nil {
		return nil, fmt.Errorf("rendering user-data: %w", err)
	}
	if o.Platform == (Platform{}) {
		o.Platform = Any
	}
	if len(text) > o.Platform.Holds() {
		parts := map[string]int{}
		for _, f := range c.Files {
			parts[f.Path] = len(f.Content)
		}
		return nil, &SizeError{Size: len(text), Platform: o.Platform, Format: o.Format, Parts: parts}
	}
	return []byte(text), nil
}

func (c Contents) write(f Format) (string, error) {
	switch f {
	case "", CloudConfig:
		return c.cloudConfig(), nil
	case Script:
		return c.script(), nil
	case MIME:
		return c.mime(), nil
	case Ignition:
		return c.ignition()
	}
	return "", fmt.Errorf("there is no format %q; there are %s", f, join(Formats))
}

func join(formats []Format) string {
	var names []string
	for _, f := range formats {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}
