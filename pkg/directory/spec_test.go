package directory

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

func spec(revision uint64, k int) member.Spec {
	return member.Spec{Revision: revision, ControlPlanes: k, Text: fmt.Sprintf("revision %d", revision)}
}

// TestSpec: a revision is written on condition, the same on every node.
func TestSpec(t *testing.T) {
	hosts := form(t, 3)
	a, b := hosts[0].client, hosts[1].client
	if s, err := a.Spec(deadline(t), -1); s != nil || err != nil {
		t.Fatalf("before the first: %v, %v", s, err)
	}
	if err := a.RestoreSpec(deadline(t), spec(0, 3)); err != nil {
		t.Fatal(err)
	}
	other := spec(0, 5)
	if err := b.RestoreSpec(deadline(t), other); err != nil { // as high: left alone
		t.Fatal(err)
	}
	// Two at once: one of them is told of the other.
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, h := range hosts[:2] {
		wg.Go(func() {
			s := spec(1, 3)
			s.Text += fmt.Sprintf(" of %d", i)
			errs[i] = h.client.WriteSpec(deadline(t), s, 0)
		})
	}
	wg.Wait()
	stale, won := errs[0], 1
	if stale == nil {
		stale, won = errs[1], 0
	}
	if errs[won] != nil || !errors.Is(stale, ErrStale) || !strings.Contains(stale.Error(), "revision 0 was expected, the cluster has 1 by now") {
		t.Fatalf("two at once: %v", errs)
	}
	want := spec(1, 3)
	want.Text += fmt.Sprintf(" of %d", won)
	if err := hosts[won].client.WriteSpec(deadline(t), want, 0); err != nil {
		t.Errorf("the same again, its answer was lost: %v", err)
	}
	for i, h := range hosts {
		got, err := h.client.Spec(deadline(t), -1)
		if diff := cmp.Diff(&want, got); diff != "" || err != nil {
			t.Errorf("on node %d: %v (-want +got)\n%s", i, err, diff)
		}
	}
	if got, err := b.Spec(deadline(t), 1); err != nil || got.Text != "" || got.Revision != 1 {
		t.Errorf("a known revision: %+v, %v", got, err)
	}
	if err := a.RestoreSpec(deadline(t), spec(7, 3)); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Spec(deadline(t), 1); err != nil || *got != spec(7, 3) {
		t.Errorf("a higher one that was kept elsewhere: %+v, %v", got, err)
	}
	large := spec(8, 3)
	large.Text = strings.Repeat("\n", cluster.SpecMax)
	if err := a.WriteSpec(deadline(t), large, 7); err != nil {
		t.Errorf("the largest: %v", err)
	}
	for name, err := range map[string]error{
		"too large":       b.WriteSpec(deadline(t), member.Spec{Revision: 9, ControlPlanes: 3, Text: large.Text + "x"}, 8),
		"empty":           b.WriteSpec(deadline(t), member.Spec{Revision: 9, ControlPlanes: 3}, 8),
		"no K":            b.RestoreSpec(deadline(t), spec(9, 0)),
		"not a later one": b.WriteSpec(deadline(t), spec(8, 3), 8),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRolesFollowTheSpec: how many control planes there may be says the revision in
// the directory, not the server that asks.
func TestRolesFollowTheSpec(t *testing.T) {
	hosts := form(t, 1)
	c := hosts[0].client
	role := func(n, k int, want member.Role) {
		t.Helper()
		if got, err := c.ClaimRole(deadline(t), claim(n, k)); err != nil || got != want {
			t.Errorf("server %d, which thinks of %d control planes, is a %q, %v; want %q", n, k, got, err, want)
		}
	}
	if err := c.RestoreSpec(deadline(t), spec(0, 1)); err != nil {
		t.Fatal(err)
	}
	role(2, 5, member.Worker)
	if err := c.WriteSpec(deadline(t), spec(1, 3), 0); err != nil {
		t.Fatal(err)
	}
	role(2, 5, member.Worker) // who is one stays one
	role(3, 1, member.ControlPlane)
	role(4, 1, member.ControlPlane)
	role(5, 7, member.Worker)
	if err := c.WriteSpec(deadline(t), spec(2, 1), 1); err != nil {
		t.Fatal(err)
	}
	role(3, 1, member.ControlPlane)
	role(6, 7, member.Worker)
}
