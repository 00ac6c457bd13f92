package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/layout"
)

const approveHelp = `bootstrap approve lets a server go on that waits for a person.

With a hardware id, on a control plane: lets that server in although the cluster has all
the servers that it expects. bootstrap status on a control plane names who waits.

With --ca, on a server that waits itself: believe the formed cluster whose CA has this
hash, where too few servers are left to confirm it.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap approve HW [--yes]
       bootstrap approve --ca sha256:… [--yes]

Examples:
  bootstrap approve 4c4c454400513610804cb4c04f4a3132
  bootstrap approve 4c4c454400513610804cb4c04f4a3132 --yes
  bootstrap approve --ca sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --yes

Exit codes: 0 done, 1 failed (do it again), 64 wrong command line, 69 the agent or the
directory does not answer, 77 refused, and a sentence says why, or not root.
`

// actApprove and actRemove are acts on the socket.
const (
	actApprove = "approve"
	actRemove  = "remove"
)

// approveAct is what approve asks for: one of the two.
type approveAct struct {
	HW string `json:"hw,omitempty"`
	CA string `json:"ca,omitempty"`
}

func approveCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("approve", approveHelp, stdout)
	var act approveAct
	flags.StringVar(&act.CA, "ca", "", "the `hash` of the cluster's CA to believe")
	yes := flags.Bool("yes", false, "do it")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	var err error
	if act.HW, err = flags.parseOperand(args); err != nil {
		return err
	}
	switch {
	case (act.HW == "") == (act.CA == ""):
		return flags.wrong(errors.New("expected either a hardware id or --ca"))
	case act.HW != "" && (len(act.HW) != 32 || strings.Trim(act.HW, "0123456789abcdef") != ""):
		return flags.wrong(fmt.Errorf("%q is no hardware id: 32 hex digits, as bootstrap status -o json shows them", act.HW))
	}
	return runAct(ctx, stdout, *socket, actApprove, *yes, act)
}

const removeHelp = `bootstrap remove takes a member out of the cluster's directory for ever: its row, its
certificate, its node of the database. Its connections are cut. Run it on another control
plane. When it was interrupted, the same command goes on.

It does not touch Kubernetes: drain and delete the node with kubectl, and take a control
plane's etcd member out with etcdctl first; the command says how. And it does not take
back what the server knows, so wipe its disk. A server that is reinstalled comes
back as another instance and takes the free place.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap remove NAME [--yes]

Examples:
  bootstrap remove cp3
  bootstrap remove cp3 --yes

Exit codes: 0 done, 1 failed (do it again), 64 wrong command line, 69 the agent or the
directory does not answer, 77 refused, and a sentence says why, or not root.
`

// removeAct is what remove and replace ask for.
type removeAct struct {
	Name string `json:"name"` // or instance
}

func removeCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("remove", removeHelp, stdout)
	yes := flags.Bool("yes", false, "do it")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	name, err := flags.parseOperand(args)
	if err != nil {
		return err
	}
	if name == "" {
		return flags.wrong(errors.New("whom to remove is missing: bootstrap status shows the names"))
	}
	return runAct(ctx, stdout, *socket, actRemove, *yes, removeAct{name})
}

// handleMembers serves the acts about who belongs to the cluster.
func handleMembers(mux *http.ServeMux, server *bootstrap.Server) {
	handleAct(mux, actApprove, func(ctx context.Context, yes bool, act approveAct) ([]string, error) {
		if act.CA != "" {
			return server.Approve(ctx, yes, act.CA)
		}
		return server.ApproveServer(ctx, yes, act.HW)
	})
	handleAct(mux, actReplace, func(ctx context.Context, yes bool, act removeAct) ([]string, error) {
		return server.Replace(ctx, yes, act.Name)
	})
	handleAct(mux, actRemove, func(ctx context.Context, yes bool, act removeAct) ([]string, error) {
		return server.Remove(ctx, yes, act.Name)
	})
}
