package main

import (
	"io/fs"
	"testing"

	"github.com/mustermetal/muster/pkg/layout"
)

func TestPrefixOf(t *testing.T) {
	links := map[string]string{"/usr/local/bin": "/usr/local/bin", "/opt/bin": "/opt/bin"}
	coreOS := map[string]string{"/usr/local/bin": "/var/usrlocal/bin", "/opt/bin": "/var/opt/bin"}
	for _, c := range []struct {
		program string
		links   map[string]string
		want    layout.Prefix
	}{
		{"/usr/local/bin/bootstrap", links, layout.Local},
		{"/usr/local/bin/bootstrap.former", links, layout.Local},
		{"/opt/bin/bootstrap", links, layout.Opt},
		{"/opt/bin/bootstrap.former", links, layout.Opt},
		{"/opt/bin/bootstrap (deleted)", links, layout.Opt}, // exchanged while it runs
		{"/opt/bin/bootstrap", map[string]string{"/opt/bin": "/opt/bin"}, layout.Opt},
		{"/var/opt/bin/bootstrap", coreOS, layout.Opt},
		{"/var/usrlocal/bin/bootstrap", coreOS, layout.Local},
		{"/root/muster/bin/bootstrap", links, layout.Local},
		{"/opt/bin/deeper/bootstrap", links, layout.Local},
	} {
		got := prefixOf(c.program, func(path string) (string, error) {
			if to := c.links[path]; to != "" {
				return to, nil
			}
			return "", fs.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.program, got, c.want)
		}
	}
}
