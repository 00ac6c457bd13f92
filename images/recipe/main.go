// Command recipe builds the image of a test server, as far as it is not in the
// cache, and prints as JSON what to boot from:
//
//	{"lower": ["/.../bake-…/root", "/.../server-…/root", "/.../debian-…/root"], "containerd": "/.../server-…/containerd"}
//
// It talks on stderr.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/mustermetal/muster/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "recipe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := images.Options{Log: os.Stderr}
	cache := flag.String("cache", os.Getenv("MUSTER_CACHE"), "directory of everything built (default: muster in the user's cache directory)")
	flag.StringVar(&o.Agent, "agent", "", "the bootstrap binary to bake in; without it the root has no agent")
	flag.StringVar(&o.Artifacts, "artifacts", "", "`directory` of programs to bake instead of Kubernetes, as bootstrap bake takes it")
	flag.StringVar(&o.Source, "source", "", "root of the muster repository (default: found from the working directory)")
	flag.Parse()
	var err error
	if o.Cache, err = images.DefaultCache(*cache); err != nil {
		return err
	}
	image, err := images.Ensure(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(image)
}
