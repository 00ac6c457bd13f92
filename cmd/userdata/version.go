package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/mustermetal/muster/pkg/cluster"
)

var versionCommand = command{
	name: "version", args: "[-o text|json]",
	summary: "print which build this is, and what it reads",
	help: `Prints the version and commit of this program, the version of cluster files that it
reads, and the versions of Kubernetes that it accepts.

Example:
  userdata version -o json | jq -r .commit

Exit codes: 0 done, 64 wrong command line.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		output := set.String("o", "text", "the `format` of the result: text or json")
		return func(_ context.Context, s streams, names []string) error {
			if len(names) > 0 {
				return exitError{exitUsage, fmt.Errorf("unexpected argument %q", names[0])}
			}
			b := thisBuild()
			switch *output {
			case "json":
				e := json.NewEncoder(s.out)
				e.SetIndent("", "  ")
				return e.Encode(b)
			case "text":
				_, err := fmt.Fprintf(s.out, "userdata %s (commit %s, %s, %s)\nreads %s; Kubernetes %s\n",
					b.Version, b.Commit, b.Go, b.Platform, b.APIVersion, b.Kubernetes)
				return err
			}
			return exitError{exitUsage, fmt.Errorf("-o %s: expected text or json", *output)}
		}
	},
}

// build is what this program is.
type build struct {
	Version    string `json:"version"`  // of the module: a tag, or (devel)
	Commit     string `json:"commit"`   // with + when files had changed; unknown outside of a checkout
	Go         string `json:"go"`       // the compiler
	Platform   string `json:"platform"` // linux/amd64
	APIVersion string `json:"apiVersion"`
	Kubernetes string `json:"kubernetes"` // accepted versions
}

func thisBuild() build {
	b := build{
		Version: "(devel)", Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		APIVersion: cluster.APIVersion, Kubernetes: cluster.AcceptedVersions,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+"
			}
		}
	}
	if b.Commit != "unknown" {
		b.Commit += changed
	}
	return b
}
