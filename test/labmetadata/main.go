// Command labmetadata is a metadata service for a lab: it tells each server of an
// inventory what it is, in the forms of Packet, EC2, OpenStack and NoCloud, with
// faults on request. docs/lab-metadata.md describes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/mustermetal/muster/test/rig/metadata"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "labmetadata:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It says on which address, which --listen with port 0
// leaves open.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("labmetadata", flag.ContinueOnError)
	path := flags.String("inventory", "lab.yaml", "the `file` that describes the servers, or a directory of such files; read anew for every request")
	listen := flags.String("listen", ":80", "the `address` and port to answer on")
	files := flags.String("files", "", "a `directory` that is served below /files/")
	if err := flags.Parse(args); err != nil {
		return err
	}
	servers, err := metadata.Load(*path)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	fmt.Fprintf(stdout, "http://%s tells %d servers of %s what they are\n", l.Addr(), len(servers), *path)
	context.AfterFunc(ctx, func() { l.Close() })
	service := &metadata.Service{Inventory: *path, Files: *files, Neighbour: metadata.Neighbour}
	if err := service.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
