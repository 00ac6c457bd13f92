package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/metadata"
)

// platform reads this server's metadata and keeps a copy for a reboot while the
// service is down.
type platform struct {
	cluster cluster.Cluster
	log     *slog.Logger
}

// Device asks the service. A server that has a copy asks once: a formed node must
// come back without the metadata service.
func (p platform) Device(ctx context.Context, report func(error)) (device.Device, error) {
	source, policy, err := metadata.New(p.cluster.Spec, linkFacts)
	if err != nil {
		return device.Device{}, err
	}
	old, err := stored()
	if err != nil {
		p.log.Warn("metadata", "error", err)
	}
	if old != nil {
		const once = 5 * time.Second
		attempt, cancel := context.WithTimeout(ctx, once)
		defer cancel()
		fresh, err := source.Device(attempt)
		if err != nil || policy.RequireBGP && len(fresh.BGPNeighbors) == 0 {
			p.log.Warn("metadata: the copy from an earlier boot is used", "error", err)
			return *old, nil
		}
		return fresh, store(fresh)
	}
	d, err := metadata.Poll(ctx, source, policy, func(err error, _ int, _ time.Duration) { report(err) })
	if err != nil {
		return d, err
	}
	return d, store(d)
}

func store(d device.Device) error {
	data, err := metadata.Marshal(d)
	if err != nil {
		return err
	}
	return durable.WriteFile(layout.Device, data, 0o600)
}

// stored returns the copy, nil when there is none or none that can be read.
func stored() (*device.Device, error) {
	data, err := os.ReadFile(layout.Device)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the stored device: %w", err)
	}
	d, err := metadata.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// linkFacts is what the server knows of itself, by which platform static finds
// it in the list.
func linkFacts() (metadata.Facts, error) {
	var f metadata.Facts
	host, err := os.Hostname()
	if err != nil {
		return f, fmt.Errorf("reading the hostname: %w", err)
	}
	hardware, err := identity.ReadHardware(os.DirFS("/"))
	if err != nil {
		return f, err
	}
	f.Hostname, f.MACs = host, hardware.MACs
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return f, fmt.Errorf("reading the addresses: %w", err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			f.Addresses = append(f.Addresses, prefix.Addr())
		}
	}
	return f, nil
}
