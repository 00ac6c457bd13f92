package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
)

const quorumHelp = `bootstrap quorum --majority lets a majority of the expected servers decide, N/2+1 and
never fewer, where spec.servers.quorum asks for more. Use it when servers that were
expected never come. The servers in sight learn it; it is kept on disk.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap quorum --majority [--yes]

Examples:
  bootstrap quorum --majority            # what would happen
  bootstrap quorum --majority --yes      # do it, on one of the servers that wait

Exit codes: 0 done, 64 wrong command line, 69 the agent does not answer, 77 refused, and
a sentence says why, or not root.
`

func quorumCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("quorum", quorumHelp, stdout)
	majority := flags.Bool("majority", false, "let a majority of the expected servers decide")
	yes := flags.Bool("yes", false, "do it")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if !*majority {
		return flags.wrong(errors.New("--majority is missing: it is the one thing that a quorum can be lowered to"))
	}
	return runAct(ctx, stdout, *socket, actQuorum, *yes, struct{}{})
}

const supersedeHelp = `bootstrap supersede replaces the server that was decided to build the first control
plane, when it is gone for good. Power it off first: muster cannot know whether it still
runs, and two clusters are the price of a mistake. Run the command on a server that may
become a control plane; it leads the next epoch, once a majority of all servers without
the dead one votes for it. bootstrap status shows epoch and hardware id; asked with a
wrong one, the command names the right one.

It is possible until the cluster is closed, that is until a second etcd member votes. In a
sealed cluster everything is lost by it: --lose-cluster names the nodes that joined and
are to be reset, as the command itself lists them, or none.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap supersede --epoch E --confirm-dead HW [--lose-cluster NAMES] [--yes]

Examples:
  bootstrap supersede --epoch 0 --confirm-dead 4c4c454400513610804cb4c04f4a3132
  bootstrap supersede --epoch 0 --confirm-dead 4c4c454400513610804cb4c04f4a3132 --yes
  bootstrap supersede --epoch 0 --confirm-dead 4c4c454400513610804cb4c04f4a3132 --lose-cluster w1,w2 --yes

Exit codes: 0 done, or begun with --yes, 64 wrong command line, 69 the agent does not
answer, 77 refused, and a sentence says why, or not root.
`

func supersedeCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("supersede", supersedeHelp, stdout)
	epoch := flags.Int64("epoch", -1, "the `epoch` whose GO is superseded")
	dead := flags.String("confirm-dead", "", "the `hardware id` of the server that holds it, which is powered off")
	lose := flags.String("lose-cluster", "", "the `nodes` that joined the sealed cluster and are to be reset, or none")
	yes := flags.Bool("yes", false, "do it")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *epoch < 0 || *dead == "" {
		return flags.wrong(errors.New("--epoch and --confirm-dead are both needed: bootstrap status shows them"))
	}
	act := supersedeAct{Epoch: uint64(*epoch), Dead: *dead, Lose: *lose}
	return runAct(ctx, stdout, *socket, actSupersede, *yes, act)
}

// Names of the acts on the socket.
const (
	actQuorum    = "quorum"
	actSupersede = "supersede"
)

// supersedeAct is what supersede asks for (docs/formats.md).
type supersedeAct struct {
	Epoch uint64 `json:"epoch"`
	Dead  string `json:"dead"` // hardware id
	Lose  string `json:"lose,omitempty"`
}

// handleOrders serves the acts that are orders to the fence.
func handleOrders(mux *http.ServeMux, server *bootstrap.Server) {
	handleAct(mux, actQuorum, func(ctx context.Context, yes bool, _ struct{}) ([]string, error) {
		return server.LowerQuorum(ctx, yes)
	})
	handleAct(mux, actSupersede, func(ctx context.Context, yes bool, act supersedeAct) ([]string, error) {
		return server.Supersede(ctx, yes, election.Supersede{Epoch: act.Epoch, Dead: act.Dead}, act.Lose)
	})
}
