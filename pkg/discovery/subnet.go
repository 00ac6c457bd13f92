package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// maxAddresses is how many addresses a sweep asks at most.
const maxAddresses = cluster.SubnetMost

// The rate of a sweep. A question is one encrypted packet of gossip, some 150 bytes,
// so a server that is alone sends 15 KB/s and is through 4,096 addresses in 41 s.
// With company it needs the sweep no more, only those in another part of the network
// might.
const (
	aloneRate   = 100 // questions a second
	companyRate = 10
)

// Subnet asks every address of its blocks, in random order.
type Subnet struct {
	Range  string // as in the cluster file
	Self   netip.Addr
	Device device.Device
	// OnLink are the prefixes of this server's links.
	OnLink func() ([]netip.Prefix, error)
	Gossip Gossip
	// Settled says that the cluster has formed; a sweep ends there.
	Settled func() bool
}

// Name is the key and the range.
func (s Subnet) Name() string { return "subnet " + s.Range }

// Pace leaves room for a whole sweep with company.
func (s Subnet) Pace() Pace {
	return Pace{Deadline: maxAddresses/companyRate*time.Second + time.Minute, Every: 5 * time.Second}
}

// Find makes one sweep.
func (s Subnet) Find(ctx context.Context, found func(netip.Addr)) error {
	blocks, err := s.blocks()
	if err != nil {
		return err
	}
	addrs := addressesOf(blocks, s.Self)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, a := range addrs {
		rate := time.Second / aloneRate
		if len(s.Gossip.InSight()) > 1 {
			if s.Settled() {
				return nil
			}
			rate = time.Second / companyRate
		}
		if !sleep(ctx, rate) {
			return fmt.Errorf("the last %d of %d addresses were not asked in time", len(addrs)-i, len(addrs))
		}
		asking.Go(func() {
			if s.Gossip.Ask(a) {
				found(a)
			}
		})
	}
	return nil
}

func (s Subnet) blocks() ([]netip.Prefix, error) {
	if s.Range != cluster.SubnetPrivate {
		p, err := netip.ParsePrefix(s.Range)
		if err != nil {
			return nil, fmt.Errorf("spec.discovery: subnet %q is no range: %w", s.Range, err)
		}
		return within([]netip.Prefix{p})
	}
	links, err := s.OnLink()
	if err != nil {
		return nil, err
	}
	return PrivateBlocks(s.Device, links, s.Self)
}

// PrivateBlocks are the ranges in which subnet: private looks: what the platform
// cuts the private addresses of this family from, and what is on the link of a
// private address with room for more than a router and this server.
func PrivateBlocks(d device.Device, links []netip.Prefix, self netip.Addr) ([]netip.Prefix, error) {
	var blocks []netip.Prefix
	take := func(p netip.Prefix) {
		const pair = 1 // host bits of a /31, which has the router and this server
		if p.IsValid() && p.Addr().Is4() == self.Is4() && p.Addr().BitLen()-p.Bits() > pair {
			blocks = append(blocks, p.Masked())
		}
	}
	for _, a := range d.Addresses {
		if a.Public {
			continue
		}
		take(a.Block)
		take(a.Prefix)
		for _, l := range links { // the kernel knows the link where the document is wrong or mute
			if l.Addr() == a.Prefix.Addr() {
				take(l)
			}
		}
	}
	if len(blocks) == 0 {
		return nil, errors.New("the private addresses are alone with their routers and the platform names no block: write subnet: RANGE, the range of the servers' private addresses, such as 10.99.14.0/24")
	}
	return within(blocks)
}

// within merges overlapping ranges and refuses those that are too large together.
func within(blocks []netip.Prefix) ([]netip.Prefix, error) {
	slices.SortFunc(blocks, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var out []netip.Prefix
	count := 0
	for _, b := range blocks {
		if slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(b) }) {
			continue // ranges overlap only when one holds the other, and the larger came first
		}
		out = append(out, b)
		const bits = 20 // enough to be too large, and no overflow
		count += 1 << min(b.Addr().BitLen()-b.Bits(), bits)
	}
	if count > maxAddresses {
		var names []string
		for _, b := range out {
			names = append(names, b.String())
		}
		return nil, fmt.Errorf("%s has more than %d addresses: write subnet: RANGE, the part of it where the servers are, such as 10.99.14.0/24", strings.Join(names, " and "), maxAddresses)
	}
	return out, nil
}

// addressesOf lists the addresses of ranges, without this server's own.
func addressesOf(blocks []netip.Prefix, self netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, b := range blocks {
		for a := b.Masked().Addr(); b.Contains(a); a = a.Next() {
			if a != self {
				out = append(out, a)
			}
		}
	}
	return out
}
