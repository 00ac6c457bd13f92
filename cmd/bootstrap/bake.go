package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/mustermetal/muster/pkg/bake"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/units"
)

const bakeHelp = `bootstrap bake lays itself, its units and the Kubernetes artefacts into the root
file system of a server image, and checks that no identity is left in it.
It enables nothing and writes nothing secret: that comes with user-data. With
--user-data it is baked in: the image then is one cluster's, and holds its secret.

Usage: bootstrap bake --root DIR [--artifacts DIR] [--lock FILE [--from DIR]] [--user-data DIR]
       [--agent FILE] [--prefix DIR] [--clean] [--force]

Examples:
  bootstrap bake --root /mnt/image --artifacts ./artifacts
  bootstrap bake --root /mnt/image --clean     # and remove what a first boot makes anew
  bootstrap bake --root /mnt/image --lock cluster.lock.yaml               # from the mirrors
  bootstrap bake --root /mnt/image --lock cluster.lock.yaml --from mirror # from a directory
  userdata render --format dir --output-dir tree && bootstrap bake --root /mnt/image --user-data tree

The directory of artefacts holds kubeadm, kubelet, kubectl, containerd, ctr,
containerd-shim-runc-v2, optionally crictl and runc, and the CNI plugins in cni/.
These are programs that a server runs as they are.

With --lock what the lock file pins is laid in as it was published, each verified, in
PREFIX/share/muster/artifacts. Servers with user-data of that lock file install
from there and ask no mirror. What is there already is not fetched again; what is
pinned no more is removed. --from reads a directory laid out as userdata lock --from
has it.

Programs go below the prefix /usr/local, or with --prefix below /opt: into an image whose
/usr shall be read-only, as Flatcar's. Its user-data must have the same prefix: userdata
render has --prefix too, and makes ignition for /opt by default.

Exit codes: 0 done or nothing to do, 1 failed, 64 usage, 65 identity is left and
nothing was written, or the lock file is wrong or pins another agent.
`

// bakeCommand prints each path that it changed on stdout; a second run says
// that nothing changed.
func bakeCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("bake", bakeHelp, stdout)
	var o bake.Options
	prefix := flags.String("prefix", string(layout.Local), "the `directory` below which servers have their programs: /usr/local or /opt")
	flags.StringVar(&o.Root, "root", "", "`directory` that holds the root file system of the image")
	flags.StringVar(&o.Artifacts, "artifacts", "", "`directory` with kubeadm, kubelet, kubectl, containerd, ... and cni/")
	lock := flags.String("lock", "", "the lock `file` whose artefacts are laid in, for servers to install from")
	from := flags.String("from", "", "read them from this `directory` instead of their URLs; with --lock")
	flags.StringVar(&o.UserData, "user-data", "", "`directory` that userdata render --format dir made, to lay in and enable")
	flags.StringVar(&o.Agent, "agent", "", "the bootstrap `binary` to lay in (default: this one)")
	flags.BoolVar(&o.Clean, "clean", false, "remove the identity that a server makes anew at its first boot")
	flags.BoolVar(&o.Force, "force", false, "bake although identity is left")
	if err := flags.parse(args); err != nil {
		return err
	}
	if o.Root == "" {
		return flags.wrong(errors.New("--root DIR is missing: the directory where the image's root file system is mounted"))
	}
	if o.Prefix = layout.Prefix(*prefix); !slices.Contains(layout.Prefixes, o.Prefix) {
		return flags.wrong(fmt.Errorf("--prefix %q: expected one of %v", *prefix, layout.Prefixes))
	}
	o.Units = units.For(o.Prefix.Move)
	if o.Agent == "" {
		own, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding the binary to lay in: %w; name it with --agent FILE", err)
		}
		o.Agent = own
	}
	if *from != "" && *lock == "" {
		return flags.wrong(errors.New("--from DIR says where the artefacts of a lock file are: name that with --lock FILE"))
	}
	if *lock != "" {
		pins, err := readLock(*lock)
		if err != nil {
			return err
		}
		o.Pinned = pinned{pins, o.Agent, *from, stderr}.fetch
	}
	report, err := bake.Bake(ctx, o)
	printBake(stdout, stderr, report, err == nil)
	var left *bake.IdentityError
	switch {
	case errors.As(err, &left):
		return exitError{exitData, err}
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
		return exitError{exitPermission, fmt.Errorf("%w; run it as root", err)}
	}
	return err
}

func printBake(stdout, stderr io.Writer, r bake.Report, done bool) {
	for _, path := range r.Removed {
		fmt.Fprintln(stdout, "removed", path)
	}
	for _, path := range r.Changed {
		fmt.Fprintln(stdout, "laid", path)
	}
	if !done {
		return
	}
	for _, f := range r.Findings {
		fmt.Fprintln(stderr, "warning: identity is left:", f)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(stderr, note)
	}
	if len(r.Removed)+len(r.Changed) == 0 {
		fmt.Fprintln(stdout, "nothing changed")
	}
}
