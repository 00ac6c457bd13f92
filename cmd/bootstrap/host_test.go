package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type activeUnits map[string]bool

func (a activeUnits) Active(_ context.Context, unit string) (bool, error) { return a[unit], nil }

// TestNetworkdDropIn: one file, where networkd runs, once, and the journal says
// when it counts.
func TestNetworkdDropIn(t *testing.T) {
	const path = "etc/systemd/networkd.conf.d/90-muster.conf"
	for _, active := range []bool{false, true} {
		root := t.TempDir()
		var log bytes.Buffer
		p := preparation{units: activeUnits{"systemd-networkd.service": active}, log: newLog(&log, false), root: root}
		for range 2 {
			mustDo(t, p.keepRoutes(t.Context()))
		}
		got, err := os.ReadFile(filepath.Join(root, path))
		if !active {
			if err == nil || log.Len() > 0 {
				t.Errorf("without networkd: %q, %s", got, log.String())
			}
			continue
		}
		mustDo(t, err)
		for _, key := range []string{"[Network]", "ManageForeignRoutes=no", "ManageForeignRoutingPolicyRules=no", "ManageForeignNextHops=no"} {
			if !strings.Contains(string(got), key+"\n") {
				t.Errorf("%s lacks %s:\n%s", path, key, got)
			}
		}
		if said := log.String(); strings.Count(said, "it is not restarted") != 1 {
			t.Errorf("the journal says %q, want once that networkd is not restarted", said)
		}
	}
}
