package main

import (
	"context"
	"errors"
	"io"

	"github.com/mustermetal/muster/pkg/layout"
)

const replaceHelp = `bootstrap replace gives the place of a server that is gone for good to the one that comes
under its name: reinstalled, reset, or another machine. What is left of the old one goes:
its etcd member, its node in Kubernetes, its place in the directory and its certificate.
Run it on another control plane, with the old server off; the new one may wait already,
and joins by itself then. When it was interrupted, the same command goes on.

It refuses while the old server is in sight, and where etcd or the directory would have
no majority without it.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap replace NAME [--yes]

Examples:
  bootstrap replace cp2                  # what would go
  bootstrap replace cp2 --yes            # while cp2, reinstalled, waits for its place

Exit codes: 0 done, 1 failed (do it again), 64 wrong command line, 69 the agent or the
directory does not answer, 77 refused, and a sentence says why, or not root.
`

// actReplace is an act on the socket.
const actReplace = "replace"

func replaceCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("replace", replaceHelp, stdout)
	yes := flags.Bool("yes", false, "do it")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	name, err := flags.parseOperand(args)
	if err != nil {
		return err
	}
	if name == "" {
		return flags.wrong(errors.New("whom to replace is missing: bootstrap status shows the names"))
	}
	return runAct(ctx, stdout, *socket, actReplace, *yes, removeAct{name})
}
