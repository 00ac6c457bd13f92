package faults

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/guide"
	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// Servers that find each other in one way only, and form a cluster.
func TestDiscovery(t *testing.T) {
	for _, way := range []struct {
		name, discovery string
		long            bool // one of its kind runs in a short run
	}{
		{"subnet private", "subnet: private", false},
		{"dns " + guide.Name, "dns: " + guide.Name, true},
		{"dns " + guide.Service, "dns: " + guide.Service, false},
		{"packetAPI " + guide.Project, guide.PacketAPI(balancerIP), true},
		{"multicast", "multicast: true", true},
	} {
		t.Run(strings.ReplaceAll(way.name, " ", "-"), func(t *testing.T) {
			if way.long {
				variation(t)
			}
			r := beginFound(t, "{"+way.discovery+"}", "cp1", "w1", "w2")
			g := r.guide()
			r.on()
			r.formed()
			r.foundBy(way.name)
			r.told(g)
		})
	}
}

// Several ways at once, of which one works, one fails and one is silent: a failure
// shows, and stops nobody.
func TestDiscoveryFails(t *testing.T) {
	variation(t)
	r := beginFound(t, "{dns: nobody.lab}, {static: [10.77.0.240]}, {subnet: 10.77.0.8/29}", "cp1", "w1", "w2")
	r.guide()
	r.on("cp1")
	r.said("cp1", "discovery by dns nobody.lab: nobody.lab does not exist, says the resolver "+balancerIP.String())
	r.on("w1", "w2")
	r.formed()
	r.foundBy("subnet 10.77.0.8/29")
	found, err := r.by["cp1"].Peers(r.ctx)
	r.must(err)
	for _, f := range found.Found {
		if silent := f.Address == netip.MustParseAddr("10.77.0.240"); silent == f.Answered {
			t.Errorf("%s: answered %v", f.Address, f.Answered)
		}
	}
}

// A server that comes later and knows the endpoint only.
func TestDiscoveryByEndpoint(t *testing.T) {
	variation(t)
	r := begin(t, 1, 1, "cp1", "later")
	r.on("cp1")
	r.formed("cp1")
	r.plan.Join = r.until("cp1", "it is sealed", func(s member.Status) bool { return s.Decree.State == string(election.PhaseSealed) }).Decree.CAHash
	r.plan.Discovery = "{eip: true}"
	data, err := r.plan.Render()
	r.must(err)
	r.by["later"].SetUserData(data)
	r.on("later")
	r.formed("cp1", "later")
	found, err := r.by["later"].Peers(r.ctx)
	r.must(err)
	if len(found.Found) != 1 || found.Found[0].Name != "cp1" || found.Found[0].By[0] != "eip" {
		t.Errorf("found %+v", found)
	}
}

// beginFound is begin for servers with this spec.discovery.
func beginFound(t *testing.T, discovery string, names ...string) *trial {
	t.Helper()
	r := begin(t, len(names), 1, names...)
	r.plan.Discovery, r.plan.Webhook = discovery, guide.Hook(balancerIP)
	if strings.Contains(discovery, "packetAPI") {
		r.plan.Token = cluster.Secret(guide.Token)
	}
	data, err := r.plan.Render()
	r.must(err)
	for _, s := range r.by {
		s.SetUserData(data)
	}
	return r
}

// guide tells of the servers of the plan for the length of the trial.
func (r *trial) guide() *guide.Guide {
	r.Helper()
	var addrs []netip.Addr
	for _, s := range r.those() {
		addrs = append(addrs, s.Address)
	}
	g, err := guide.Open(machine.NetnsPath(balancerNamespace), balancerIP, addrs)
	r.must(err)
	r.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			r.Error(err)
		}
	})
	return g
}

// told checks that every server told the webhook of the roll call, and last that it is
// ready, and that the path of the webhook shows nowhere.
func (r *trial) told(g *guide.Guide) {
	r.Helper()
	for _, s := range r.those() {
		var heard []metadata.Event
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		err := machine.Poll(ctx, s.Name+"'s last event is heard", func() bool { // the last one is on its way
			heard = slices.DeleteFunc(g.Heard.Events(), func(e metadata.Event) bool { return e.From != s.Address })
			return len(heard) > 0 && heard[len(heard)-1].State == "succeeded"
		})
		cancel()
		called := slices.ContainsFunc(heard, func(e metadata.Event) bool {
			return e.Code == 1002 && e.State == "running" && e.Message == "faults/"+s.Name+": roll-call"
		})
		if err != nil || !called {
			r.Errorf("%s told %+v (%v)", s.Name, heard, err)
		}
		if r.journalHas(s.Name, "SECRET") {
			r.Errorf("the journal of %s has the path of the webhook", s.Name)
		}
	}
}

// foundBy checks that every server sees all others, with names, and that this way
// found some of them. The token shows nowhere.
func (r *trial) foundBy(way string) {
	r.Helper()
	found := 0
	for _, s := range r.those() {
		d, err := s.Peers(r.ctx)
		r.must(err)
		named := map[string]bool{}
		for _, f := range d.Found {
			if f.Name != "" && f.HW != "" && f.Answered {
				named[f.Name] = true
			}
			for _, by := range f.By {
				if by == way && f.Answered {
					found++
				}
			}
		}
		if len(named) != len(r.plan.Names)-1 || named[s.Name] {
			r.Errorf("bootstrap peers on %s: %+v", s.Name, d)
		}
		if r.plan.Token != "" && r.journalHas(s.Name, r.plan.Token.Reveal()) {
			r.Errorf("the journal of %s has the token", s.Name)
		}
	}
	if found == 0 {
		r.Errorf("%s found no server that answers", way)
	}
	r.Logf("%s: %d addresses that answer, as seen by %d servers", way, found, len(r.plan.Names))
}
