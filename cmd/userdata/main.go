// Command userdata is the generator: it writes a cluster file to start from,
// checks it, and renders the user-data that servers boot with. It runs on
// anybody's machine, needs no privileges, and talks to nobody but to mirrors when
// it locks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
)

// Exit codes are part of the interface (docs/cli.md).
const (
	exitFailed = 1  // a retry makes sense
	exitUsage  = 64 // the command line is wrong
	exitData   = 65 // the cluster file, or another file, is wrong
)

// exitError carries the exit code of an error that is not exitFailed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// errReported ends a command whose problems are on stderr already.
var errReported = exitError{exitData, errors.New("")}

// streams are the standard streams of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command is one subcommand. flags declares its flags and returns what runs when
// they are parsed.
type command struct {
	name, args, summary, help string
	flags                     func(*flag.FlagSet) func(context.Context, streams, []string) error
	hidden                    bool // from the list of commands
}

// commands, in the order in which one needs them.
var commands = []command{initCommand, lockCommand, checkCommand, renderCommand, planCommand, diffCommand, showCommand, rotateCommand, schemaCommand, versionCommand}

// allCommands are the commands, and those that tell of all of them.
func allCommands() []command {
	return append(slices.Clone(commands), completionCommand(), manCommand())
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one subcommand and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return 0
	}
	for _, c := range allCommands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], streams{stdin, stdout, stderr})
		}
	}
	fmt.Fprintf(stderr, "userdata: unknown command %q; userdata --help lists them\n", args[0])
	return exitUsage
}

// run parses the flags, wherever they stand, and runs the command.
func (c command) run(ctx context.Context, args []string, s streams) int {
	set := flag.NewFlagSet("userdata "+c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	act := c.flags(set)
	var names []string
	for {
		if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
			c.usage(s.out, set)
			return 0
		} else if err != nil {
			fmt.Fprintf(s.err, "userdata %s: %v; userdata %s --help shows its flags\n", c.name, err, c.name)
			return exitUsage
		}
		if set.NArg() == 0 {
			break
		}
		names, args = append(names, set.Arg(0)), set.Args()[1:]
	}
	err := act(ctx, s, names)
	if err == nil {
		return 0
	}
	if err.Error() != "" {
		fmt.Fprintf(s.err, "userdata %s: %v\n", c.name, err)
	}
	var coded exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}

func (c command) usage(w io.Writer, set *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: userdata %s %s\n\n%s", c.name, c.args, c.help)
	has := false
	set.VisitAll(func(*flag.Flag) { has = true })
	if has {
		set.SetOutput(w)
		fmt.Fprintln(w, "\nFlags:")
		set.PrintDefaults()
	}
}

func usage(w io.Writer) {
	fmt.Fprint(w, `userdata makes the user-data that turns servers into a Kubernetes cluster.

Usage: userdata COMMAND [flags]

`)
	for _, c := range allCommands() {
		if !c.hidden {
			fmt.Fprintf(w, "  %-12s%s\n", c.name, c.summary)
		}
	}
	fmt.Fprint(w, `
Example:
  userdata init k8s-bgp              # cluster.yaml and k8s-bgp.secret
  userdata lock                      # cluster.lock.yaml: what servers install, by sha256
  userdata check                     # what is wrong with cluster.yaml, and where
  userdata render > user-data        # the same user-data for every server

Exit status: 0 done, 1 failed, 64 wrong command line, 65 wrong cluster file.
userdata COMMAND --help says more.
`)
}

// noNames refuses arguments that are no flags.
func noNames(names []string) error {
	if len(names) > 0 {
		return exitError{exitUsage, fmt.Errorf("unexpected argument %q; the cluster file is named with -f", names[0])}
	}
	return nil
}
