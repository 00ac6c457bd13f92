package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// How often Run looks for servers. While alone it tries all seeds, soon and then
// less often. With company it exchanges its whole view with one member now and
// then: a node that missed one message would otherwise wait for memberlist's own
// exchange, 30 s and more. The figures come from memberlist in virtual time: with
// 50 servers and 2 % loss the slowest has the full view after 3.9 s in place of
// 87.7 s.
const (
	aloneFirst   = time.Second
	aloneMost    = 10 * time.Second
	rejoinEvery  = 10 * time.Second
	settledEvery = time.Minute // only seeds that are not seen: a network that was cut heals
	// aloneAtOnce bounds the dials of a round: a list of devices may have hundreds of
	// addresses, and each dial is a connection and a full exchange.
	aloneAtOnce = 16
)

// Run finds the other servers and stays until ctx ends, whose error it returns.
// seeds gives addresses to try; it is called for every round, own address and
// known members may be among them. A value of news begins a round at once, for a
// server that is alone. Dials run side by side, so that a seed that does not answer
// holds up nobody.
func (g *Group) Run(ctx context.Context, seeds func() []netip.Addr, news <-chan struct{}) error {
	alone := aloneFirst
	for {
		targets, wait := g.round(seeds(), &alone)
		for _, target := range targets {
			g.dial(target)
		}
		if err := g.pause(ctx, jitter(wait), news); err != nil {
			return err
		}
	}
}

// pause waits for the next round.
func (g *Group) pause(ctx context.Context, wait time.Duration, news <-chan struct{}) error {
	over := time.After(wait)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case <-news:
			if len(g.Peers()) < 2 {
				return nil
			}
		}
	}
}

// round returns whom to contact now and how long to wait until the next round.
func (g *Group) round(seeds []netip.Addr, alone *time.Duration) ([]netip.Addr, time.Duration) {
	seen := map[netip.Addr]bool{}
	var members []netip.Addr
	for _, p := range g.Peers() {
		seen[p.Address] = true
		if p.Inst != g.config.Inst {
			members = append(members, p.Address)
		}
	}
	seen[g.config.Address] = true
	unseen := slices.DeleteFunc(slices.Clone(seeds), func(a netip.Addr) bool { return seen[a] })
	slices.SortFunc(unseen, netip.Addr.Compare)
	unseen = slices.Compact(unseen)

	if len(members) == 0 {
		wait := *alone
		*alone = min(2*wait, aloneMost)
		rand.Shuffle(len(unseen), func(i, j int) { unseen[i], unseen[j] = unseen[j], unseen[i] })
		return unseen[:min(len(unseen), aloneAtOnce)], wait
	}
	*alone = aloneFirst
	settled := g.config.Settled != nil && g.config.Settled()
	var targets []netip.Addr
	if len(unseen) > 0 {
		targets = append(targets, pick(unseen))
	}
	if settled {
		return targets, settledEvery
	}
	return append(targets, pick(members)), rejoinEvery
}

// dial joins through one server, unless the last attempt there still runs. An
// attempt ends within memberlist's TCP time-out of 10 s.
func (g *Group) dial(target netip.Addr) {
	g.mu.Lock()
	busy := g.dialing[target]
	g.dialing[target] = true
	g.mu.Unlock()
	if busy {
		return
	}
	g.dials.Go(func() {
		at := netip.AddrPortFrom(target, g.config.Port).String()
		if _, err := g.list.Join([]string{at}); err != nil {
			g.config.Logger.Debug("gossip: no answer", "address", at, "err", err)
		}
		g.mu.Lock()
		delete(g.dialing, target)
		g.mu.Unlock()
	})
}

// Ask says whether a server of this group answers at an address, within half a
// second: one encrypted packet there and one back. Others stay silent, because they
// cannot read it.
func (g *Group) Ask(at netip.Addr) bool {
	// An empty name asks whoever is there.
	_, err := g.list.Ping("", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, g.config.Port)))
	return err == nil
}

// jitter spreads servers that were powered on together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}

func pick(from []netip.Addr) netip.Addr {
	return from[rand.IntN(len(from))]
}
