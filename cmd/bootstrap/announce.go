package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/layout"
)

const announceHelp = `bootstrap announce is the BGP speaker: it announces the Elastic IPs to the top-of-rack
routers while they are on lo and this server's API server is healthy.
muster-announce.service starts it; the agent writes its plan.

Usage: bootstrap announce [flags]

Examples:
  systemctl status muster-announce       # what it announces, and its sessions
  systemctl kill -s HUP muster-announce  # read the plan again
  journalctl -u muster-announce          # when a session came or went, and why

Exit codes: 0 told to stop, 1 failed and may be started again, 69 the agent wrote no
plan yet, 78 the plan is wrong.
`

// announceCommand runs the BGP speaker until it is told to stop. SIGHUP makes it
// read its plan again.
func announceCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("announce", announceHelp, stdout)
	config := flags.String("config", layout.AnnouncePlan, "the `file` that says what to announce to whom; the agent writes it")
	socket := flags.String("socket", layout.AnnounceSock, "the `path` of the socket that the agent talks to")
	debug := flags.Bool("debug", false, "log every change of a session")
	if err := flags.parse(args); err != nil {
		return err
	}
	log := newLog(stderr, *debug)

	reload := make(chan struct{}, 1)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				select {
				case reload <- struct{}{}:
				case <-ctx.Done():
				}
			}
		}
	}()

	err := announce.Run(ctx, announce.Options{
		PlanFile: *config,
		Socket:   *socket,
		Reload:   reload,
		Notify: func(state string) {
			if _, err := daemon.SdNotify(false, state); err != nil {
				log.Warn("systemd not notified", "err", err)
			}
		},
		Log: log,
	})
	switch {
	case errors.Is(err, announce.ErrPlan):
		return exitError{exitConfig, err}
	case errors.Is(err, announce.ErrNoPlan):
		return exitError{exitUnavailable, err}
	}
	return err
}
