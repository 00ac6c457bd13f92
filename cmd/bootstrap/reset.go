package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/revocation"
	"github.com/mustermetal/muster/pkg/systemd"
)

const resetHelp = `bootstrap reset brings this server back to before its first boot with muster: its pods end,
its addresses, routes and firewall go, and so does what kubeadm, etcd and muster keep on
its disk, the keys and the vote among it. What the user-data laid, the programs, fetched
artefacts and container images stay. When muster.service starts again, it is a new
instance to the others, as after a reinstallation.

It refuses where a cluster counts on this server. When it was interrupted, the same
command goes on. Reboot afterwards: that clears what kube-proxy and the network add-on
left in the kernel.

Without --yes it only says what would happen and what that risks.

Usage: bootstrap reset [--yes] [--force]

Examples:
  bootstrap reset                        # what would go
  bootstrap reset --yes && systemctl reboot
  bootstrap reset --force                # why it is refused, and what force would risk

Exit codes: 0 done, 1 failed (do it again), 64 wrong command line, 77 refused, and a
sentence says why, or not root.
`

// resetUnits is what a reset needs of systemd.
type resetUnits interface {
	kubeadm.Units
	Active(ctx context.Context, unit string) (bool, error)
}

// reset is one run of the command.
type reset struct {
	root       string // "/"; another directory in tests
	yes, force bool
	units      resetUnits
	net        netReset
}

func resetCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("reset", resetHelp, stdout)
	r := reset{root: "/", net: newNetReset()}
	flags.BoolVar(&r.yes, "yes", false, "do it")
	flags.BoolVar(&r.force, "force", false, "do it although a cluster counts on this server")
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	if err := flags.parse(args); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	c, err := readCluster(*config)
	if err != nil { // a reset is the way out of a wrong file too
		fmt.Fprintf(stderr, "bootstrap reset: %v\n", err)
	}
	units, err := systemd.Open(ctx, layout.UnitDir, durable.WriteFile)
	if err != nil {
		return err
	}
	defer units.Close()
	r.units = units
	return r.run(ctx, c, stdout, stderr)
}

func (r reset) run(ctx context.Context, c cluster.Cluster, stdout, stderr io.Writer) error {
	life, err := r.life(c)
	if err != nil {
		return err
	}
	danger, err := bootstrap.WeighReset(life, r.force)
	if errors.Is(err, agent.ErrRefused) {
		return exitError{exitPermission, err}
	}
	if err != nil {
		return err
	}
	reconciler := network.New(r.net.state, quietLog(stderr))
	have, err := r.net.look(ctx, reconciler, stderr)
	if err != nil {
		return err
	}
	found, err := r.look(ctx)
	if err != nil {
		return err
	}
	lines := slices.Concat(found.unitLines(), have.withdrawn(), found.nodeLines(), have.cleared(), found.diskLines())
	if len(lines) == 0 {
		fmt.Fprintln(stdout, "Nothing of a former life is here.")
		return nil
	}
	for _, line := range slices.Concat(lines, danger) {
		fmt.Fprintln(stdout, line)
	}
	if !r.yes {
		fmt.Fprintln(stdout, "Nothing was done: add --yes to do it.")
		return nil
	}
	// The agent first: it would put everything back.
	if err := r.stop(ctx, resetFirst); err != nil {
		return err
	}
	if err := r.net.withdraw(ctx, have); err != nil {
		return err
	}
	// While the Elastic IP is still on lo: kubeadm asks the API server there which
	// member of etcd it has to take out. Without an answer it leaves a dead one behind.
	if err := r.leave(ctx, found); err != nil {
		return err
	}
	if err := r.net.clear(ctx, reconciler, have); err != nil {
		return err
	}
	if err := r.clear(ctx, found); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "Done. Reboot: this server then comes as a new instance, or stays out if you run systemctl disable muster first.")
	return nil
}

// Units in the order in which a reset stops them. The kubelet stays until
// kubeadm, which asks the API server of this server, stops it.
var (
	resetFirst = []string{layout.UnitUpgrade, layout.UnitAgent, layout.UnitKubeadmInit, layout.UnitKubeadmJoin}
	resetLast  = []string{layout.UnitKubelet, layout.UnitAnnounce, layout.UnitDirectory, layout.UnitRoutes}
)

func (r reset) stop(ctx context.Context, units []string) error {
	for _, unit := range units {
		if err := r.units.Stop(ctx, unit); err != nil {
			return err
		}
	}
	return nil
}

// remains are what there is of a former life.
type remains struct {
	active    []string // units
	node      bool     // kubeadm has something to reset
	full      []string // directories to empty: they may be mount points
	files     []string // files and directories to remove, the vote last
	elections bool
}

// Directories that a reset empties, and what it removes. The vote comes last: as
// long as it is there the fence knows this server, and it is nobody new.
var (
	resetEmpties = []string{layout.Kubernetes, layout.KubeletData, layout.EtcdData}
	resetRemoves = []string{
		layout.Journal, layout.Buried, layout.PKI, layout.Directory, layout.Device, layout.Upgrade, layout.Spec,
		layout.GoStands, layout.DirectoryPlan, layout.AnnouncePlan, layout.InitConfig, layout.JoinConfig, layout.DiscoveryFile,
	}
)

func (r reset) look(ctx context.Context) (remains, error) {
	var out remains
	for _, unit := range slices.Concat(resetFirst, resetLast) {
		active, err := r.units.Active(ctx, unit)
		if err == nil && !active {
			active, err = r.units.Activating(ctx, unit)
		}
		if err != nil {
			return out, err
		}
		if active {
			out.active = append(out.active, unit)
		}
	}
	out.node = kubeadm.Look(r.root, time.Now()).Any()
	for _, dir := range resetEmpties {
		entries, err := os.ReadDir(r.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, fmt.Errorf("looking for what a former life left: %w", err)
		}
		if len(entries) > 0 {
			out.full = append(out.full, dir)
		}
	}
	removes, err := r.removes()
	if err != nil {
		return out, err
	}
	for _, path := range removes {
		if r.exists(path) {
			out.files = append(out.files, path)
		}
	}
	out.elections = r.exists(layout.Elect)
	return out, nil
}

// removes are the files and directories to remove. Marks that this server made a
// directory lie beside it, so that nothing else takes them away: a new instance with
// the right to make one would be refused by them.
func (r reset) removes() ([]string, error) {
	marks, err := filepath.Glob(r.path(layout.Directory + "-*.made"))
	if err != nil {
		return nil, fmt.Errorf("looking for what a former life left: %w", err)
	}
	out := slices.Clone(resetRemoves)
	for _, mark := range marks {
		out = append(out, filepath.Join(layout.State, filepath.Base(mark)))
	}
	return out, nil
}

func (r reset) exists(path string) bool {
	_, err := os.Lstat(r.path(path))
	return err == nil
}

func (f remains) unitLines() []string {
	var out []string
	for _, unit := range f.active {
		if unit != layout.UnitAnnounce { // it is among those of the network
			out = append(out, "stop "+unit)
		}
	}
	return out
}

func (f remains) nodeLines() []string {
	if !f.node {
		return nil
	}
	return []string{"run kubeadm reset, which ends the pods and, where its API server answers, takes this server's etcd out of the cluster's"}
}

func (f remains) diskLines() []string {
	var out []string
	for _, dir := range f.full {
		out = append(out, "empty "+dir)
	}
	for _, path := range f.files {
		out = append(out, "remove "+path)
	}
	if f.elections {
		out = append(out, "remove "+layout.Elect+", this server's vote and instance")
	}
	return out
}

// leave has kubeadm end the node.
func (r reset) leave(ctx context.Context, found remains) error {
	if !found.node {
		return nil
	}
	return (&kubeadm.Kubeadm{Units: r.units, Write: durable.WriteFile, Root: r.root}).Reset(ctx)
}

// clear removes what was found. It is cut off anywhere and begun again.
func (r reset) clear(ctx context.Context, found remains) error {
	if err := r.stop(ctx, resetLast); err != nil {
		return err
	}
	for _, dir := range resetEmpties {
		if err := r.empty(dir); err != nil {
			return err
		}
	}
	removes, err := r.removes()
	if err != nil {
		return err
	}
	for _, path := range removes {
		if err := os.RemoveAll(r.path(path)); err != nil {
			return fmt.Errorf("removing what a former life left: %w", err)
		}
	}
	if err := durable.Flush(r.path(layout.State)); err != nil {
		return err
	}
	if err := os.RemoveAll(r.path(layout.Elect)); err != nil {
		return fmt.Errorf("removing this server's vote: %w", err)
	}
	return durable.Flush(r.path(layout.State))
}

func (r reset) empty(dir string) error {
	entries, err := os.ReadDir(r.path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("emptying %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(r.path(dir), e.Name())); err != nil {
			return fmt.Errorf("emptying %s: %w (a mount below it? findmnt -R %s)", dir, err, dir)
		}
	}
	return nil
}

func (r reset) path(name string) string { return filepath.Join(r.root, name) }

// life reads what this server's disk says of its part in the cluster.
func (r reset) life(c cluster.Cluster) (bootstrap.Life, error) {
	traces := kubeadm.Look(r.root, time.Now())
	l := bootstrap.Life{Config: election.FromSpec(c.Spec), CAHash: traces.CAHash, Etcd: traces.EtcdData}
	found, err := durable.Read(r.path(layout.Elect))
	if err != nil {
		return l, err
	}
	l.State = found.State
	entries, err := durable.ReadJournal(r.path(layout.Journal))
	if err != nil {
		return l, err
	}
	done := func(step string) bool { return durable.Last(entries, step) == durable.Done }
	l.Made = done(kubeadm.StepInit) || done(kubeadm.StepJoin)
	l.Left = done(bootstrap.StepLeft)
	switch {
	case done(bootstrap.StepControlPlane):
		l.Role = member.ControlPlane
	case done(bootstrap.StepWorker):
		l.Role = member.Worker
	}
	data, err := os.ReadFile(r.path(layout.Revoked))
	if err == nil && l.State != nil {
		removed, err := revocation.Parse(data)
		if err != nil {
			return l, fmt.Errorf("%s: %w", layout.Revoked, err)
		}
		l.Removed = slices.Contains(revocation.Insts(removed), l.State.Inst)
	}
	return l, nil
}
