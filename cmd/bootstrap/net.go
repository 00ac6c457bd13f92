package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/metadata"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/speakers"
)

// netCommands are the subcommands of bootstrap net.
var netCommands = []command{
	{"status", "show what should be on lo and in the routing table, what is, and the BGP sessions", netStatusCommand},
	{"plan", "say what the agent would write now, and write nothing", netPlanCommand},
	{"reset", "take muster's addresses and routes off this server, after a withdrawal", netResetCommand},
	{"routes", "lay the routes to the routers from the stored metadata (muster-routes.service)", netRoutesCommand},
	{"render", "print the configuration of the speaker of Services", netRenderCommand},
}

func netHelp() string {
	help := "bootstrap net is about this server's addresses and routes, and what it and others announce.\n\nUsage: bootstrap net COMMAND [flags]\n\n"
	for _, c := range netCommands {
		help += fmt.Sprintf("  %-8s %s\n", c.name, c.summary)
	}
	return help + netHelpEnd
}

const netHelpEnd = `
Examples:
  bootstrap net status                    # Elastic IPs, routes and BGP sessions of this server
  bootstrap net render                    # for MetalLB, Calico or Cilium

Exit codes: 0 done, 64 wrong command line. bootstrap net COMMAND --help says more.
`

func netCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	for _, c := range netCommands {
		if len(args) > 0 && args[0] == c.name {
			return c.run(ctx, args[1:], stdout, stderr)
		}
	}
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Fprint(stdout, netHelp())
		return nil
	}
	err := errors.New("a command is missing; bootstrap net --help lists them")
	if len(args) > 0 {
		err = fmt.Errorf("unknown command %q; bootstrap net --help lists them", args[0])
	}
	return exitError{exitUsage, err}
}

const netRenderHelp = `bootstrap net render prints the objects that make spec.network.bgp.services (MetalLB,
Calico or Cilium, which you install) announce spec.network.loadBalancer.pools to the
routers that this server's metadata name. docs/network.md says which, and why.

Where every server has the same routers the objects are for all nodes. Where a server
has routers of its own, such as the gateway of its /31, they are for its node: run this
on every server that shall announce Services, and apply each. With platform static the
cluster file describes all servers, and one run is enough.

Usage: bootstrap net render [--with-secrets]

Examples:
  bootstrap net render                    # look first; Secrets are left out
  bootstrap net render --with-secrets | kubectl --kubeconfig /etc/kubernetes/admin.conf apply --server-side -f -

Exit codes: 0 done, 64 wrong command line, 65 the stored metadata cannot be read, 69 there
are none yet, 77 not root, 78 cluster file or metadata do not allow it.
`

func netRenderCommand(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("net render", netRenderHelp, stdout)
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	stored := flags.String("device", layout.Device, "the `file` with this server's metadata, as the agent stores it")
	secrets := flags.Bool("with-secrets", false, "print the Secrets with the BGP passwords too")
	if err := flags.parse(args); err != nil {
		return err
	}
	c, err := readEffective(*config)
	if err != nil {
		return err
	}
	servers, err := describedServers(c, *stored)
	if err != nil {
		return err
	}
	documents, err := speakers.Services(c.Spec, servers)
	if err != nil {
		return exitError{exitConfig, err}
	}
	all := len(documents)
	if !*secrets {
		documents = slices.DeleteFunc(documents, func(d speakers.Document) bool { return d.Secret })
	}
	out, err := speakers.Marshal(documents)
	if err != nil {
		return err
	}
	if n := all - len(documents); n > 0 {
		fmt.Fprintf(stderr, "bootstrap net render: left out: %d with BGP passwords (Secrets); --with-secrets prints them\n", n)
	}
	if own := func(d speakers.Document) bool { return d.Node != "" }; len(servers) == 1 && slices.ContainsFunc(documents, own) {
		fmt.Fprintf(stderr, "bootstrap net render: the peers are those of node %s alone: run this on every server that shall announce Services\n", servers[0].Node)
	}
	_, err = stdout.Write(out)
	return err
}

// describedServers are the servers whose metadata is at hand: all that the cluster
// file describes, else this one.
func describedServers(c cluster.Cluster, stored string) ([]speakers.Server, error) {
	var devices []device.Device
	if c.Spec.Platform == cluster.PlatformStatic {
		devices = plan.Described(c.Spec.Static)
	}
	if len(devices) == 0 {
		d, err := storedDevice(stored)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	var servers []speakers.Server
	for _, d := range devices {
		node, err := device.NodeName(d.Hostname)
		if err != nil {
			return nil, exitError{exitConfig, err}
		}
		servers = append(servers, speakers.Server{Node: node, Device: d})
	}
	return servers, nil
}

// storedDevice reads the metadata that the agent keeps.
func storedDevice(path string) (device.Device, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return device.Device{}, exitError{exitUnavailable, fmt.Errorf("reading the stored metadata: %w (the agent stores it when the metadata service has answered; bootstrap status says how far it is)", err)}
	case errors.Is(err, fs.ErrPermission):
		return device.Device{}, exitError{exitPermission, fmt.Errorf("reading the stored metadata: %w (it holds passwords: run this as root)", err)}
	case err != nil:
		return device.Device{}, fmt.Errorf("reading the stored metadata: %w", err)
	}
	d, err := metadata.Unmarshal(data)
	if err != nil {
		return device.Device{}, exitError{exitData, err}
	}
	return d, nil
}
