package speakers

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// session is what a server must know to speak with one router.
type session struct {
	router, source netip.Addr
	as, routerAS   uint32
	multihop       bool
	onLink         bool // the router is in the server's own subnet
	password       cluster.Secret
}

// ebgp says that the two ends have different AS numbers. A session over several
// hops is something that only those have.
func (s session) ebgp() bool { return s.as != s.routerAS }

func (s session) family() int {
	if s.router.Is4() {
		return 4
	}
	return 6
}

// name names the objects of a session: tor-169-254-255-1, with the node where each
// node has its own.
func (s session) name(p peering) string {
	name := "tor-" + strings.NewReplacer(".", "-", ":", "-").Replace(s.router.StringExpanded())
	if p.node != "" {
		name += "-" + p.node
	}
	return name
}

// sessionsOf lists a server's sessions of some address families, sorted by
// router. Two for one router are refused: it takes one from an address, and the
// second stays down without a word.
func sessionsOf(d device.Device, families []int) ([]session, error) {
	var all []session
	for _, n := range d.BGPNeighbors {
		from, ok := d.SessionAddress(n)
		if !ok {
			continue // no address of that family, so that nothing can come from it
		}
		source := from.Prefix.Addr()
		for _, router := range n.PeerIPs {
			s := session{router: router.Unmap(), source: source, as: n.CustomerAS, routerAS: n.PeerAS,
				multihop: n.Multihop, password: cluster.Secret(n.MD5)}
			s.onLink = s.router == from.Gateway || from.Prefix.Masked().Contains(s.router)
			if s.router.Is4() != source.Is4() || !slices.Contains(families, s.family()) {
				continue
			}
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b session) int { return a.router.Compare(b.router) })
	all = slices.Compact(all) // the same said twice is no contradiction
	for i, s := range all {
		if i > 0 && all[i-1].router == s.router {
			return nil, fmt.Errorf("the metadata of %s has the router %s twice, with different sources, AS numbers or passwords: a router takes one session from a server", d.Hostname, s.router)
		}
		if s.as != all[0].as {
			return nil, fmt.Errorf("the metadata of %s has AS %d for the router %s and AS %d for %s: a speaker has one AS number", d.Hostname, all[0].as, all[0].router, s.as, s.router)
		}
	}
	return all, nil
}

// peering are sessions and the nodes that have them.
type peering struct {
	node     string // the one node; "" where all have the same
	workers  bool   // not on control planes: another speaker holds their sessions
	sessions []session
}

// own marks documents as those of the peering's node.
func (p peering) own(documents ...Document) []Document {
	for i := range documents {
		documents[i].Node = p.node
	}
	return documents
}

// peeringsOf says which sessions belong into objects for all nodes and which into
// objects of single nodes. Data decide: where all servers have the same routers,
// with the same AS numbers and passwords, two objects do for the whole cluster.
// Of a single server only routers beyond its own subnet can be those of others,
// too: the gateway of a /31 is its own.
func peeringsOf(spec cluster.Spec, servers []Server) ([]peering, error) {
	families := spec.Network.LoadBalancer.Families()
	workers := spec.Network.BGP.HoldsControlPlanes()
	var found []int
	each := make([]peering, 0, len(servers))
	for _, s := range servers {
		sessions, err := sessionsOf(s.Device, families)
		if err != nil {
			return nil, err
		}
		for _, x := range sessions {
			found = append(found, x.family())
		}
		each = append(each, peering{node: s.Node, workers: workers, sessions: sessions})
	}
	for _, f := range families {
		if !slices.Contains(found, f) {
			return nil, fmt.Errorf("spec.network.loadBalancer.pools has IPv%d addresses, and no IPv%d router to announce them to is in bgp_neighbors; enable BGP for that family at the provider, or remove the addresses", f, f)
		}
	}
	if common, ok := commonOf(each); ok {
		return []peering{common}, nil
	}
	each = slices.DeleteFunc(each, func(p peering) bool { return len(p.sessions) == 0 })
	slices.SortFunc(each, func(a, b peering) int { return cmp.Compare(a.node, b.node) })
	return each, nil
}

// commonOf is the peering of all nodes, where there is one. It has no source: each
// node's is its own, and muster's routes to the routers pin it.
func commonOf(each []peering) (peering, bool) {
	if len(each) == 0 {
		return peering{}, false
	}
	common := peering{workers: each[0].workers, sessions: unsourced(each[0].sessions)}
	for _, p := range each[1:] {
		if !slices.Equal(unsourced(p.sessions), common.sessions) {
			return peering{}, false
		}
	}
	alone := len(each) == 1
	if alone && slices.ContainsFunc(common.sessions, func(s session) bool { return s.onLink }) {
		return peering{}, false
	}
	return common, true
}

func unsourced(sessions []session) []session {
	out := slices.Clone(sessions)
	for i := range out {
		out[i].source = netip.Addr{}
	}
	return out
}

// asOf is the AS number of all servers.
func asOf(peerings []peering) (uint32, error) {
	var as uint32
	for _, p := range peerings {
		for _, s := range p.sessions {
			if as != 0 && s.as != as {
				return 0, fmt.Errorf("the servers have AS %d and AS %d, and Calico's mesh between them has one: write network.bgp.services: metallb or cilium", as, s.as)
			}
			as = s.as
		}
	}
	return as, nil
}

// errNoServices is said where no Services are to be announced.
var errNoServices = errors.New("spec.network.bgp.services is none: there is nothing to render; write metallb, calico or cilium, and loadBalancer.pools")

// Services returns the objects that make the speaker of the cluster file announce
// the pools: on all nodes, or only on those that are no control planes where
// another speaker holds the sessions of these. servers are those whose metadata is
// known; where every node has routers of its own, each needs to be among them.
//
// Secrets come first: a speaker that finds its peer before the password complains.
func Services(spec cluster.Spec, servers []Server) ([]Document, error) {
	render := map[string]func(cluster.Spec, []peering) ([]Document, error){
		cluster.ServicesMetalLB: metalLB, cluster.ServicesCalico: calico, cluster.ServicesCilium: cilium,
	}[spec.Network.BGP.Services]
	if render == nil {
		return nil, errNoServices
	}
	peerings, err := peeringsOf(spec, servers)
	if err != nil {
		return nil, err
	}
	documents, err := render(spec, peerings)
	slices.SortStableFunc(documents, func(a, b Document) int {
		return cmp.Compare(btoi(b.Secret), btoi(a.Secret))
	})
	return documents, err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
