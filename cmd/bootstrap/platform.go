package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/metadata"
	"github.com/mustermetal/muster/pkg/network"
)

// platform reads this server's metadata and keeps a copy for a reboot while the
// service is down.
type platform struct {
	cluster cluster.Cluster
	file    string // the copy, layout.Device on a server
	// patience is how long a server that has a copy waits for the service.
	patience time.Duration
	machine  metadata.Machine
	log      *slog.Logger
}

// thisMachine is the server that the agent runs on.
func thisMachine() metadata.Machine {
	return metadata.Machine{Root: os.DirFS("/"), Facts: machineFacts}
}

func readHardware() (device.Hardware, error) { return identity.ReadHardware(os.DirFS("/")) }

// copyPatience is short, because a formed node must come back without the
// service.
const copyPatience = 5 * time.Second

// Device asks the service, or takes the copy when there is one and the service
// gives nothing good in a few seconds.
func (p platform) Device(ctx context.Context, report func(error)) (device.Device, error) {
	old, err := p.stored()
	if err != nil {
		p.log.Warn("metadata", "error", err)
	}
	if old != nil && p.foreign(*old) {
		old = nil
	}
	machine := p.machine
	if old != nil {
		machine.Last = old.Platform
	}
	reader, policy, err := metadata.New(p.cluster.Spec, machine)
	if err != nil {
		return device.Device{}, err
	}
	if old != nil {
		policy.Deadline = min(policy.Deadline, p.patience)
	}
	d, err := metadata.Poll(ctx, reader, policy, func(err error, _ int, _ time.Duration) { report(err) })
	switch {
	case err == nil:
		f := reader.Latest()
		p.log.Info("metadata", "platform", f.Platform, "why", f.Why, "from", strings.Join(f.From, " "), "notes", strings.Join(f.Notes, "; "))
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

// foreign says that the copy came with another machine's disk: with its name and its
// addresses two servers would be one.
func (p platform) foreign(d device.Device) bool {
	facts, err := p.machine.Facts()
	if err != nil {
		return false // nothing is known against it
	}
	if err := d.Describes(facts.Hardware); err != nil {
		p.log.Warn("metadata: the copy from an earlier boot is not used", "error", err)
		return true
	}
	return false
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

// machineFacts is what the kernel says of this server.
func machineFacts() (metadata.Facts, error) {
	var f metadata.Facts
	var err error
	if f.Hostname, err = os.Hostname(); err != nil {
		return f, fmt.Errorf("reading the hostname: %w", err)
	}
	if f.Hardware, err = readHardware(); err != nil {
		return f, err
	}
	f.Links, err = network.Links(f.Hardware.MACs)
	return f, err
}
