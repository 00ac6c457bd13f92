package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Resolver is what DNS needs of one; *net.Resolver is.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// DNS asks for the addresses of a name, or of the targets of its SRV records when
// it begins with an underscore. Ports in SRV records are ignored: gossip has one
// port on all servers.
type DNS struct {
	Host     string
	Self     netip.Addr
	Resolver Resolver
}

// Name is the key and the name.
func (d DNS) Name() string { return "dns " + d.Host }

// Pace asks as often as records of a forming cluster may change.
func (d DNS) Pace() Pace { return Pace{Deadline: 10 * time.Second, Every: 10 * time.Second} }

// Find asks once.
func (d DNS) Find(ctx context.Context, found func(netip.Addr)) error {
	hosts := []string{d.Host}
	if strings.HasPrefix(d.Host, "_") {
		_, records, err := d.Resolver.LookupSRV(ctx, "", "", rooted(d.Host))
		if err != nil {
			return explainDNS(d.Host, err)
		}
		hosts = nil
		for _, r := range records {
			hosts = append(hosts, r.Target)
		}
	}
	var errs []error
	seen, kept := 0, 0
	for _, h := range hosts {
		addrs, err := d.Resolver.LookupNetIP(ctx, "ip", rooted(h))
		if err != nil {
			errs = append(errs, explainDNS(h, err))
			continue
		}
		seen += len(addrs)
		for _, a := range ofFamily(d.Self, addrs) {
			kept++
			found(a)
		}
	}
	if seen > 0 && kept == 0 {
		errs = append(errs, fmt.Errorf("%s has %d addresses, none of the family of this server's private address %s", d.Host, seen, d.Self))
	}
	return errors.Join(errs...)
}

// rooted keeps search domains of resolv.conf from changing what a name means.
func rooted(host string) string { return strings.TrimSuffix(host, ".") + "." }

// explainDNS keeps what matters of a resolver's error.
func explainDNS(host string, err error) error {
	host = strings.TrimSuffix(host, ".")
	var failed *net.DNSError
	switch {
	case !errors.As(err, &failed):
		return fmt.Errorf("looking up %s: %w", host, err)
	case failed.IsNotFound:
		return fmt.Errorf("%s does not exist, says the resolver %s: make the record, or correct spec.discovery", host, failed.Server)
	case failed.IsTimeout:
		return fmt.Errorf("the resolver %s does not answer for %s: /etc/resolv.conf must name one that this server reaches", failed.Server, host)
	}
	return fmt.Errorf("the resolver %s fails on %s: %s", failed.Server, host, failed.Err)
}
