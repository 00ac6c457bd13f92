package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

const leaveHelp = `bootstrap leave takes this server out of its cluster for good, in the right order: its node
is cordoned and drained; the Elastic IPs are withdrawn and taken off lo; its etcd leaves,
which another control plane does and confirms; kubeadm reset ends what runs here; its node,
its place in the directory and its certificate go. It stays out then, whatever reboots, until
bootstrap reset --yes.

It refuses, and nothing is done, where etcd or the directory would have no majority without
this server, and on the only control plane. A pod that cannot be evicted in time ends the
command before anything but the drain was done. After that the rest goes on by itself,
through whatever interrupts it; the command waits for it and says how far it is.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap leave [--yes] [--no-drain] [--drain-timeout 5m] [-o text|json]

Examples:
  bootstrap leave                        # what would go, on the server that shall leave
  bootstrap leave --yes
  bootstrap leave --yes --no-drain       # its pods end with it, and start again elsewhere

Exit codes: 0 done, 1 failed (do it again), 64 wrong command line, 69 the agent or the
other control planes do not answer, 77 refused, and a sentence says why, or not root.
`

// actLeave is an act on the socket.
const actLeave = "leave"

// leaveAct is what leave asks for (docs/formats.md).
type leaveAct struct {
	Order bootstrap.LeaveOrder `json:"order"`
}

// Times of a leave.
const (
	drainPause = 2 * time.Second
	// leaveWait is how long the command looks on; kubeadm reset alone may take minutes.
	leaveWait = 15 * time.Minute
)

// leave is one run of the command.
type leave struct {
	socket         string
	noDrain        bool
	drainTimeout   time.Duration
	json           bool
	pause          func(ctx context.Context, d time.Duration) error
	stdout, stderr io.Writer
}

func leaveCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("leave", leaveHelp, stdout)
	l := leave{pause: sleepFor, stdout: stdout, stderr: stderr}
	yes := flags.Bool("yes", false, "do it")
	flags.BoolVar(&l.noDrain, "no-drain", false, "do not have the pods go elsewhere first")
	flags.DurationVar(&l.drainTimeout, "drain-timeout", 5*time.Minute, "how long the pods may take to go")
	output := flags.String("o", "text", "the `format`: text or json")
	flags.StringVar(&l.socket, "socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return flags.wrong(fmt.Errorf("-o %q: expected text or json", *output))
	}
	if l.drainTimeout <= 0 {
		return flags.wrong(fmt.Errorf("--drain-timeout %s: expected more than 0; --no-drain leaves the drain out", l.drainTimeout))
	}
	l.json = *output == "json"
	return l.run(ctx, *yes)
}

func (l leave) run(ctx context.Context, yes bool) error {
	reply, err := askAct(ctx, l.socket, actLeave, false, leaveAct{bootstrap.OrderLeave})
	if err != nil {
		return err
	}
	if !yes {
		return l.end(reply, "Nothing was done: add --yes to do it.")
	}
	if !l.noDrain {
		if err := l.drain(ctx); err != nil {
			return err
		}
	}
	if reply, err = askAct(ctx, l.socket, actLeave, true, leaveAct{bootstrap.OrderLeave}); err != nil {
		return err
	}
	if err := l.follow(ctx); err != nil {
		return err
	}
	return l.end(reply, "Done. This server has left, and stays out; bootstrap reset --yes and a reboot bring it back as a new one.")
}

// end prints what was said of it.
func (l leave) end(reply actReply, last string) error {
	if l.json {
		e := json.NewEncoder(l.stdout)
		e.SetIndent("", "  ")
		return e.Encode(reply)
	}
	for _, sentence := range append(slices.Clone(reply.Sentences), last) {
		fmt.Fprintln(l.stdout, sentence)
	}
	return nil
}

// drain has the pods go, and returns when they are gone.
func (l leave) drain(ctx context.Context) error {
	said := ""
	for waited := time.Duration(0); ; waited += drainPause {
		reply, err := askAct(ctx, l.socket, actLeave, true, leaveAct{bootstrap.OrderDrain})
		if err != nil {
			return err
		}
		left := strings.Join(reply.Sentences, "\n  ")
		if left == "" {
			return nil
		}
		if waited >= l.drainTimeout {
			return fmt.Errorf("the drain did not end within %s; still here:\n  %s\nThis server has not left; its node stays cordoned (kubectl uncordon takes that back). Help them to go and do it again, or add --no-drain", l.drainTimeout, left)
		}
		if left != said {
			said = left
			fmt.Fprintf(l.stderr, "draining, still here:\n  %s\n", left)
		}
		if err := l.pause(ctx, drainPause); err != nil {
			return err
		}
	}
}

// follow returns when this server says that it has left. The agent starts anew at the
// end, so it may be silent for a moment.
func (l leave) follow(ctx context.Context) error {
	const every = 500 * time.Millisecond
	said := ""
	for waited := time.Duration(0); waited < leaveWait; waited += every {
		st, err := readOwn(ctx, l.socket)
		if err == nil && st.Phase == member.Left {
			return nil
		}
		now := st.Waiting
		if st.Problem != "" {
			now += ": " + st.Problem
		}
		if err == nil && st.Waiting != "" && now != said {
			said = now
			fmt.Fprintf(l.stderr, "waits: %s\n", now)
		}
		if err := l.pause(ctx, every); err != nil {
			return err
		}
	}
	return fmt.Errorf("this server has not left within %s; it goes on by itself, and bootstrap status says what it waits for", leaveWait)
}

// readOwn asks the agent for the status of this server alone.
func readOwn(ctx context.Context, socket string) (member.Status, error) {
	var own member.Status
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := askLocal(ctx, socket, http.MethodGet, "/v1/self", nil)
	if err != nil {
		return own, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return own, errors.New("the agent answers " + response.Status)
	}
	return own, json.NewDecoder(response.Body).Decode(&own)
}

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// handleLeave serves the act.
func handleLeave(mux *http.ServeMux, server *bootstrap.Server) {
	handleAct(mux, actLeave, func(ctx context.Context, yes bool, act leaveAct) ([]string, error) {
		return server.Leaving(ctx, yes, act.Order)
	})
	mux.HandleFunc("GET /v1/self", func(w http.ResponseWriter, r *http.Request) {
		localReply(w, http.StatusOK, server.Status(r.Context()))
	})
}
