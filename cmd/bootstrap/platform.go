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
	"github.com/mustermetal/muster/pkg/metadata"
)

// platform reads this server's metadata and keeps a copy for a reboot while the
// service is down.
type platform struct {
	cluster cluster.Cluster
	file    string // the copy, layout.Device on a server
	// patience is how long a server that has a copy waits for the service.
	patience time.Duration
	// hardware tells this server's document from that of a former owner of its
	// address.
	hardware func() (device.Hardware, error)
	log      *slog.Logger
}

func readHardware() (device.Hardware, error) { return identity.ReadHardware(os.DirFS("/")) }

// copyPatience is short, because a formed node must come back without the
// service.
const copyPatience = 5 * time.Second

// Device asks the service, or takes the copy when there is one and the service
// gives nothing good in a few seconds.
func (p platform) Device(ctx context.Context, report func(error)) (device.Device, error) {
	source, policy, err := metadata.New(p.cluster.Spec, linkFacts)
	if err != nil {
		return device.Device{}, err
	}
	hardware, err := p.hardware()
	if err != nil {
		return device.Device{}, err
	}
	policy.Check = func(d device.Device) error { return d.Describes(hardware) }
	old, err := p.stored()
	if err != nil {
		p.log.Warn("metadata", "error", err)
	}
	if old != nil {
		policy.Deadline = min(policy.Deadline, p.patience)
	}
	d, err := metadata.Poll(ctx, source, policy, func(err error, _ int, _ time.Duration) { report(err) })
	switch {
	case err == nil:
		err := p.store(d)
		if old != nil && err != nil { // a formed node comes back on a full disk, too
			p.log.Warn("metadata: the copy from an earlier boot stays as it is", "error", err)
			err = nil
		}
		return d, err
	case old != nil && ctx.Err() == nil:
		p.log.Warn("metadata: the copy from an earlier boot is used", "error", err)
		return *old, nil
	}
	return d, err
}

func (p platform) store(d device.Device) error {
	data, err := metadata.Marshal(d)
	if err != nil {
		return err
	}
	return durable.WriteFile(p.file, data, 0o600)
}

// stored returns the copy, nil when there is none or none that can be read.
func (p platform) stored() (*device.Device, error) {
	data, err := os.ReadFile(p.file)
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
	hardware, err := readHardware()
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
