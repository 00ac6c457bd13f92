package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/firewall"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/speakers"
	"github.com/mustermetal/muster/pkg/systemd"
)

const netResetHelp = `bootstrap net reset takes muster's addresses, routes and firewall off this server: it stops
the speaker, or takes away kube-vip's pod where muster laid it, which withdraws the Elastic
IPs; then removes them from lo with the connections that were made by them, then the routes
to the top-of-rack routers, then the table inet muster of nftables. What others added stays.
The agent puts everything back when it runs, so it refuses while it does.

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
	stopSpeaker, endKubeVIP        func(ctx context.Context) error
	guarded, unguard               func(ctx context.Context) (bool, error) // whether there is a firewall; remove it
}

func newNetReset() netReset {
	return netReset{
		state: layout.NetworkState, agent: layout.Socket, speaker: layout.AnnounceSock, kubeVIP: layout.KubeVIP,
		stopSpeaker: stopAnnounce, endKubeVIP: endKubeVIP, guarded: firewall.Present, unguard: firewall.Remove,
	}
}

func netResetCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	r := newNetReset()
	flags := newFlags("net reset", netResetHelp, stdout)
	flags.StringVar(&r.state, "state", r.state, "the `file` that lists our IPv6 addresses")
	flags.StringVar(&r.agent, "socket", r.agent, "the `path` of the agent's socket")
	flags.StringVar(&r.speaker, "speaker", r.speaker, "the `path` of the speaker's socket")
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
	have, err := r.look(ctx, reconciler, stderr)
	if err != nil {
		return err
	}
	for _, line := range have.lines() {
		fmt.Fprintln(stdout, line)
	}
	switch {
	case len(have.lines()) == 0:
		fmt.Fprintln(stdout, "Nothing of muster's is here.")
		return nil
	case !r.yes:
		fmt.Fprintln(stdout, "Nothing was done: add --yes to do it.")
		return nil
	}
	if err := r.takeOff(ctx, reconciler, have); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "Done.")
	return nil
}

// takeOff removes what was found.
func (r netReset) takeOff(ctx context.Context, reconciler *network.Reconciler, have ours) error {
	if err := r.withdraw(ctx, have); err != nil {
		return err
	}
	return r.clear(ctx, reconciler, have)
}

// clear removes addresses, routes and the firewall, once nothing is announced.
func (r netReset) clear(ctx context.Context, reconciler *network.Reconciler, have ours) error {
	if err := reconciler.Apply(ctx, plan.Network{}); err != nil {
		return fmt.Errorf("removing addresses and routes: %w", err)
	}
	if have.left.IsValid() {
		if err := reconciler.TakeAway(have.left); err != nil {
			return fmt.Errorf("removing addresses and routes: %w", err)
		}
	}
	_, err := r.unguard(ctx)
	return err
}

// ours is what there is of muster's on this server.
type ours struct {
	speaks, kubeVIP, guarded bool
	changes                  []network.Change // that undo addresses and routes
	left                     netip.Prefix     // kube-vip put it on lo, and would leave it there
}

func (o ours) lines() []string { return slices.Concat(o.withdrawn(), o.cleared()) }

func (o ours) withdrawn() []string {
	var out []string
	if o.speaks {
		out = append(out, fmt.Sprintf("stop %s, which withdraws what it announces", layout.UnitAnnounce))
	}
	if o.kubeVIP {
		out = append(out, "take away the pod of kube-vip, which withdraws what it announces")
	}
	return out
}

func (o ours) cleared() []string {
	var out []string
	for _, c := range o.changes {
		out = append(out, c.String())
	}
	if o.left.IsValid() {
		out = append(out, fmt.Sprintf("remove %s on lo, which kube-vip added", o.left))
	}
	if o.guarded {
		out = append(out, fmt.Sprintf("remove the firewall, the table inet %s of nftables", plan.FirewallTable))
	}
	return out
}

func (r netReset) look(ctx context.Context, reconciler *network.Reconciler, stderr io.Writer) (ours, error) {
	have := ours{speaks: answers(ctx, r.speaker)}
	var wanted plan.Network
	manifest, err := os.ReadFile(r.kubeVIP)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return have, fmt.Errorf("looking for kube-vip: %w", err)
	default:
		var a netip.Addr
		if a, have.kubeVIP = speakers.KubeVIPAddress(manifest); have.kubeVIP {
			wanted.Addresses = []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
		} else {
			fmt.Fprintf(stderr, "bootstrap net reset: %s is not muster's, and kube-vip may announce as long as it is there\n", r.kubeVIP)
		}
	}
	found, err := reconciler.Look(wanted)
	if err != nil {
		return have, err
	}
	for _, a := range found.Addresses {
		if !a.Ours {
			have.left = a.Prefix
		}
	}
	if found, err = reconciler.Look(plan.Network{}); err != nil {
		return have, err
	}
	have.changes = found.Changes
	have.guarded, err = r.guarded(ctx)
	return have, err
}

// withdraw ends who announces and gives the routers the time to act on it.
func (r netReset) withdraw(ctx context.Context, have ours) error {
	if !have.speaks && !have.kubeVIP {
		return nil
	}
	if have.speaks {
		if err := r.stopSpeaker(ctx); err != nil {
			return fmt.Errorf("nothing was removed, because the speaker does not stop: %w", err)
		}
	}
	if have.kubeVIP {
		if err := r.endKubeVIP(ctx); err != nil {
			return fmt.Errorf("no address, route or firewall was removed: %w", err)
		}
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

// endKubeVIP takes the pod away that muster laid, and waits until it has ended.
func endKubeVIP(ctx context.Context) error {
	return (&kubeadm.Kubeadm{Root: "/"}).EndKubeVIP(ctx)
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
