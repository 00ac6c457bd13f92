package device

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func port(name string, addresses string, hops ...string) Link {
	l := Link{Name: name, Own: true}
	for _, a := range strings.Fields(addresses) {
		l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
	}
	for _, h := range hops {
		if via, ok := strings.CutPrefix(h, "default="); ok {
			l.Defaults = append(l.Defaults, netip.MustParseAddr(via))
		} else {
			l.Hops = append(l.Hops, netip.MustParseAddr(h))
		}
	}
	return l
}

func told(prefix, gateway string, public bool) Address {
	a := Address{Prefix: netip.MustParsePrefix(prefix), Public: public}
	if gateway != "" {
		a.Gateway = netip.MustParseAddr(gateway)
	}
	return a
}

// show is a device's addresses as one line each.
func show(d Device) []string {
	var out []string
	for _, a := range d.Addresses {
		line := a.Prefix.String() + " via " + a.Gateway.String()
		if a.Public {
			line += " public"
		}
		out = append(out, line)
	}
	return out
}

func TestComplete(t *testing.T) {
	pods := Link{Name: "cni0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.1/24")}}
	lo := Link{Name: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("10.9.9.9/32")}}
	tests := []struct {
		name  string
		told  []Address
		links []Link
		want  []string
		err   string
	}{
		{name: "told in full", told: []Address{told("147.75.78.41/31", "147.75.78.40", true), told("10.66.142.17/31", "10.66.142.16", false)},
			links: []Link{port("bond0", "147.75.78.41/31 10.66.142.17/31", "default=147.75.78.40", "10.66.142.16"), pods},
			want:  []string{"147.75.78.41/31 via 147.75.78.40 public", "10.66.142.17/31 via 10.66.142.16"}},
		{name: "address alone", told: []Address{told("10.87.63.3/32", "", false)}, links: []Link{port("bond0", "10.87.63.3/31", "10.87.63.2")},
			want: []string{"10.87.63.3/31 via 10.87.63.2"}},
		{name: "default route among others", told: []Address{told("10.1.0.9/32", "", false)}, links: []Link{port("eth0", "10.1.0.9/24", "10.1.0.77", "default=10.1.0.1")},
			want: []string{"10.1.0.9/24 via 10.1.0.1"}},
		{name: "a /32 in a network, set so by DHCP", told: []Address{told("10.1.0.2/32", "10.1.0.1", false)}, links: []Link{port("ens10", "10.1.0.2/32", "10.1.0.1")},
			want: []string{"10.1.0.2/32 via 10.1.0.1"}},
		{name: "gateway on the link, outside of the subnet", told: []Address{told("10.1.0.2/32", "", false)}, links: []Link{port("eth0", "10.1.0.2/32", "default=172.31.1.1")},
			want: []string{"10.1.0.2/32 via 172.31.1.1"}},
		{name: "nothing told", links: []Link{lo, pods, port("vlan7", "10.7.0.2/24"), port("bond0", "147.75.78.41/31 10.66.142.17/31 2604:1380::11/127", "default=147.75.78.40", "10.66.142.16")},
			want: []string{"147.75.78.41/31 via 147.75.78.40 public", "10.66.142.17/31 via 10.66.142.16", "2604:1380::11/127 via invalid IP public", "10.7.0.2/24 via invalid IP"}},
		{name: "a ULA by router advertisement", links: []Link{port("eth0", "fd00:1::5/64", "default=fe80::1")}, want: []string{"fd00:1::5/64 via fe80::1"}},
		{name: "NAT", told: []Address{told("10.0.0.9/32", "", false), told("54.1.2.3/32", "", true)}, links: []Link{port("eth0", "10.0.0.9/24", "default=10.0.0.1")},
			want: []string{"10.0.0.9/24 via 10.0.0.1", "54.1.2.3/32 via invalid IP public"}},
		{name: "an Elastic IP among the private ones", told: []Address{told("10.70.17.9/32", "", false), told("10.70.17.200/32", "", false)}, links: []Link{port("bond0", "10.70.17.9/31", "10.70.17.8")},
			want: []string{"10.70.17.9/31 via 10.70.17.8"}},
		{name: "the node's address on lo", told: []Address{told("10.9.9.9/32", "", false)}, links: []Link{lo, port("eth0", "")}, want: []string{"10.9.9.9/32 via invalid IP"}},
		{name: "an Elastic IP is not its own", links: []Link{port("eth0", "10.0.0.9/24 10.200.0.1/32")}, want: []string{"10.0.0.9/24 via invalid IP"}},
		{name: "other length", told: []Address{told("10.0.0.9/31", "10.0.0.8", false)}, links: []Link{port("bond0", "10.0.0.9/24")},
			err: "the metadata gives 10.0.0.9 the length /31, but bond0 has it with /24"},
		{name: "other gateway", told: []Address{told("10.0.0.9/24", "10.0.0.1", false)}, links: []Link{port("bond0", "10.0.0.9/24", "default=10.0.0.254")},
			err: "the metadata gives 10.0.0.9/24 the gateway 10.0.0.1, but the default route of bond0 leads by 10.0.0.254"},
		{name: "other address", told: []Address{told("10.0.0.9/24", "", false)}, links: []Link{port("bond0", "10.0.0.7/24"), pods},
			err: "the metadata names the private address 10.0.0.9/24, but this machine has 10.0.0.7/24 on bond0"},
		{name: "no address yet", told: []Address{told("10.0.0.9/24", "", false)}, links: []Link{port("bond0", "")},
			err: "but this machine has none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _, err := Device{Addresses: tt.told}.Complete(tt.links, []netip.Prefix{netip.MustParsePrefix("10.200.0.1/32")})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v; want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, show(d)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, notes, err := d.Complete(tt.links, []netip.Prefix{netip.MustParsePrefix("10.200.0.1/32")})
			if err != nil || !cmp.Equal(show(again), show(d)) {
				t.Errorf("a second time: %v, %v (%v)", show(again), err, notes)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	if got := strings.Join((Device{}).Missing(), "|"); got != "id|hostname|private address" {
		t.Errorf("of nothing: %s", got)
	}
	whole := Device{ID: "i", Hostname: "h", Addresses: []Address{told("10.0.0.1/24", "", false)}}
	if got := whole.Missing(); got != nil {
		t.Errorf("of a whole one: %v", got)
	}
}

func TestBonds(t *testing.T) {
	member := func(name, mac, bond string) Link { return Link{Name: name, Own: true, MAC: mac, Bond: bond} }
	const a, b = "68:05:ca:00:00:0a", "68:05:ca:00:00:0b"
	told := Device{Bonds: [][]string{{a, b}}}
	bond0, vlan := member("bond0", a, ""), member("bond0.7", a, "")
	for _, tt := range []struct {
		name  string
		links []Link
		note  string
		err   string
	}{
		{"as told", []Link{bond0, vlan, member("eno1", a, "bond0"), member("eno2", b, "bond0")}, "", ""},
		{"two bonds", []Link{bond0, member("bond1", b, ""), member("eno1", a, "bond0"), member("eno2", b, "bond1")}, "",
			"the metadata has " + a + " and " + b + " in one bond, but eno1 is in bond0 and eno2 in bond1"},
		{"one taken out", []Link{bond0, member("eno1", a, "bond0"), member("eno2", b, "")}, "eno2 (" + b + ") is in no bond here, the metadata has it in one", ""},
		{"other ports", []Link{member("eno9", "68:05:ca:00:00:0c", "")}, "", ""},
	} {
		_, notes, err := told.Complete(tt.links, nil)
		if strings.Join(notes, "; ") != tt.note || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: notes %q, error %v; want %q, %q", tt.name, notes, err, tt.note, tt.err)
		}
	}
}
