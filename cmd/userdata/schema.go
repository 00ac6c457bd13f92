package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/mustermetal/muster/pkg/cluster"
)

var schemaCommand = command{
	name: "schema", args: "> cluster.schema.json",
	summary: "print the JSON Schema of the cluster file, for editors",
	help: `Prints the JSON Schema (draft 2020-12) of the cluster file, with a description,
a default and an example for each key. Editors complete and check with it while you
write; check knows more, because it sees what fields mean together.

Examples:
  userdata schema > cluster.schema.json
  sed -i '1i # yaml-language-server: $schema=cluster.schema.json' cluster.yaml

Exit codes: 0 done, 64 wrong command line.
`,
	flags: func(*flag.FlagSet) func(context.Context, streams, []string) error {
		return func(_ context.Context, s streams, names []string) error {
			if len(names) > 0 {
				return exitError{exitUsage, fmt.Errorf("unexpected argument %q", names[0])}
			}
			_, err := s.out.Write(cluster.Schema())
			return err
		}
	},
}
