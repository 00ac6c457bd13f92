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
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

var initCommand = command{
	name: "init", args: "NAME [--dir DIR] [--servers N] [--control-planes K]",
	summary: "write a commented cluster file, and a secret beside it",
	help: `Writes cluster.yaml, with comments, a new random id, and example addresses to
change, and NAME.secret (0600): the secret that lets servers with this user-data
enrol. It asks nothing and overwrites nothing.

Examples:
  userdata init k8s-bgp
  userdata init lab --dir clusters/lab --servers 3 --control-planes 1

Exit codes: 0 done, 1 a file cannot be written, 64 wrong command line, 65 a file is there already.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		dir := set.String("dir", ".", "the `directory` to write to; it is made when missing")
		servers := set.Int("servers", 5, "how many servers will boot with the user-data, workers too: `N`")
		planes := set.Int("control-planes", 3, "how many of them become control planes: `K`, 1 or 3")
		return func(_ context.Context, s streams, names []string) error {
			if len(names) != 1 {
				return exitError{exitUsage, fmt.Errorf("expected one NAME, the cluster's, got %d; such as: userdata init k8s-bgp", len(names))}
			}
			return initialise(s, names[0], *dir, *servers, *planes)
		}
	},
}

// initialise writes both files, or none.
func initialise(s streams, name, dir string, servers, planes int) error {
	id, err := cluster.NewID(rand.Reader)
	if err != nil {
		return err
	}
	secret, err := cluster.NewSecret(rand.Reader)
	if err != nil {
		return err
	}
	text := cluster.Template(name, id, servers, planes)
	if _, problems := cluster.Parse("cluster.yaml", text); cluster.Err(problems) != nil {
		// The template is good, so it is the numbers that are not, or the name.
		for _, p := range problems {
			if p.Severity == cluster.SeverityError && strings.HasPrefix(p.Path, "spec.servers.") {
				return exitError{exitUsage, fmt.Errorf("--servers %d --control-planes %d: %s (%s)", servers, planes, p.Message, p.Hint)}
			}
		}
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
