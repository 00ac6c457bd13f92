package main

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/mustermetal/muster/pkg/gossip"
)

// TestCopyAt: a copy of this server's disk counts until another instance answers at
// its address, and again when it is back.
func TestCopyAt(t *testing.T) {
	here, there := netip.MustParseAddr("10.99.14.9"), netip.MustParseAddr("10.99.14.11")
	r := newRoll(id("a"), here, slog.New(slog.DiscardHandler))
	other := func(inst string, at netip.Addr) []gossip.Peer {
		return []gossip.Peer{{Inst: r.inst, Address: here}, {Inst: inst, Address: at}}
	}
	none := netip.Addr{}
	for i, step := range []struct {
		conflict *gossip.Conflict
		peers    []gossip.Peer
		want     netip.Addr
	}{
		{nil, other(id("b"), there), none},
		{&gossip.Conflict{Inst: id("c"), Addresses: [2]netip.Addr{here, there}}, nil, none},
		{&gossip.Conflict{Inst: r.inst, Addresses: [2]netip.Addr{there, here}}, other(id("b"), netip.MustParseAddr("10.99.14.13")), there},
		{nil, nil, there}, // out of sight is not gone
		{nil, other(r.inst, there), there},
		{nil, other(id("b"), there), none},
		{nil, nil, none},
		{&gossip.Conflict{Inst: r.inst, Addresses: [2]netip.Addr{here, there}}, nil, there},
	} {
		if step.conflict != nil {
			r.conflict(*step.conflict)
		}
		if got := r.copyAt(step.peers); got != step.want {
			t.Errorf("step %d: the copy is at %s, want %s", i, got, step.want)
		}
	}
}
