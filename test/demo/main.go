// Command demo boots a whole cluster of test servers from rendered user-data,
// shows how far each is until all nodes are Ready, and leaves it running.
//
//	go run ./test/demo [--control-planes 3] [--workers 2]
//	go run ./test/demo --shell cp1
//	go run ./test/demo --down
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/test/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	controlPlanes, workers int
	cache, dir             string
	agent, userdata        string
	deadline               time.Duration
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.controlPlanes, "control-planes", 3, "how many servers may become control planes")
	flag.IntVar(&o.workers, "workers", 2, "how many others")
	flag.StringVar(&o.cache, "cache", os.Getenv("MUSTER_CACHE"), "directory of everything built (default: muster in the user's cache directory)")
	flag.StringVar(&o.dir, "dir", "", "directory of the servers (default: demo in the cache)")
	flag.StringVar(&o.agent, "agent", "bin/bootstrap", "the agent")
	flag.StringVar(&o.userdata, "userdata", "bin/userdata", "the generator")
	flag.DurationVar(&o.deadline, "deadline", 20*time.Minute, "when to give up")
	down := flag.Bool("down", false, "remove the servers of an earlier demo")
	shell := flag.String("shell", "", "open a shell on the `server` of an earlier demo; further arguments are run instead")
	flag.Parse()
	var err error
	if o.cache, err = images.DefaultCache(o.cache); err != nil {
		return err
	}
	if o.dir == "" {
		o.dir = filepath.Join(o.cache, "demo")
	}
	switch {
	case *down:
		return rig.Destroy(ctx, o.dir, nil)
	case *shell != "":
		return openShell(ctx, o.dir, *shell, flag.Args())
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; --help lists the flags", flag.Arg(0))
	}
	return demo(ctx, o)
}

func openShell(ctx context.Context, dir, name string, argv []string) error {
	r, err := rig.Open(dir, nil)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no demo runs in %s; make demo starts one", dir)
	}
	if err != nil {
		return err
	}
	s, err := r.Server(name)
	if err != nil {
		return err
	}
	return s.Shell(ctx, os.Getenv("TERM"), argv...)
}
