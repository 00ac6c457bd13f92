package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mustermetal/muster/pkg/drive"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/systemd"
	"github.com/mustermetal/muster/units"
)

const driveHelp = `bootstrap drive copies what a disk labelled config-2 or CIDATA says of this server to
/run/muster/drive, where the agent and bootstrap metadata read it. The disk is not mounted
and not written to, and its user-data stays where it is. The agent runs it in
muster-drive.service, where cloud-init has read no such disk.

Usage: bootstrap drive [--to DIRECTORY]

Examples:
  systemctl start muster-drive           # as the agent does it
  systemctl status muster-drive          # why it could not be read
  bootstrap drive --to /tmp/drive        # only look

Exit codes: 0 done, 1 there is no such disk, or it cannot be read, 64 wrong command line, 77
not root.
`

func driveCommand(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("drive", driveHelp, stdout)
	from := flags.String("by-label", "/dev/disk/by-label", "the `directory` with links to disks by their labels")
	to := flags.String("to", layout.Drive, "copy to this `directory`")
	if err := flags.parse(args); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	copied, err := drive.Copy(*from, *to)
	for _, path := range copied {
		fmt.Fprintln(stdout, "copied", path)
	}
	return err
}

// readDrive starts the unit that may open disks. On a server that was not baked the
// agent lays it first: metadata come before the other units.
func readDrive(ctx context.Context, manager *systemd.Manager) error {
	text := units.For(ownPrefix().Move)[layout.UnitDrive]
	if _, err := manager.Install(ctx, map[string][]byte{layout.UnitDrive: text}); err != nil {
		return err
	}
	err := manager.Start(ctx, layout.UnitDrive)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: is the disk slow or broken?", err)
	}
	return err
}
