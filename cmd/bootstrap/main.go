// Command bootstrap is the agent: it turns the server it runs on into a member
// of a Kubernetes cluster. Its subcommands run as different systemd units.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// Exit codes are part of the interface (docs/cli.md).
const (
	exitFailed      = 1  // a retry makes sense
	exitUsage       = 64 // the command line is wrong
	exitData        = 65 // input data is wrong
	exitUnavailable = 69 // a needed service does not answer
	exitPermission  = 77 // not permitted: not root, or refused
	exitConfig      = 78 // a restart cannot help; units do not restart on it
)

// exitError carries the exit code of an error that is not exitFailed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// command is one subcommand. It prints its product on stdout and talk on
// stderr, and returns an error for main to print and turn into an exit code.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

var commands = []command{
	{"agent", "bring this server into its cluster and keep it there (muster.service)", agentCommand},
	{"status", "show how far every server is, and why one waits", statusCommand},
	{"peers", "show where this server looks for others, and whom it found", peersCommand},
	{"metadata", "show what the platform says of this server, and what is concluded", metadataCommand},
	{"drive", "copy what a config drive or NoCloud disk says of this server (muster-drive.service)", driveCommand},
	{"apply", "give a cluster that runs a changed cluster file", applyCommand},
	{"quorum", "let a majority decide where servers never come", quorumCommand},
	{"supersede", "replace a dead server that was to build the first control plane", supersedeCommand},
	{"approve", "let a server in that waits for a person", approveCommand},
	{"remove", "take a member out for ever: its place and its certificate", removeCommand},
	{"replace", "give the place of a dead server to the one that comes under its name", replaceCommand},
	{"leave", "take this server out of its cluster, in the right order", leaveCommand},
	{"rotate", "change the cluster's secret on this server, step by step, while all goes on", rotateCommand},
	{"reset", "bring this server back to before its first boot", resetCommand},
	{"fence", "check whether kubeadm init, kubelet or the speaker may start here", fenceCommand},
	{"announce", "announce the Elastic IPs to the top-of-rack routers (muster-announce.service)", announceCommand},
	{"directory", "run this control plane's copy of the directory (muster-directory.service)", directoryCommand},
	{"upgrade", "go on with an exchange of the agent's program (muster-upgrade.service)", upgradeCommand},
	{"net", "show, plan or reset addresses and routes; print what other BGP speakers need", netCommand},
	{"bake", "lay the agent, units and artefacts into the root of an image", bakeCommand},
}

// allCommands are the commands, and the one that tells of all of them.
func allCommands() []command {
	return append(slices.Clone(commands), command{"completion", "print what makes a shell complete this command line", completionCommand})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return 0
	}
	for _, c := range allCommands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:], stdout, stderr)
		if err == nil {
			return 0
		}
		var coded exitError
		if !errors.As(err, &coded) {
			coded.code = exitFailed
		}
		if coded.code != 0 { // 0 is --help, which has printed itself
			fmt.Fprintf(stderr, "bootstrap %s: %v\n", c.name, err)
		}
		return coded.code
	}
	fmt.Fprintf(stderr, "bootstrap: unknown command %q; bootstrap --help lists them\n", args[0])
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "bootstrap turns this server into a member of its Kubernetes cluster.\n\nUsage: bootstrap COMMAND [flags]\n\n")
	for _, c := range allCommands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
Example:
  bootstrap status           # how far all servers are, from any of them

Exit codes: 0 done, 1 failed and a retry makes sense, 64 wrong command line, 65 bad
input, 69 a needed service does not answer, 77 not permitted, 78 wrong configuration.
bootstrap COMMAND --help says more.
`)
}
