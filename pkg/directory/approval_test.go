package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/member"
)

// N servers have rows: one more of other hardware waits until it is approved.
func TestSurplus(t *testing.T) {
	hosts := newHosts(t, 1)
	hosts[0].run(t)
	ask := hosts[0].client
	of := func(n int, change ...func(*Claim)) Claim {
		c := claim(n, 2)
		c.Expect, c.First = 3, n == 1
		for _, f := range change {
			f(&c)
		}
		return c
	}
	claims := func(c Claim, want member.Role, kind error) {
		t.Helper()
		if role, err := ask.ClaimRole(deadline(t), c); role != want || !errors.Is(err, kind) {
			t.Errorf("ClaimRole(%s) = %q, %v; want %q, %v", c.Name, role, err, want, kind)
		}
	}
	claims(of(2), member.ControlPlane, nil)
	claims(of(3), member.Worker, nil)
	claims(of(4), member.NoRole, ErrSurplus) // the place of GO's holder is kept
	claims(of(1), member.ControlPlane, nil)
	_, err := ask.ClaimRole(deadline(t), of(4))
	for _, part := range []string{"expects 3 servers and has 3 (server01, server02, server03)", "(server04, hardware " + inst(1004) + ")", "bootstrap approve " + inst(1004)} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("the surplus is told %v, want %q", err, part)
		}
	}
	claims(of(5, func(c *Claim) { c.Expect = 0 }), member.Worker, nil) // it joins a formed cluster
	claims(of(6, func(c *Claim) { c.HW = inst(1003) }), member.Worker, nil)
	for range 2 {
		if err := ask.Approve(deadline(t), inst(1004)); err != nil {
			t.Fatal(err)
		}
	}
	claims(of(4), member.Worker, nil)
	claims(of(7), member.NoRole, ErrSurplus)
	// Those two are none of the three: a place that is free again is not theirs.
	if err := storeOf(t, hosts[0]).revoke(deadline(t), member.Revoked{Inst: inst(2), HW: inst(1002), Name: "server02", Address: netip.MustParseAddr("10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	restored := member.Record{Inst: inst(10), HW: inst(1010), Name: "server10", Address: netip.MustParseAddr("10.0.0.10"), Role: member.Worker, Extra: true}
	if err := ask.Restore(deadline(t), []member.Record{restored}); err != nil {
		t.Fatal(err)
	}
	if list := records(t, hosts[0]); !slices.Contains(list, restored) || !slices.ContainsFunc(list, func(r member.Record) bool { return r.Name == "server04" && r.Extra }) {
		t.Errorf("the records do not tell who is none of the expected: %+v", list)
	}
	claims(of(8), member.ControlPlane, nil)
	claims(of(9), member.NoRole, ErrSurplus)
	if err := ask.Approve(deadline(t), "cp7"); !errors.Is(err, ErrInvalid) {
		t.Errorf("Approve(cp7): %v", err)
	}
}
