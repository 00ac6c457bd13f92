package main

import (
	"context"
	"flag"
	"io"
	"slices"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/completion"
	"github.com/mustermetal/muster/pkg/layout"
)

const completionHelp = `bootstrap completion prints a script for bash, zsh or fish that completes commands, flags
and their values.

Usage: bootstrap completion bash|zsh|fish

Examples:
  source <(bootstrap completion bash)                                    # this shell
  bootstrap completion bash > /etc/bash_completion.d/bootstrap           # every shell
  bootstrap completion zsh > "${fpath[1]}/_bootstrap"
  bootstrap completion fish > ~/.config/fish/completions/bootstrap.fish

Exit codes: 0 done, 64 wrong command line.
`

func completionCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("completion", completionHelp, stdout)
	shell, err := flags.parseOperand(args)
	if err != nil {
		return err
	}
	if err := completion.Write(stdout, shell, "bootstrap", completions(ctx)); err != nil {
		return flags.wrong(err)
	}
	return nil
}

// asking stands in for the standard output of a command that is asked for its flags: by
// --help, with which no command does anything.
type asking struct {
	io.Writer
	set *flag.FlagSet
}

// optionsOf asks a command for its flags.
func optionsOf(ctx context.Context, c command) []completion.Option {
	ask := &asking{Writer: io.Discard}
	_ = c.run(ctx, []string{"--help"}, ask, io.Discard) // the help that was asked for
	if ask.set == nil {
		return nil
	}
	return completion.Options(ask.set, flagValues)
}

// completions are all commands. Those of net are completed as words, and their flags
// as flags of net.
func completions(ctx context.Context) []completion.Command {
	words := map[string][]string{"fence": {"check-init", "check-kubelet", "check-announce"}, "completion": completion.Shells}
	var out []completion.Command
	for _, c := range allCommands() {
		done := completion.Command{Name: c.name, Summary: c.summary, Words: words[c.name], Options: optionsOf(ctx, c)}
		if c.name == "net" {
			for _, n := range netCommands {
				done.Words = append(done.Words, n.name)
				for _, o := range optionsOf(ctx, n) {
					if !slices.ContainsFunc(done.Options, func(p completion.Option) bool { return p.Flag == o.Flag }) {
						done.Options = append(done.Options, o)
					}
				}
			}
		}
		out = append(out, done)
	}
	return out
}

// flagValues are what flags may be; -o is the default or json.
func flagValues(f *flag.Flag) []string {
	var values []string
	switch f.Name {
	case "o":
		values = []string{f.DefValue, "json"}
	case "prefix":
		for _, p := range layout.Prefixes {
			values = append(values, string(p))
		}
	case "platform":
		values = []string{cluster.PlatformAuto, cluster.PlatformPacket, cluster.PlatformEC2, cluster.PlatformOpenStack, cluster.PlatformVultr,
			cluster.PlatformHetzner, cluster.PlatformLatitude, cluster.PlatformNoCloud, cluster.PlatformCloudInit, cluster.PlatformStatic}
	}
	return values
}
