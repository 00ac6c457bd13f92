package main

import (
	"context"
	"flag"
	"strings"

	"github.com/mustermetal/muster/pkg/completion"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/userdata"
)

// completionCommand is a function because it lists all commands, itself among them.
func completionCommand() command {
	return command{
		name: "completion", args: "bash|zsh|fish",
		summary: "print what makes a shell complete this command line",
		help: `Prints a script for bash, zsh or fish that completes commands, flags and their values.

Examples:
  source <(userdata completion bash)                                   # this shell
  userdata completion bash > /etc/bash_completion.d/userdata           # every shell
  userdata completion zsh > "${fpath[1]}/_userdata"
  userdata completion fish > ~/.config/fish/completions/userdata.fish

Exit codes: 0 done, 64 wrong command line.
`,
		flags: func(*flag.FlagSet) func(context.Context, streams, []string) error {
			return func(_ context.Context, s streams, names []string) error {
				if err := completion.Write(s.out, strings.Join(names, " "), "userdata", completions()); err != nil {
					return exitError{exitUsage, err}
				}
				return nil
			}
		},
	}
}

// flagValues are what flags may be; -o is the default or json.
func flagValues(f *flag.Flag) []string {
	switch f.Name {
	case "o":
		return []string{f.DefValue, "json"}
	case "format":
		var formats []string
		for _, f := range append(userdata.Formats, userdata.Tree) {
			formats = append(formats, string(f))
		}
		return formats
	case "limit":
		var names []string
		for _, p := range userdata.Platforms {
			names = append(names, p.Name)
		}
		return names
	case "prefix":
		var prefixes []string
		for _, p := range layout.Prefixes {
			prefixes = append(prefixes, string(p))
		}
		return prefixes
	case "role":
		return []string{string(member.ControlPlane), string(member.Worker)}
	}
	return nil
}

// completions asks every command for its flags.
func completions() []completion.Command {
	var out []completion.Command
	for _, c := range allCommands() {
		if c.hidden {
			continue
		}
		set := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.flags(set)
		done := completion.Command{Name: c.name, Summary: c.summary, Options: completion.Options(set, flagValues)}
		if c.name == "completion" {
			done.Words = completion.Shells
		}
		out = append(out, done)
	}
	return out
}
