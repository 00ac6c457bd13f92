package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/plan"
)

// testLook: what Look says is what Apply does, and Look itself does nothing.
func testLook(t *testing.T, w world) {
	r := w.reconciler(t)
	look := func(step string, n plan.Network, want Report) {
		t.Helper()
		quiet := countWrites(t, w)
		got, err := r.Look(n)
		must(t, err)
		if writes := quiet(); writes != 0 {
			t.Errorf("%s: Look wrote %d times", step, writes)
		}
		if diff := cmp.Diff(want, got, netipValues); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	look("nothing is there", planned, Report{Changes: []Change{{Do: Add, Address: eip}, {Do: Add, Address: eip6}, {Do: Add, Route: tor}, {Do: Add, Route: tor6}}})
	must(t, r.Apply(t.Context(), planned))
	ours := Report{
		Addresses: []FoundAddress{{eip, true}, {eip6, true}},
		Routes:    []FoundRoute{{tor, true, RouteProtocol}, {tor6, true, RouteProtocol}},
	}
	look("all is there", planned, ours)
	ours.Changes = []Change{{Do: Remove, Address: eip}, {Do: Remove, Address: eip6}, {Do: Remove, Route: tor}, {Do: Remove, Route: tor6}}
	look("nothing is wanted", plan.Network{}, ours)
	must(t, r.Apply(t.Context(), plan.Network{}))
	look("and nothing is there", plan.Network{}, Report{})

	must(t, w.lo.AddAddress(address{Prefix: eip, Label: AddressLabel})) // scope global
	must(t, w.lo.AddAddress(ourEIP6))
	link, _, err := w.table.Egress(tor.Src, tor.Via)
	must(t, err)
	wrong := plan.Route{Dst: tor.Dst, Via: tor.Via}
	must(t, w.table.ReplaceRoute(route{Route: wrong, Protocol: RouteProtocol, Link: link}))
	look("ours is wrong, theirs is right", planned, Report{
		Addresses: []FoundAddress{{eip, true}, {eip6, false}},
		Routes:    []FoundRoute{{wrong, true, RouteProtocol}},
		Changes:   []Change{{Do: Correct, Address: eip}, {Do: Correct, Route: tor}, {Do: Add, Route: tor6}},
	})
	must(t, w.table.DeleteRoute(route{Route: wrong, Protocol: RouteProtocol, Link: link}))
	theirs := plan.Route{Dst: tor.Dst, Via: tor.Via, Src: ip("10.98.0.1")}
	must(t, w.table.ReplaceRoute(route{Route: theirs, Protocol: bootProt, Link: link}))
	look("theirs is in the way", plan.Network{Routes: []plan.Route{tor}}, Report{
		Addresses: []FoundAddress{{eip, true}},
		Routes:    []FoundRoute{{theirs, false, bootProt}},
		Changes:   []Change{{Do: Remove, Address: eip}, {Do: Blocked, Route: tor}},
	})
}

func TestChangeString(t *testing.T) {
	for _, tc := range []struct {
		change Change
		want   string
	}{
		{Change{Do: Add, Address: eip}, "add 147.75.194.92/32 on lo"},
		{Change{Do: Correct, Address: eip6}, "correct 2604:1380:1:4f00::92/128 on lo"},
		{Change{Do: Remove, Route: tor}, "remove route to 169.254.255.1 via 10.99.14.8 src 10.99.14.9"},
		{Change{Do: Blocked, Route: tor6}, "cannot add route to fc00::e via fd00:1::8 src fd00:1::9: a route of others is in the way, see `ip route show fc00::e/128`"},
	} {
		if got := tc.change.String(); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
