package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/election"
)

// fakeUnit is the directory's unit: it notes what it is told.
type fakeUnit struct {
	waits bool
	told  []string
}

func (u *fakeUnit) Start(context.Context, string) error { u.told = append(u.told, "start"); return nil }
func (u *fakeUnit) Restart(context.Context, string) error {
	u.told = append(u.told, "restart")
	return nil
}
func (u *fakeUnit) Activating(context.Context, string) (bool, error) {
	return u.waits, nil
}

// TestDirectoryFollowsItsPlan: a directory that waits for peers is started again
// when others came into sight, and is left alone otherwise.
func TestDirectoryFollowsItsPlan(t *testing.T) {
	dir := t.TempDir()
	unit := &fakeUnit{}
	d := directoryUnit{
		units: unit, client: directory.NewClient(filepath.Join(dir, "none.sock")), plan: filepath.Join(dir, "plan.json"), port: 9763,
		state: func() election.State { return election.State{} },
	}
	first, second := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.3")
	for _, step := range []struct {
		waits bool
		peers []netip.Addr
		want  string
	}{
		{false, []netip.Addr{first}, "start"},
		{true, []netip.Addr{first}, "start"},
		{true, []netip.Addr{first, second}, "restart"},
		{true, []netip.Addr{second, first}, "start"},
		{false, []netip.Addr{first}, "start"},
	} {
		unit.waits, unit.told = step.waits, nil
		err := d.Start(t.Context(), 0, "sha256:"+strings.Repeat("a", 64), netip.MustParseAddr("10.0.0.5"), step.peers)
		if err == nil || !strings.Contains(err.Error(), "none.sock") {
			t.Errorf("%v: %v, expected that nobody answers at the socket", step.peers, err)
		}
		if !slices.Equal(unit.told, []string{step.want}) {
			t.Errorf("waiting %t, peers %v: %v, expected %s", step.waits, step.peers, unit.told, step.want)
		}
	}
}
