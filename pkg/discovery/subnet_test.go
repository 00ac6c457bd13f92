package discovery

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/device"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestPrivateBlocks(t *testing.T) {
	private := func(prefix, block string) device.Address {
		a := device.Address{Prefix: netip.MustParsePrefix(prefix)}
		if block != "" {
			a.Block = netip.MustParsePrefix(block)
		}
		return a
	}
	public := device.Address{Prefix: netip.MustParsePrefix("147.75.194.3/24"), Public: true, Block: netip.MustParsePrefix("147.75.194.0/24")}
	for name, row := range map[string]struct {
		addresses []device.Address
		links     []netip.Prefix
		self      string
		want      []netip.Prefix
		err       string
	}{
		"a /31 of a block":    {[]device.Address{public, private("10.99.14.9/31", "10.99.14.0/25")}, nil, "10.99.14.9", prefixes("10.99.14.0/25"), ""},
		"a layer 2":           {[]device.Address{private("10.99.14.9/24", "")}, nil, "10.99.14.9", prefixes("10.99.14.0/24"), ""},
		"link inside a block": {[]device.Address{private("10.99.14.9/29", "10.99.14.0/25")}, prefixes("10.99.14.9/29"), "10.99.14.9", prefixes("10.99.14.0/25"), ""},
		"the kernel knows":    {[]device.Address{private("10.99.14.9/31", "")}, prefixes("10.99.14.9/26", "172.17.0.1/16"), "10.99.14.9", prefixes("10.99.14.0/26"), ""},
		"two networks":        {[]device.Address{private("10.99.14.9/31", "10.99.14.0/25"), private("192.168.7.3/24", "")}, nil, "10.99.14.9", prefixes("192.168.7.0/24", "10.99.14.0/25"), ""},
		"other family":        {[]device.Address{private("10.99.14.9/31", "10.99.14.0/25"), private("fd00::9/64", "")}, nil, "10.99.14.9", prefixes("10.99.14.0/25"), ""},
		"IPv6 of use":         {[]device.Address{private("fd00::9/127", "fd00::/120")}, nil, "fd00::9", prefixes("fd00::/120"), ""},
		"alone with its router": {[]device.Address{private("10.99.14.9/31", "")}, prefixes("10.99.14.9/31"), "10.99.14.9", nil,
			"the private addresses are alone with their routers and the platform names no block: write subnet: RANGE, the range of the servers' private addresses, such as 10.99.14.0/24"},
		"exactly as many": {[]device.Address{private("10.99.14.9/31", "10.99.0.0/20")}, nil, "10.99.14.9", prefixes("10.99.0.0/20"), ""},
		"too many together": {[]device.Address{private("10.99.14.9/31", "10.99.0.0/20"), private("192.168.7.3/30", "")}, nil, "10.99.14.9", nil,
			"10.99.0.0/20 and 192.168.7.0/30 has more than 4096 addresses: write subnet: RANGE, the part of it where the servers are, such as 10.99.14.0/24"},
		"a /8": {[]device.Address{private("10.99.14.9/8", "")}, nil, "10.99.14.9", nil,
			"10.0.0.0/8 has more than 4096 addresses: write subnet: RANGE, the part of it where the servers are, such as 10.99.14.0/24"},
		"a /64": {[]device.Address{private("fd00::9/64", "")}, nil, "fd00::9", nil,
			"fd00::/64 has more than 4096 addresses: write subnet: RANGE, the part of it where the servers are, such as 10.99.14.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := PrivateBlocks(device.Device{Addresses: row.addresses}, row.links, at(row.self))
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != row.err || !slices.Equal(got, row.want) {
				t.Errorf("blocks %v, error %q; want %v, %q", got, text, row.want, row.err)
			}
		})
	}
}

// A sweep asks each address once, in another order each time, at the rate that the
// documentation tells, and keeps those that answer. It ends when the cluster has formed.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd("10.99.14.9", "10.99.14.200", "10.99.15.255")
		settled := false
		s := Subnet{Range: "10.99.0.0/20", Self: at("10.99.14.9"), Gossip: c, Settled: func() bool { return settled }}
		var mu sync.Mutex // addresses are asked side by side
		var found []netip.Addr
		sweep := func() ([]netip.Addr, time.Duration) {
			t.Helper()
			began, before := time.Now(), c.count()
			found = nil
			err := s.Find(t.Context(), func(a netip.Addr) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, a)
			})
			if err != nil {
				t.Fatal(err)
			}
			return c.asked[before:], time.Since(began).Round(time.Second)
		}
		first, took := sweep()
		if took != 41*time.Second {
			t.Errorf("a sweep of 4,096 addresses took %v", took)
		}
		slices.SortFunc(found, netip.Addr.Compare)
		if diff := cmp.Diff(addrs("10.99.14.200", "10.99.15.255"), found, compareAddrs); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		distinct := slices.Clone(first)
		slices.SortFunc(distinct, netip.Addr.Compare)
		if distinct = slices.Compact(distinct); len(first) != 4095 || len(distinct) != 4095 {
			t.Errorf("%d questions to %d addresses, expected each but this server's own", len(first), len(distinct))
		}
		second, _ := sweep()
		if slices.Equal(first[:100], second[:100]) {
			t.Error("two sweeps have one order")
		}
		c.see("c", "10.99.14.200")
		third, took := sweep()
		if len(third) != 4095 || took < 400*time.Second || took > s.Pace().Deadline {
			t.Errorf("with company a sweep took %v for %d addresses", took, len(third))
		}
		settled = true
		if fourth, _ := sweep(); len(fourth) != 0 {
			t.Errorf("%d questions after the cluster has formed", len(fourth))
		}
	})
}
