package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Limits of the clock rule (docs/fence.md): kubeadm backdates its certificates
// by five minutes, so five seconds between peers are far inside; a minute gives
// NTP the time it usually needs before peers alone are believed.
const (
	maxClockOffset = 5 * time.Second
	ntpPatience    = time.Minute
)

// Clock is what a server knows of its own clock.
type Clock struct {
	Synced  bool            // NTP keeps it
	Waited  time.Duration   // how long this server has been fit but for the clock
	Offsets []time.Duration // the clocks of the servers in sight, this one among them, relative to this one
}

// NeedsPeers says whether Problem wants to know Offsets.
func (c Clock) NeedsPeers(policy string) bool {
	switch policy {
	case cluster.TimeSync:
		return false
	case cluster.TimePeers:
		return true
	default:
		return !c.Synced && c.Waited >= ntpPatience
	}
}

// Problem says why the clock may not make certificates yet, or returns "".
func (c Clock) Problem(policy string, quorum int) string {
	if c.Synced && policy != cluster.TimePeers {
		return ""
	}
	if policy == cluster.TimeSync {
		return "the clock is not synchronised by NTP (spec.time.require: sync); timedatectl shows why"
	}
	if policy == cluster.TimeAuto && c.Waited < ntpPatience {
		return fmt.Sprintf("the clock is not synchronised by NTP yet; the peers' clocks are believed in %s (spec.time.require: auto)",
			(ntpPatience - c.Waited).Round(time.Second))
	}
	if len(c.Offsets) < quorum {
		return fmt.Sprintf("the clocks of %d servers were read, %d are needed to compare with", len(c.Offsets), quorum)
	}
	sorted := slices.Clone(c.Offsets)
	slices.Sort(sorted)
	median := sorted[len(sorted)/2]
	if median.Abs() > maxClockOffset {
		return fmt.Sprintf("this clock differs by %s from the median of %d servers, at most %s is allowed; set it with timedatectl set-time, or fix NTP",
			median.Abs().Round(time.Second), len(sorted), maxClockOffset)
	}
	return ""
}
