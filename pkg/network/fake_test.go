package network

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// fakeKernel holds lo and a routing table in memory with the rules of the real
// one that the reconciler depends on; the suite runs against both.
type fakeKernel struct {
	mu        sync.Mutex
	addresses []address
	routes    []route
	subnets   map[int]netip.Prefix // link -> its address
	writes    int
	destroyed []netip.Addr
	fail      error // every write answers it
}

func (k *fakeKernel) ListAddresses() ([]address, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.addresses), nil
}

func (k *fakeKernel) AddAddress(a address) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if slices.ContainsFunc(k.addresses, func(h address) bool { return h.Prefix == a.Prefix }) {
		return nil // the hand takes EEXIST for success
	}
	k.writes++
	k.addresses = append(k.addresses, a)
	return nil
}

func (k *fakeKernel) DeleteAddress(p netip.Prefix) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	k.addresses = slices.DeleteFunc(k.addresses, func(h address) bool { return h.Prefix == p })
	k.routes = slices.DeleteFunc(k.routes, func(h route) bool { return h.Src == p.Addr() })
	return nil
}

func (k *fakeKernel) DestroySockets(a netip.Addr) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.destroyed = append(k.destroyed, a)
	return 0, nil
}

func (k *fakeKernel) ListRoutes() ([]route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.routes), nil
}

func (k *fakeKernel) ReplaceRoute(r route) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if !k.subnets[r.Link].Masked().Contains(r.Via) && !r.Onlink {
		return unix.ENETUNREACH
	}
	if r.Metric == 0 {
		r.Metric = defaultMetric(r.Dst)
	}
	k.writes++
	k.routes = slices.DeleteFunc(k.routes, func(h route) bool { return h.Dst == r.Dst && h.Metric == r.Metric })
	k.routes = append(k.routes, r)
	return nil
}

func (k *fakeKernel) DeleteRoute(r route) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	k.routes = slices.DeleteFunc(k.routes, func(h route) bool { return h.Dst == r.Dst && h.Metric == r.Metric })
	return nil
}

func (k *fakeKernel) Egress(src, via netip.Addr) (int, bool, error) {
	for link, p := range k.subnets {
		if p.Addr() == src {
			return link, !p.Masked().Contains(via), nil
		}
	}
	return 0, false, fmt.Errorf("the source %s is on no interface", src)
}
