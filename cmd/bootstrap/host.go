package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/systemd"
)

// preparation is the host's preparation and what networkd needs beside it.
type preparation struct {
	*host.Host
	units *systemd.Manager
}

func newHost(c cluster.Cluster, units *systemd.Manager, log *slog.Logger) preparation {
	return preparation{&host.Host{
		Cluster: c, Units: units, Write: durable.WriteFile, Run: host.Run, Free: host.Free, Log: log, Root: "/",
	}, units}
}

// Prepare keeps networkd from deleting our routes, where it runs, then prepares
// the rest.
func (p preparation) Prepare(ctx context.Context, report func(string)) error {
	report("networkd")
	active, err := p.units.Active(ctx, "systemd-networkd.service")
	if err != nil {
		return err
	}
	if path, content := network.NetworkdDropIn(); active {
		if old, err := os.ReadFile(path); err != nil || string(old) != string(content) {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return fmt.Errorf("making room for networkd's drop-in: %w", err)
			}
			if err := durable.WriteFile(path, content, 0o644); err != nil {
				return err
			}
		}
	}
	return p.Host.Prepare(ctx, report)
}
