// Command bench measures muster against its budgets and prints a table. It exits
// with 1 when one is missed.
//
//	go run ./test/bench              # five pairs of clusters, about a quarter of an hour
//	go run ./test/bench --pairs 1    # quick, and worth less
//	go run ./test/bench --fence      # the fence alone, some minutes
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/mustermetal/muster/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	missed, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if missed > 0 {
		fmt.Fprintf(os.Stderr, "bench: %d budgets missed\n", missed)
		os.Exit(1)
	}
}

// bench is one run of all measurements.
type bench struct {
	controlPlanes, workers, pairs, formations int
	cache, dir, agent, userdata               string
	image                                     images.Image
}

func run(ctx context.Context) (missed int, err error) {
	var b bench
	flag.IntVar(&b.controlPlanes, "control-planes", 3, "control planes of each cluster")
	flag.IntVar(&b.workers, "workers", 2, "workers of each cluster")
	flag.IntVar(&b.pairs, "pairs", 5, "how often to form a cluster by agents and one by the script")
	flag.StringVar(&b.cache, "cache", os.Getenv("MUSTER_CACHE"), "directory of everything built (default: muster in the user's cache directory)")
	flag.StringVar(&b.agent, "agent", "bin/bootstrap", "the agent")
	flag.StringVar(&b.userdata, "userdata", "bin/userdata", "the generator")
	fenceOnly := flag.Bool("fence", false, "measure the fence alone, on light servers")
	flag.IntVar(&b.formations, "formations", 20, "how many light clusters to form for a median")
	flag.Parse()
	if flag.NArg() > 0 || b.pairs < 1 {
		return 0, fmt.Errorf("arguments %q, %d pairs; expected flags only and at least one pair", flag.Args(), b.pairs)
	}
	if b.cache, err = images.DefaultCache(b.cache); err != nil {
		return 0, err
	}
	b.dir = filepath.Join(b.cache, "bench")
	if !*fenceOnly {
		if b.image, err = images.Ensure(ctx, images.Options{Cache: b.cache, Agent: b.agent, Log: os.Stderr}); err != nil {
			return 0, err
		}
	}
	var results []result
	measures := []func(context.Context) ([]result, error){b.binary, b.fence, b.formation}
	if *fenceOnly {
		measures = []func(context.Context) ([]result, error){b.fence}
	}
	for _, measure := range measures {
		more, err := measure(ctx)
		if err != nil {
			return 0, err
		}
		results = append(results, more...)
	}
	fmt.Println()
	return table(os.Stdout, results), nil
}
