package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
)

var diffCommand = command{
	name: "diff", args: "OLD [NEW] [--exit-code] [-o text|json]",
	summary: "say what a changed cluster file means for servers that are there",
	help: `Compares two cluster files, or a cluster file and user-data that was rendered, and
says of every field that differs how far the change reaches: whether a running
cluster takes it up, whether only servers have it that boot with new user-data, or
whether it takes a new cluster. NEW is cluster.yaml when it is left out; - reads
standard input. Defaults count as if they were written out, secrets are not shown.

Examples:
  userdata diff user-data                      # what changed since it was rendered
  git show HEAD:cluster.yaml | userdata diff - cluster.yaml
  userdata diff old.yaml new.yaml -o json | jq -e '.effect != "new-cluster"'

Exit codes: 0 done, 1 a file cannot be read, or something differs (--exit-code), 64 wrong command
line, 65 a file is wrong.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		output := set.String("o", "text", "the `format` of the result on stdout: text or json")
		code := set.Bool("exit-code", false, "end with 1 when something differs")
		return func(_ context.Context, s streams, names []string) error {
			if len(names) == 0 || len(names) > 2 {
				return exitError{exitUsage, fmt.Errorf("expected OLD and, perhaps, NEW, got %d files", len(names))}
			}
			if *output != "text" && *output != "json" {
				return exitError{exitUsage, fmt.Errorf("-o %s: expected text or json", *output)}
			}
			was, err := readEither(s, names[0])
			if err != nil {
				return err
			}
			is, err := readEither(s, append(names, "cluster.yaml")[1])
			if err != nil {
				return err
			}
			changes := compared(was, is)
			if err := tell(s, changes, *output == "json"); err != nil {
				return err
			}
			if *code && len(changes) > 0 {
				return exitError{exitFailed, errors.New("")}
			}
			return nil
		}
	},
}

// readEither reads a cluster file, with its lock file when there is one, or
// user-data.
func readEither(s streams, file string) (cluster.Cluster, error) {
	name, data, err := readLimited(s, file)
	if err != nil {
		return cluster.Cluster{}, err
	}
	if !isClusterFile(data) {
		return parseRendered(name, data)
	}
	c, problems, err := parseBeside(file, "", name, data, true)
	if err != nil {
		return cluster.Cluster{}, err
	}
	if err := cluster.Err(problems); err != nil {
		if server, of := cluster.ParseServer(name, data); cluster.Err(of) == nil {
			return server, nil // /etc/muster/cluster.yaml
		}
		show(s.err, problems)
		return c, errReported
	}
	return c, nil
}

// compared leaves out what only rendered user-data has: a cluster file cannot tell
// whether it is another.
func compared(was, is cluster.Cluster) []change.Change {
	if was.Secret == "" || is.Secret == "" {
		was.Secret, is.Secret = "", ""
		was.AcceptSecret, is.AcceptSecret = "", ""
		was.APIToken, is.APIToken = "", ""
	}
	return change.Between(was, is)
}

// tell prints what changed.
func tell(s streams, changes []change.Change, asJSON bool) error {
	if asJSON {
		if changes == nil {
			changes = []change.Change{}
		}
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Changes []change.Change `json:"changes"`
			Effect  change.Effect   `json:"effect"` // the farthest; empty when nothing differs
		}{changes, change.Worst(changes)})
	}
	_, err := io.WriteString(s.out, change.Text(changes))
	return err
}
