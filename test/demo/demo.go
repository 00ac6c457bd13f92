package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/test/rig"
)

// demo is the whole show, top to bottom.
func demo(ctx context.Context, o options) error {
	start := time.Now()
	var image images.Image
	var r *rig.Rig
	var servers []*rig.Server
	steps := []struct {
		name string
		do   func() error
	}{
		{"image of the servers", func() (err error) {
			image, err = images.Ensure(ctx, images.Options{Cache: o.cache, Agent: o.agent, Log: os.Stdout})
			return err
		}},
		{"earlier demo removed", func() error { return rig.Destroy(ctx, o.dir, nil) }},
		{"top of rack: two BGP routers, metadata service", func() (err error) {
			r, err = rig.New(ctx, rig.Options{Name: "demo", Dir: o.dir, Image: rig.Image(image)})
			return err
		}},
		{"user-data rendered", func() (err error) {
			servers, err = r.AddCluster(ctx, o.userdata, rig.Cluster{Name: "demo", Servers: o.controlPlanes + o.workers, ControlPlanes: o.controlPlanes})
			return err
		}},
		{fmt.Sprintf("power on: %d servers", o.controlPlanes+o.workers), func() error {
			group, ctx := errgroup.WithContext(ctx)
			for _, s := range servers {
				group.Go(func() error { return s.Boot(ctx) })
			}
			return group.Wait()
		}},
	}
	var powerOn time.Time
	for _, step := range steps {
		powerOn = time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("%7.1fs  %s\n", time.Since(powerOn).Seconds(), step.name)
	}
	// From here on the clock is that of the first power-on.
	if err := watch(ctx, r, o, powerOn); err != nil {
		return errors.Join(err, explain(context.WithoutCancel(ctx), r, o))
	}
	formed := time.Since(powerOn)
	fmt.Printf("\n%d nodes are Ready %.0f s after power-on, %.0f s in all.\n", len(servers), formed.Seconds(), time.Since(start).Seconds())
	return invite(ctx, r, o)
}

// invite says how to look around and how to stop.
func invite(ctx context.Context, r *rig.Rig, o options) error {
	argv, err := r.KubectlCommand()
	if err != nil {
		return err
	}
	kubectl := filepath.Join(o.dir, "kubectl")
	script := "#!/bin/sh\n# kubectl behind the top of rack, through the Elastic IP.\nexec " + strings.Join(argv, " ") + " \"$@\"\n"
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		return fmt.Errorf("writing kubectl's script: %w", err)
	}
	hops, err := r.ToR().NextHops(ctx, netip.PrefixFrom(rig.ElasticIP, 32))
	if err != nil {
		return err
	}
	nodes, err := r.Kubectl(ctx, "get", "nodes", "-o", "wide")
	if err != nil {
		return err
	}
	fmt.Printf("The top of rack sends %s to %v.\n\n%s\n", rig.ElasticIP, hops, nodes)
	fmt.Printf(`Look around:
  %s get pods -A
  make shell NAME=cp1       a root shell on a server: bootstrap status, journalctl -u muster
  nsenter --net=/run/netns/%s ip route show %s
  %s   what a server says on its console
Stop:
  make demo-down
`, kubectl, r.ToR().Netns(), rig.ElasticIP, r.Servers()[0].Console())
	return nil
}

// explain says what each server waits for, and keeps their logs.
func explain(ctx context.Context, r *rig.Rig, o options) error {
	// Not longer than a person who has just been told of the failure will wait.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v := look(ctx, r)
	fmt.Println()
	for _, row := range v.rows {
		fmt.Println(" ", row.line())
	}
	logs := o.dir + "-logs"
	if err := r.CollectLogs(ctx, logs); err != nil {
		return err
	}
	fmt.Printf("Journals and consoles are in %s. The servers are still on; make demo-down removes them.\n", logs)
	return nil
}
