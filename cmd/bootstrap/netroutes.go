package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
)

const netRoutesHelp = `bootstrap net routes lays the routes to the top-of-rack routers from the stored metadata.
muster-routes.service runs it at boot, before the kubelet; from then on the agent keeps
them. Addresses on lo stay as they are.

Usage: bootstrap net routes

Examples:
  systemctl status muster-routes         # whether it could at this boot
  bootstrap net routes                   # again, by hand

Exit codes: 0 done, 1 not within 10 s, and a sentence says why, 64 wrong command line, 65
the stored metadata cannot be read, 69 there are none yet, 77 not root.
`

const (
	// routesPatience is for a private address that comes a moment late.
	routesPatience = 10 * time.Second
	routesRetry    = 500 * time.Millisecond
)

func netRoutesCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("net routes", netRoutesHelp, stdout)
	stored := flags.String("device", layout.Device, "the `file` with this server's metadata, as the agent stores it")
	state := flags.String("state", layout.NetworkState, "the `file` that lists our IPv6 addresses")
	if err := flags.parse(args); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	d, err := storedDevice(*stored)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, routesPatience)
	defer cancel()
	return layRoutes(ctx, network.New(*state, newLog(stderr, false)), plan.ToRRoutes(d))
}

// layRoutes tries until the routes are there or ctx ends. The Elastic IPs that an
// agent holds stay: their time is its to judge.
func layRoutes(ctx context.Context, r *network.Reconciler, routes []plan.Route) error {
	tick := time.NewTicker(routesRetry)
	defer tick.Stop()
	for {
		held, err := r.Addresses()
		if err == nil {
			err = r.Apply(ctx, plan.Network{Addresses: held, Routes: routes})
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("laying the routes to the routers: %w (the agent goes on trying)", err)
		case <-tick.C:
		}
	}
}
