// Package metadata asks the platform what this server is, and keeps asking while
// the answer is not there, late, damaged or incomplete.
//
// Floor 2. It reads and never writes: no phone-home, no events.
package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Source tells what this server is. Device is one attempt; its error is a
// sentence for status, and trying again always makes sense.
type Source interface {
	Device(ctx context.Context) (device.Device, error)
}

// New returns the reader and the policy that the cluster file asks for.
func New(spec cluster.Spec, machine Machine) (*Reader, Policy, error) {
	reader, err := NewReader(spec, machine)
	if err != nil {
		return nil, Policy{}, err
	}
	policy := Policy{Deadline: spec.MetadataSource.Deadline}
	if policy.Deadline == 0 {
		policy.Deadline = defaultDeadline
	}
	// The operator's list is complete as it stands: asking again adds nothing.
	require := spec.MetadataSource.RequireBGP
	policy.RequireBGP = require != nil && *require && spec.Platform != cluster.PlatformStatic
	return reader, policy, nil
}

// defaultDeadline is that of spec.metadata.deadline.
const defaultDeadline = 5 * time.Minute

// cacheVersion moves when a stored device can no longer be read as it stands.
const cacheVersion = 1

type cached struct {
	Version int           `json:"version"`
	Device  device.Device `json:"device"`
}

// Marshal returns the form in which a device is kept for a reboot while the
// metadata service is down. It holds MD5 passwords: the file is 0600.
func Marshal(d device.Device) ([]byte, error) {
	b, err := json.MarshalIndent(cached{Version: cacheVersion, Device: d}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the device %s: %w", d.ID, err)
	}
	return append(b, '\n'), nil
}

// Unmarshal reads what Marshal wrote.
func Unmarshal(b []byte) (device.Device, error) {
	var c cached
	if err := json.Unmarshal(b, &c); err != nil {
		return device.Device{}, fmt.Errorf("stored device (%d bytes) is damaged; delete it, the metadata service has the original: %w", len(b), err)
	}
	if c.Version != cacheVersion || c.Device.ID == "" {
		return device.Device{}, fmt.Errorf("stored device is version %d with id %q; expected version %d: delete it, the metadata service has the original", c.Version, c.Device.ID, cacheVersion)
	}
	return c.Device, nil
}
