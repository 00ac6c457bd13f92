package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/cluster"
)

var initCommand = command{
	name: "init", args: "NAME [--dir DIR]",
	summary: "write a commented cluster file, and a secret beside it",
	help: `Writes cluster.yaml, with comments, a new random id, and example addresses to
change, and NAME.secret (0600): the secret that lets servers with this user-data
enrol. It overwrites nothing.

Example:
  userdata init k8s-bgp --dir clusters/k8s-bgp
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		dir := set.String("dir", ".", "the `directory` to write to; it is made when missing")
		return func(_ context.Context, s streams, names []string) error {
			if len(names) != 1 {
				return exitError{exitUsage, fmt.Errorf("expected one NAME, the cluster's, got %d; such as: userdata init k8s-bgp", len(names))}
			}
			return initialise(s, names[0], *dir)
		}
	},
}

// initialise writes both files, or none.
func initialise(s streams, name, dir string) error {
	id, err := cluster.NewID(rand.Reader)
	if err != nil {
		return err
	}
	secret, err := cluster.NewSecret(rand.Reader)
	if err != nil {
		return err
	}
	text := cluster.Template(name, id)
	if _, problems := cluster.Parse("cluster.yaml", text); cluster.Err(problems) != nil {
		// The template is good, so it is the name that is not.
		return exitError{exitUsage, fmt.Errorf("%q is no name for a cluster: lower-case letters, digits and hyphens, at most 63, such as k8s-bgp", name)}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	spec, key := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, name+".secret")
	// The secret first: a cluster file without one looks complete, the other way
	// round does not.
	if err := create(key, []byte(secret.Reveal()+"\n"), 0o600); err != nil {
		return err
	}
	if err := create(spec, text, 0o644); err != nil {
		return errors.Join(err, os.Remove(key))
	}
	_, err = fmt.Fprintf(s.out, `wrote %s: change the lines marked CHANGE
wrote %s: it goes into user-data; keep it out of version control
next: userdata check -f %s
`, spec, key, spec)
	return err
}

// create writes a new file; one that is there already is left as it is.
func create(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return exitError{exitData, fmt.Errorf("%s is there already, and init overwrites nothing; choose another --dir, or remove it if its cluster is gone", path)}
	} else if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
