package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/mustermetal/muster/pkg/artifact"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/systemd"
)

// preparation is the host's preparation and what networkd needs beside it.
type preparation struct {
	*host.Host
	units interface {
		Active(ctx context.Context, unit string) (bool, error)
	}
	log  *slog.Logger
	root string // "/"; another directory in tests
}

func newHost(c cluster.Cluster, units *systemd.Manager, store *artifact.Store, log *slog.Logger) preparation {
	return preparation{Host: &host.Host{
		Cluster: c, Arch: runtime.GOARCH, Prefix: ownPrefix(), Units: units, Artifacts: store, Write: durable.WriteFile, Run: host.Run, Free: host.Free, Log: log, Root: "/",
	}, units: units, log: log, root: "/"}
}

// Prepare keeps networkd from deleting our routes, where it runs, then prepares
// the rest.
func (p preparation) Prepare(ctx context.Context, report func(member.Preparation)) error {
	report(member.Preparation{Step: "networkd"})
	if err := p.keepRoutes(ctx); err != nil {
		return err
	}
	return p.Host.Prepare(ctx, report)
}

// keepRoutes writes networkd's drop-in. It counts from networkd's next start, and
// restarting networkd for it would do the harm that it prevents.
func (p preparation) keepRoutes(ctx context.Context) error {
	const unit = "systemd-networkd.service"
	active, err := p.units.Active(ctx, unit)
	if err != nil || !active {
		return err
	}
	path, content := network.NetworkdDropIn()
	at := filepath.Join(p.root, path)
	if old, err := os.ReadFile(at); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return fmt.Errorf("making room for networkd's drop-in: %w", err)
	}
	if err := durable.WriteFile(at, content, 0o644); err != nil {
		return err
	}
	p.log.Info("systemd-networkd leaves routes of others alone from its next start on; it is not restarted", "unit", unit, "file", path)
	return nil
}
