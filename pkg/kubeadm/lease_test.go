package kubeadm

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

func TestLease(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	api, ctx := admin(t, a, s), t.Context()
	if l, found, err := api.Lease(ctx); found || err != nil {
		t.Fatalf("before there is one: %+v, %t, %v", l, found, err)
	}
	want := plan.Lease{CAHash: "sha256:aa", Epoch: 2, Holder: "cp1", Beat: 1}
	write := func(l plan.Lease, expect bool) {
		t.Helper()
		if written, err := api.WriteLease(ctx, l); err != nil || written != expect {
			t.Fatalf("writing %+v: %t, %v; want %t", l, written, err, expect)
		}
	}
	write(want, true)
	write(want, false) // it is there
	got, found, err := api.Lease(ctx)
	if want.Version = got.Version; got != want || !found || err != nil || got.Version == "" {
		t.Fatalf("read %+v, %t, %v; want %+v with a version", got, found, err, want)
	}
	renewed := got
	renewed.Beat++
	write(renewed, true)
	write(renewed, false) // its version is old by now

	s.objects.Set(leasePath+"/"+directoryID, `{"metadata":{"annotations":{"muster.dev/generation":"two"}},"spec":{"holderIdentity":"x"}}`)
	if _, _, err := api.Lease(ctx); err == nil || !strings.Contains(err.Error(), "delete the Lease") {
		t.Errorf("a Lease that says nothing: %v", err)
	}
	// Without rights nothing is read, and that is no "there is none".
	nobody, err := NewAPI(s.at(), a.CA())
	if err != nil {
		t.Fatal(err)
	}
	var status *StatusError
	if _, found, err := nobody.Lease(ctx); found || !errors.As(err, &status) || status.Code != 403 {
		t.Errorf("without rights: %t, %v", found, err)
	}
}

// Three want the next generation at once, from the same sight: one gets it.
func TestLeaseHasOneWinner(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	api, ctx := admin(t, a, s), t.Context()
	if written, err := api.WriteLease(ctx, plan.Lease{CAHash: "sha256:aa", Holder: "cp1", Beat: 1}); !written || err != nil {
		t.Fatal(written, err)
	}
	got, _, err := api.Lease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var winners []string
	var all sync.WaitGroup
	for _, who := range []string{"cp1", "cp2", "cp3"} {
		all.Go(func() {
			next := plan.Lease{CAHash: got.CAHash, Epoch: got.Epoch, Generation: 1, Holder: who, Version: got.Version}
			written, err := api.WriteLease(ctx, next)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if written {
				winners = append(winners, who)
			}
		})
	}
	all.Wait()
	if now, _, err := api.Lease(ctx); err != nil || len(winners) != 1 || now.Holder != winners[0] || now.Generation != 1 {
		t.Errorf("winners %v, the Lease %+v, %v; want one, and its name in the Lease", winners, now, err)
	}
}

func TestMirror(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	api, ctx := admin(t, a, s), t.Context()
	record := func(inst, name string) member.Record {
		return member.Record{Inst: inst, HW: "hw", Name: name, Address: netip.MustParseAddr("10.0.0.1"), Role: member.Worker, Key: "sha256:aa"}
	}
	read := func(want ...member.Record) {
		t.Helper()
		got, err := api.Mirrored(ctx)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b member.Record) int { return strings.Compare(a.Inst, b.Inst) })
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" && len(want)+len(got) > 0 {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	}
	read()
	// Written at once by all control planes, of which one creates the object.
	var all sync.WaitGroup
	for _, inst := range []string{"a", "b", "c"} {
		all.Go(func() {
			if err := api.Mirror(ctx, []member.Record{record(inst, "w-"+inst)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	read(record("a", "w-a"), record("b", "w-b"), record("c", "w-c"))
	if err := api.Mirror(ctx, []member.Record{record("b", "renamed")}, "a"); err != nil {
		t.Fatal(err)
	}
	read(record("b", "renamed"), record("c", "w-c"))
	s.objects.Set(mirrorPath+"/"+directoryID, `{"data":{"x":"{}"}}`)
	if _, err := api.Mirrored(ctx); err == nil || !strings.Contains(err.Error(), "remove the entry") {
		t.Errorf("an entry that is no record: %v", err)
	}
}
