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

// ClockProblem says why a clock may not make certificates yet, or returns "".
// offsets are the clocks of the servers in sight, this one among them, relative
// to this one; waited is how long this server has been fit but for the clock.
func ClockProblem(policy string, synced bool, waited time.Duration, offsets []time.Duration, quorum int) string {
	if synced && policy != cluster.TimePeers {
		return ""
	}
	if policy == cluster.TimeSync {
		return "the clock is not synchronised by NTP (spec.time.require: sync); timedatectl shows why"
	}
	if policy == cluster.TimeAuto && waited < ntpPatience {
		return fmt.Sprintf("the clock is not synchronised by NTP yet; the peers' clocks are believed in %s (spec.time.require: auto)",
			(ntpPatience - waited).Round(time.Second))
	}
	if len(offsets) < quorum {
		return fmt.Sprintf("the clocks of %d servers were read, %d are needed to compare with", len(offsets), quorum)
	}
	sorted := slices.Clone(offsets)
	slices.Sort(sorted)
	median := sorted[len(sorted)/2]
	if median.Abs() > maxClockOffset {
		return fmt.Sprintf("this clock differs by %s from the median of %d servers, at most %s is allowed; set it with timedatectl set-time, or fix NTP",
			median.Abs().Round(time.Second), len(sorted), maxClockOffset)
	}
	return ""
}
