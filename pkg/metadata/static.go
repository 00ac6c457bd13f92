package metadata

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
)

// overlay lays what the cluster file says of this server over what its platform
// told: first what is for all, then the one entry that is for it. It returns the
// places of the entries. With alone there is no platform, and one must be for it.
func overlay(d device.Device, servers []cluster.StaticServer, facts Facts, alone bool) (device.Device, []int, error) {
	var common, own []int
	for i, s := range servers {
		switch {
		case s.Match.All:
			common = append(common, i)
		case matches(s.Match, facts, d.Hostname):
			own = append(own, i)
		}
	}
	switch {
	case len(own) > 1:
		return d, nil, fmt.Errorf("metadata: spec.static%v all match this server (%s); exactly one may", own, facts)
	case len(own) == 0 && alone:
		return d, nil, fmt.Errorf("metadata: none of the %d servers in spec.static matches this one: %s", len(servers), facts)
	}
	used := slices.Concat(common, own)
	for _, i := range used {
		d = plan.Laid(d, servers[i])
	}
	return d, used, nil
}

// described says whether the cluster file tells all of this server, so that no
// platform needs to be asked.
func (r *Reader) described() (bool, error) {
	if len(r.spec.Static) == 0 {
		return false, nil
	}
	facts, err := r.machine.Facts()
	if err != nil {
		return false, fmt.Errorf("metadata: %w", err)
	}
	d, _, err := overlay(device.Device{}, r.spec.Static, facts, false)
	return err == nil && len(d.Missing()) == 0, err
}

// String is for a sentence that says who this server is.
func (f Facts) String() string {
	return fmt.Sprintf("hostname %q, MACs %s, addresses %s", f.Hostname, listed(f.Hardware.MACs), listed(f.addresses()))
}

func (f Facts) addresses() []netip.Addr {
	var out []netip.Addr
	for _, l := range f.Links {
		for _, p := range l.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}

// matches compares an entry with the server; told is its hostname by the platform.
func matches(m cluster.StaticMatch, facts Facts, told string) bool {
	switch {
	case m.Hostname != "":
		return strings.EqualFold(m.Hostname, facts.Hostname) || strings.EqualFold(m.Hostname, told)
	case m.MAC != "":
		want, err := net.ParseMAC(m.MAC)
		return err == nil && slices.ContainsFunc(facts.Hardware.MACs, func(mac string) bool {
			have, err := net.ParseMAC(mac)
			return err == nil && slices.Equal(have, want)
		})
	case m.Address != "":
		want, err := netip.ParseAddr(m.Address)
		return err == nil && slices.Contains(facts.addresses(), want)
	}
	return false
}

// listed prints values for a sentence, "none" where there are none.
func listed[T any](values []T) string {
	if len(values) == 0 {
		return "none"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ", ")
}
