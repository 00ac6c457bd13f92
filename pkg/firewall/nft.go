package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/plan"
)

// errNoProgram says that nft is not on this server.
var errNoProgram = errors.New("nft is not installed, so the ports of Kubernetes and muster are open to everybody who reaches this server: install the package nftables, " +
	"or write spec.network.firewall.mode: off")

// patience bounds one run of nft, which takes milliseconds.
const patience = 10 * time.Second

// nft is the program nft(8) in this network namespace.
type nft struct{}

// List runs nft list.
func (nft) List(ctx context.Context) (string, error) {
	out, said, err := run(ctx, "", "--stateless", "list", "table", "inet", plan.FirewallTable)
	// It has no exit code of its own for what is not there.
	if err != nil && strings.Contains(said, "No such file or directory") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list the table inet %s: %w", plan.FirewallTable, err)
	}
	return out, nil
}

// Load runs nft with the script on stdin.
func (nft) Load(ctx context.Context, script string) error {
	if _, _, err := run(ctx, script, "--file", "-"); err != nil {
		return fmt.Errorf("write the table inet %s: %w", plan.FirewallTable, err)
	}
	return nil
}

// run runs nft and returns what it printed and said.
func run(ctx context.Context, stdin string, args ...string) (out, said string, err error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		return "", "", errNoProgram
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err = cmd.Run()
	said = strings.TrimSpace(stderr.String())
	if err != nil {
		first, _, _ := strings.Cut(said, "\n")
		err = fmt.Errorf("nft failed, a kernel without nf_tables or its fib expression perhaps: %w: %s", err, first)
	}
	return stdout.String(), said, err
}

// groupNFTables is NFNLGRP_NFTABLES (uapi/linux/netfilter/nfnetlink.h).
const groupNFTables = 7

// watchKernel calls changed after every change of muster's table until ctx ends or
// the event socket fails.
func watchKernel(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER, groupNFTables)
	if err != nil {
		return fmt.Errorf("subscribe to nftables events: %w", err)
	}
	defer context.AfterFunc(ctx, s.Close)()
	defer s.Close()
	changed() // what happened before the subscription
	for {
		messages, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS): // kube-proxy writes much at once
			changed()
			continue
		case err != nil:
			return fmt.Errorf("receive nftables events: %w", err)
		case from.Pid != nl.PidKernel:
			continue // another process may send to our socket
		}
		for _, m := range messages {
			if names(m.Data) {
				changed()
			}
		}
	}
}

// names says whether an event is about muster's table. Events about tables, chains,
// rules and sets begin with struct nfgenmsg (4 bytes) and the table's name as an
// attribute; where another attribute holds these bytes, a look too many is made.
func names(data []byte) bool {
	return bytes.Contains(data, append([]byte(plan.FirewallTable), 0))
}
