package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/userdata"
)

var showCommand = command{
	name: "show", args: "[FILE] [-o yaml|json]",
	summary: "print the cluster file that is in user-data, without its secrets",
	help: `Reads user-data of any format (or /etc/muster/cluster.yaml of a server, or the
directory that render --format dir made) and prints
the cluster file in it: defaults written out, the secret left out, passwords
replaced by ` + cluster.Hidden + `. Without FILE, or with -, it reads standard input.

Examples:
  userdata show user-data
  userdata show < user-data | userdata check -f -
  userdata show -o json user-data | jq -r .spec.id
  curl -s http://169.254.169.254/userdata | userdata show

Exit codes: 0 done, 1 it cannot be read, 64 wrong command line, 65 it is no user-data of
muster, or has a wrong cluster file in it.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		output := set.String("o", "yaml", "the `format` of the result: yaml or json")
		return func(_ context.Context, s streams, names []string) error {
			if len(names) > 1 {
				return exitError{exitUsage, fmt.Errorf("expected one FILE, got %d", len(names))}
			}
			if *output != "yaml" && *output != "json" {
				return exitError{exitUsage, fmt.Errorf("-o %s: expected yaml or json", *output)}
			}
			c, err := readRendered(s, append(names, "-")[0])
			if err != nil {
				return err
			}
			return reveal(s.out, c, *output == "json")
		}
	},
}

// readRendered reads user-data, the cluster file of a server, or a tree that render
// --format dir made.
func readRendered(s streams, file string) (cluster.Cluster, error) {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		c, err := userdata.ParseTree(os.DirFS(file))
		if err != nil {
			return c, exitError{exitData, fmt.Errorf("%s: %w", file, err)}
		}
		return c, nil
	}
	name, data, err := readLimited(s, file)
	if err != nil {
		return cluster.Cluster{}, err
	}
	return parseRendered(name, data)
}

// readLimited reads a file, but no endless one.
func readLimited(s streams, file string) (name string, data []byte, err error) {
	const most = 16 << 20 // twice what compressed user-data may unpack to
	name, in := "<stdin>", s.in
	if file != "-" {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return file, nil, exitError{exitData, fmt.Errorf("%s does not exist", file)}
		} else if err != nil {
			return file, nil, err
		}
		defer f.Close()
		name, in = file, f
	}
	data, err = io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && len(data) > most {
		err = exitError{exitData, fmt.Errorf("%s has more than %d bytes, which is no user-data", name, most)}
	}
	return name, data, err
}

func parseRendered(name string, data []byte) (cluster.Cluster, error) {
	var c cluster.Cluster
	var err error
	if isClusterFile(data) {
		var problems []cluster.Problem
		c, problems = cluster.ParseServer(name, data)
		err = cluster.Err(problems)
	} else {
		c, err = userdata.Parse(data)
	}
	if err != nil {
		return c, exitError{exitData, fmt.Errorf("%s: %w", name, err)}
	}
	return c, nil
}

// isClusterFile says that data is a cluster file itself, and not user-data around
// one: it begins with a key, or with a comment that is not cloud-init's.
func isClusterFile(data []byte) bool {
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		switch {
		case strings.HasPrefix(text, "#cloud-config"), strings.HasPrefix(text, "#!"), strings.HasPrefix(text, "MIME-Version"):
			return false
		case text == "", strings.HasPrefix(text, "#"):
			continue
		}
		return strings.HasPrefix(text, "apiVersion:") || strings.HasPrefix(text, "kind:")
	}
	return false
}

// reveal prints a cluster file without its secrets.
func reveal(w io.Writer, c cluster.Cluster, asJSON bool) error {
	pins := len(c.Lock)
	c = cluster.Redacted(c)
	c.Lock = nil // a file of its own, as the secret is
	data, err := cluster.Marshal(c)
	if err != nil {
		return err
	}
	if asJSON {
		var doc any
		if err := yaml.Unmarshal(data, &doc); err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(doc)
	}
	fmt.Fprintf(w, "# The cluster file in this user-data, without its secret; passwords are %s.\n", cluster.Hidden)
	if pins > 0 {
		fmt.Fprintf(w, "# It also pins %s, which the lock file has.\n", count(pins, "artefact"))
	}
	_, err = w.Write(data)
	return err
}
