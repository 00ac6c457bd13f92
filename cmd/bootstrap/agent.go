package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cloudinit"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/events"
	"github.com/mustermetal/muster/pkg/firewall"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/systemd"
)

const agentHelp = `bootstrap agent brings this server into its cluster and keeps it there. It runs in
muster.service.

Usage: bootstrap agent [--config FILE] [--debug]

Examples:
  systemctl restart muster               # always safe: it resumes where it was
  journalctl -u muster -f                # what it does; bootstrap status says how far
  systemctl edit muster                  # more in the journal from the next restart on:
                                         #   [Service]
                                         #   ExecStart=
                                         #   ExecStart=/usr/local/bin/bootstrap agent --debug

Exit codes: 0 stopped, 1 failed (start it again), 77 not root, 78 the cluster file is wrong.
`

func agentCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("agent", agentHelp, stdout)
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	debug := flags.Bool("debug", false, "log every attempt, also those that are expected to fail")
	if err := flags.parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return exitError{exitPermission, errors.New("the agent sets addresses, routes and units: run it as root")}
	}
	c, err := readCluster(*config)
	if err != nil {
		return err
	}
	log := newLog(stderr, *debug)
	revised := openRevisions(c, layout.Spec)
	machine, err := openMachine(ctx, revised, log)
	if err != nil {
		return err
	}
	go scrubUserData(ctx, c, log)
	a := bootstrap.New(machine)
	return a.Run(ctx, func(ctx context.Context, server *bootstrap.Server) error {
		return serveLocal(ctx, layout.Socket, server, func() {
			notifyOnce(log, systemd.Ready())
			go func() {
				stuck := func(err error) { log.Error("watchdog", "error", err) }
				if err := systemd.Watchdog(ctx, server.Alive, stuck); err != nil {
					stuck(err)
				}
			}()
		})
	})
}

// scrubUserData takes the secrets of the cluster file out of what else keeps them here.
func scrubUserData(ctx context.Context, c cluster.Cluster, log *slog.Logger) {
	s := cloudinit.Scrubber{Root: "/", Secrets: []string{c.Secret.Reveal(), c.APIToken.Reveal()}, Write: durable.WriteFile, Poll: 5 * time.Second}
	files, err := s.Run(ctx)
	if len(files) > 0 {
		log.Info("the secret was taken out of cloud-init's copies of user-data", "files", strings.Join(files, " "))
	}
	if err != nil {
		log.Warn("user-data", "error", err)
	}
}

// newLog writes key=value lines; journald adds the time.
func newLog(w io.Writer, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

func notifyOnce(log *slog.Logger, err error) {
	if err != nil {
		log.Debug("telling systemd", "error", err)
	}
}

// readCluster reads this server's copy of the cluster file. What is wrong with it
// no restart can cure: exit 78 with every problem and its place.
func readCluster(path string) (cluster.Cluster, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrPermission) {
		return cluster.Cluster{}, exitError{exitPermission, fmt.Errorf("reading the cluster file: %w (it holds the secret: run this as root)", err)}
	}
	if err != nil {
		return cluster.Cluster{}, exitError{exitConfig, fmt.Errorf("reading the cluster file: %w (userdata render writes it into user-data, cloud-init lays it down)", err)}
	}
	c, problems := cluster.ParseServer(path, data)
	if err := cluster.Err(problems); err != nil {
		return c, exitError{exitConfig, err}
	}
	return c, nil
}

// openMachine opens the hands that need nothing but this machine.
func openMachine(ctx context.Context, revised *revisions, log *slog.Logger) (bootstrap.Machine, error) {
	c := revised.now
	var none bootstrap.Machine
	for _, dir := range []string{layout.State, layout.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return none, fmt.Errorf("making %s: %w", dir, err)
		}
	}
	boot, err := readBoot()
	if err != nil {
		return none, err
	}
	journal, err := durable.OpenJournal(layout.Journal, boot, time.Now)
	if err != nil {
		return none, err
	}
	units, err := systemd.Open(ctx, layout.UnitDir, durable.WriteFile)
	if err != nil {
		return none, err
	}
	here := thisMachine()
	here.Drive = func(ctx context.Context) error { return readDrive(ctx, units) }
	k := newKubernetes(c, units, journal)
	have := newArtefacts(c, log)
	id := &settler{cluster: c, boot: boot, root: "/", hardware: readHardware, forget: journal.Forget, log: log}
	return bootstrap.Machine{
		Cluster: c, Log: log, Now: time.Now,
		Notify:     func(text string) { notifyOnce(log, systemd.Status(text)) },
		Metadata:   platform{cluster: c, file: layout.Device, patience: copyPatience, machine: here, log: log},
		Network:    ground{network.New(layout.NetworkState, log)},
		Firewall:   firewall.New(layout.FirewallState, log),
		Host:       newHost(c, units, have.Store, log),
		Journal:    journal,
		Kubernetes: k,
		Authority:  k,
		Addons:     addOns{list: c.Spec.Addons, revision: revised.running.Revision, kubernetes: k},
		Directory:  directoryUnit{units: units, client: directory.NewClient(layout.DirectorySock), data: layout.Directory, plan: layout.DirectoryPlan, port: c.Spec.Ports.Directory, state: id.current},
		Speaker:    speaker{units: units, client: announce.NewClient(layout.AnnounceSock), plan: layout.AnnouncePlan},
		Health:     health{},
		Clock:      clock{},
		Revisions:  revised,
		Program:    newProgram(c, have, units),
		Outward:    events.New(c.Spec.Report.Webhook, c.Spec.Report.TellsPlatform(), log),
		Settle:     func(d device.Device) (bootstrap.Settled, error) { return id.settle(d) },
		Connect: func(ctx context.Context, self bootstrap.Self, server *bootstrap.Server) (bootstrap.Fabric, error) {
			_, fabric, err := connect(ctx, layout.PKI, layout.Revoked, c, have, log, self, server)
			fabric.State = id
			fabric.GoStands = func(epoch uint64) error {
				return writeGoStands(layout.GoStands, self.Inst, epoch)
			}
			return fabric, err
		},
	}, nil
}
