package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/firewall"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/systemd"
)

const netResetHelp = `bootstrap net reset takes muster's addresses, routes and firewall off this server: it stops
the speaker, which withdraws the Elastic IPs, then removes them from lo with the connections
that were made by them, then the routes to the top-of-rack routers, then the table inet
muster of nftables. What others added stays. The agent puts everything back when it runs, so it refuses while it does.

Without --yes it only says what it would do.

Usage: bootstrap net reset [--yes] [--while-agent-runs]

Examples:
  bootstrap net reset                    # what would be removed
  systemctl stop muster && bootstrap net reset --yes

Exit codes: 0 done, 1 failed, and doing it again makes sense, 64 wrong command line, 77
not root, or the agent runs.
`

// netReset is one run of the command.
type netReset struct {
	state, agent, speaker, kubeVIP string
	yes, force                     bool
	stopSpeaker                    func(ctx context.Context) error
	guarded, unguard               func(ctx context.Context) (bool, error) // whether there is a firewall; remove it
}

func netResetCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	r := netReset{stopSpeaker: stopAnnounce, kubeVIP: layout.KubeVIP, guarded: firewall.Present, unguard: firewall.Remove}
	flags := newFlags("net reset", netResetHelp, stdout)
	flags.StringVar(&r.state, "state", layout.NetworkState, "the `file` that lists our IPv6 addresses")
	flags.StringVar(&r.agent, "socket", layout.Socket, "the `path` of the agent's socket")
	flags.StringVar(&r.speaker, "speaker", layout.AnnounceSock, "the `path` of the speaker's socket")
	flags.BoolVar(&r.yes, "yes", false, "do it")
	flags.BoolVar(&r.force, "while-agent-runs", false, "do it although the agent runs and puts everything back")
	if err := flags.parse(args); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	return r.run(ctx, stdout, stderr)
}

func (r netReset) run(ctx context.Context, stdout, stderr io.Writer) error {
	if !r.force && answers(ctx, r.agent) {
		return exitError{exitPermission, errors.New("the agent runs and would put everything back within a second: systemctl stop muster first, or add --while-agent-runs")}
	}
	reconciler := network.New(r.state, quietLog(stderr))
	found, err := reconciler.Look(plan.Network{})
	if err != nil {
		return err
	}
	guarded, err := r.guarded(ctx)
	if err != nil {
		return err
	}
	speaks := answers(ctx, r.speaker)
	if speaks {
		fmt.Fprintf(stdout, "stop %s, which withdraws what it announces\n", layout.UnitAnnounce)
	}
	for _, c := range found.Changes {
		fmt.Fprintln(stdout, c)
	}
	if guarded {
		fmt.Fprintf(stdout, "remove the firewall, the table inet %s of nftables\n", plan.FirewallTable)
	}
	if _, err := os.Stat(r.kubeVIP); err == nil {
		fmt.Fprintf(stderr, "bootstrap net reset: kube-vip announces by itself as long as %s is there\n", r.kubeVIP)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for kube-vip: %w", err)
	}
	switch {
	case !speaks && !guarded && len(found.Changes) == 0:
		fmt.Fprintln(stdout, "Nothing of muster's is here.")
		return nil
	case !r.yes:
		fmt.Fprintln(stdout, "Nothing was done: add --yes to do it.")
		return nil
	}
	if speaks {
		if err := r.withdraw(ctx); err != nil {
			return err
		}
	}
	if err := reconciler.Apply(ctx, plan.Network{}); err != nil {
		return fmt.Errorf("removing addresses and routes: %w", err)
	}
	if _, err := r.unguard(ctx); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "Done.")
	return nil
}

// withdraw stops the speaker and gives the routers the time to act on it.
func (r netReset) withdraw(ctx context.Context) error {
	if err := r.stopSpeaker(ctx); err != nil {
		return fmt.Errorf("nothing was removed, because the speaker does not stop: %w", err)
	}
	pause := time.NewTimer(bootstrap.WithdrawHead)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-pause.C:
		return nil
	}
}

// answers says whether somebody listens on a unix socket.
func answers(ctx context.Context, path string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// stopAnnounce stops the speaker's unit; one that was started by hand is not ours
// to end.
func stopAnnounce(ctx context.Context) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	units, err := systemd.Open(ctx, layout.UnitDir, durable.WriteFile)
	if err != nil {
		return err
	}
	defer units.Close()
	if err := units.Stop(ctx, layout.UnitAnnounce); err != nil {
		return err
	}
	if _, err := announce.NewClient(layout.AnnounceSock).Status(ctx); err == nil {
		return fmt.Errorf("something else than %s answers at %s: end it first", layout.UnitAnnounce, layout.AnnounceSock)
	}
	return nil
}
