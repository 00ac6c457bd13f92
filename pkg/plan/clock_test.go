package plan

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
)

func seconds(values ...int) []time.Duration {
	var out []time.Duration
	for _, v := range values {
		out = append(out, time.Duration(v)*time.Second)
	}
	return out
}

// TestClockProblem: each policy, synchronised or not.
func TestClockProblem(t *testing.T) {
	const (
		long   = ntpPatience
		differ = "this clock differs by 1h0m0s from the median of 4 servers, at most 5s is allowed; set it with timedatectl set-time, or fix NTP"
	)
	hour := seconds(0, 3600, 3601, 3599)
	tests := []struct {
		name    string
		policy  string
		synced  bool
		waited  time.Duration
		offsets []time.Duration
		quorum  int
		want    string
	}{
		{"sync, synchronised", cluster.TimeSync, true, 0, nil, 3, ""},
		{"sync, not, for ever", cluster.TimeSync, false, 100 * long, seconds(0, 0, 0), 3,
			"the clock is not synchronised by NTP (spec.time.require: sync); timedatectl shows why"},
		{"auto, synchronised: peers are not asked", cluster.TimeAuto, true, 0, hour, 3, ""},
		{"auto, not, at once", cluster.TimeAuto, false, 0, seconds(0, 0, 0), 3,
			"the clock is not synchronised by NTP yet; the peers' clocks are believed in 1m0s (spec.time.require: auto)"},
		{"auto, not, a moment before", cluster.TimeAuto, false, long - 1500*time.Millisecond, seconds(0, 0, 0), 3,
			"the clock is not synchronised by NTP yet; the peers' clocks are believed in 2s (spec.time.require: auto)"},
		{"auto, not, patience over, peers agree", cluster.TimeAuto, false, long, seconds(0, 3, -2), 3, ""},
		{"auto, not, patience over, peers differ", cluster.TimeAuto, false, long, hour, 3, differ},
		{"auto, not, patience over, too few", cluster.TimeAuto, false, long, seconds(0, 0), 3,
			"the clocks of 2 servers were read, 3 are needed to compare with"},
		{"peers, agree", cluster.TimePeers, false, 0, seconds(0, 5, 5), 3, ""},
		{"peers, just too far", cluster.TimePeers, false, 0, seconds(0, 6, 6), 3,
			"this clock differs by 6s from the median of 3 servers, at most 5s is allowed; set it with timedatectl set-time, or fix NTP"},
		{"peers, behind", cluster.TimePeers, false, 0, seconds(0, -3600, -3600), 3,
			"this clock differs by 1h0m0s from the median of 3 servers, at most 5s is allowed; set it with timedatectl set-time, or fix NTP"},
		{"peers, synchronised but alone with it", cluster.TimePeers, true, 0, hour, 3, differ},
		{"peers, one liar is outvoted", cluster.TimePeers, false, 0, seconds(0, 1, 36000), 3, ""},
		{"peers, a single server", cluster.TimePeers, false, 0, seconds(0), 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clock := Clock{Synced: tt.synced, Waited: tt.waited, Offsets: tt.offsets}
			if got := clock.Problem(tt.policy, tt.quorum); got != tt.want {
				t.Errorf("got:  %s\nwant: %s", got, tt.want)
			}
			if !clock.NeedsPeers(tt.policy) {
				clock.Offsets = nil
				if got := clock.Problem(tt.policy, tt.quorum); got != tt.want {
					t.Errorf("it does not need the peers' clocks, but without them it says: %s", got)
				}
			}
		})
	}
}

// TestClockMajority: whatever a minority of the clocks says, in whatever order
// they answered, a server that agrees with the others is right.
func TestClockMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 21).Draw(t, "n")
		liars := rapid.IntRange(0, (n-1)/2).Draw(t, "liars")
		offsets := []time.Duration{0}
		for range n - 1 - liars {
			offsets = append(offsets, time.Duration(rapid.Int64Range(int64(-maxClockOffset), int64(maxClockOffset)).Draw(t, "near")))
		}
		for range min(liars, n-1) {
			offsets = append(offsets, time.Duration(rapid.Int64().Draw(t, "far")))
		}
		seed := rapid.Uint64().Draw(t, "order")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(offsets), func(i, j int) { offsets[i], offsets[j] = offsets[j], offsets[i] })
		before := append([]time.Duration(nil), offsets...)
		if got := (Clock{Offsets: offsets}).Problem(cluster.TimePeers, len(offsets)); got != "" {
			t.Fatalf("%d of %d clocks lie: %s", liars, n, got)
		}
		for i := range offsets {
			if offsets[i] != before[i] {
				t.Fatal("the caller's list was changed")
			}
		}
	})
}
