package speakers

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// The types below are the part of projectcalico.org/v3 that muster writes. Fields
// and rules: Calico 3.32, resource reference.
type bgpConfiguration struct {
	ASNumber               uint32    `yaml:"asNumber"`
	NodeToNodeMeshEnabled  bool      `yaml:"nodeToNodeMeshEnabled"`
	ServiceLoadBalancerIPs []cidrRef `yaml:"serviceLoadBalancerIPs"`
}

type cidrRef struct {
	CIDR netip.Prefix `yaml:"cidr"`
}

type calicoPeer struct {
	PeerIP        netip.Addr      `yaml:"peerIP"`
	ASNumber      uint32          `yaml:"asNumber"`
	NodeSelector  string          `yaml:"nodeSelector"`
	SourceAddress string          `yaml:"sourceAddress"`
	Filters       []string        `yaml:"filters"`
	Password      *calicoPassword `yaml:"password,omitempty"`
}

type calicoPassword struct {
	SecretKeyRef keyRef `yaml:"secretKeyRef"`
}

type keyRef struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

type bgpFilter struct {
	ExportV4 []filterRule `yaml:"exportV4,omitempty"`
	ImportV4 []filterRule `yaml:"importV4,omitempty"`
	ExportV6 []filterRule `yaml:"exportV6,omitempty"`
	ImportV6 []filterRule `yaml:"importV6,omitempty"`
}

type filterRule struct {
	Action        string        `yaml:"action"`
	MatchOperator string        `yaml:"matchOperator,omitempty"`
	CIDR          *netip.Prefix `yaml:"cidr,omitempty"`
}

type ipPool struct {
	CIDR           netip.Prefix `yaml:"cidr"`
	BlockSize      int          `yaml:"blockSize,omitempty"`
	AllowedUses    []string     `yaml:"allowedUses"`
	AssignmentMode string       `yaml:"assignmentMode"`
	NodeSelector   string       `yaml:"nodeSelector"`
}

// calicoName names the objects of which a cluster needs one.
const calicoName = "muster-services"

// calico renders pools, what may be announced, and the peers. Calico announces a
// pool as it stands, whole, from every node that has the peers.
func calico(spec cluster.Spec, peerings []peering) ([]Document, error) {
	const v3 = "projectcalico.org/v3"
	as, err := asOf(peerings)
	if err != nil {
		return nil, err
	}
	// The mesh between the nodes carries pod routes and stays as it is by default.
	config := bgpConfiguration{ASNumber: as, NodeToNodeMeshEnabled: true}
	var out []Document
	for _, p := range spec.Network.LoadBalancer.Pools {
		for i, a := range p.Addresses {
			name := p.Name
			if len(p.Addresses) > 1 {
				name = fmt.Sprintf("%s-%d", p.Name, i+1)
			}
			out = append(out, document(v3, "IPPool", metadata{Name: name}, ipPoolOf(a, p.Manual)))
			config.ServiceLoadBalancerIPs = append(config.ServiceLoadBalancerIPs, cidrRef{a})
		}
	}
	out = append(out,
		document(v3, "BGPConfiguration", metadata{Name: "default"}, config),
		document(v3, "BGPFilter", metadata{Name: calicoName}, filterOf(config.ServiceLoadBalancerIPs)))
	for _, p := range peerings {
		var secrets []string
		for _, s := range p.sessions {
			peer := calicoPeer{
				PeerIP: s.router, ASNumber: s.routerAS, NodeSelector: p.calicoNodes(), Filters: []string{calicoName},
				// Calico's idea of the node's address may be the public one. None leaves the
				// choice to the kernel, where muster's route to the router pins it.
				SourceAddress: "None",
			}
			if s.password != "" {
				name := s.name(p)
				peer.Password = &calicoPassword{keyRef{name, passwordKey}}
				out = append(out, p.own(secret(opaque, spec.Network.BGP.Namespace, name, s.password))...)
				secrets = append(secrets, name)
			}
			out = append(out, p.own(document(v3, "BGPPeer", metadata{Name: s.name(p)}, peer))...)
		}
		out = append(out, p.own(mayRead(spec.Network.BGP.Namespace, p.node, secrets)...)...)
	}
	return out, nil
}

// ipPoolOf is one range for Services. A range that is narrower than Calico's usual
// block of addresses is one block.
func ipPoolOf(a netip.Prefix, manual bool) ipPool {
	pool := ipPool{CIDR: a, AllowedUses: []string{"LoadBalancer"}, AssignmentMode: "Automatic", NodeSelector: "all()"}
	if manual {
		pool.AssignmentMode = "Manual"
	}
	usual := 26
	if a.Addr().Is6() {
		usual = 122
	}
	if a.Bits() > usual {
		pool.BlockSize = a.Bits()
	}
	return pool
}

// filterOf lets the pools out and nothing else: without a filter the routers would
// learn the pods' blocks, and the nodes whatever the routers send.
func filterOf(pools []cidrRef) bgpFilter {
	var f bgpFilter
	for _, p := range pools {
		accept := filterRule{Action: "Accept", MatchOperator: "In", CIDR: &p.CIDR}
		if p.CIDR.Addr().Is4() {
			f.ExportV4 = append(f.ExportV4, accept)
		} else {
			f.ExportV6 = append(f.ExportV6, accept)
		}
	}
	reject := filterRule{Action: "Reject"}
	f.ExportV4, f.ImportV4 = append(f.ExportV4, reject), []filterRule{reject}
	f.ExportV6, f.ImportV6 = append(f.ExportV6, reject), []filterRule{reject}
	return f
}

// calicoNodes selects the nodes of a peering in Calico's language.
func (p peering) calicoNodes() string {
	var terms []string
	if p.node != "" {
		terms = append(terms, fmt.Sprintf("%s == '%s'", hostnameLabel, p.node))
	}
	if p.workers {
		terms = append(terms, "!has("+controlPlaneLabel+")")
	}
	if len(terms) == 0 {
		return "all()"
	}
	return strings.Join(terms, " && ")
}

type role struct {
	APIVersion string     `yaml:"apiVersion"`
	Kind       string     `yaml:"kind"`
	Metadata   metadata   `yaml:"metadata"`
	Rules      []roleRule `yaml:"rules"`
}

type roleRule struct {
	APIGroups     []string `yaml:"apiGroups,flow"`
	Resources     []string `yaml:"resources,flow"`
	ResourceNames []string `yaml:"resourceNames"`
	Verbs         []string `yaml:"verbs,flow"`
}

type roleBinding struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Metadata   metadata  `yaml:"metadata"`
	RoleRef    roleRef   `yaml:"roleRef"`
	Subjects   []subject `yaml:"subjects"`
}

type roleRef struct {
	APIGroup string `yaml:"apiGroup"`
	Kind     string `yaml:"kind"`
	Name     string `yaml:"name"`
}

type subject struct {
	Kind      string `yaml:"kind"`
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

// mayRead lets calico-node read the passwords, which it may not by itself. What was
// rendered for one node must not take the right to another's away.
func mayRead(namespace, node string, secrets []string) []Document {
	if len(secrets) == 0 {
		return nil
	}
	const group = "rbac.authorization.k8s.io"
	m := metadata{Name: "muster-bgp-passwords", Namespace: namespace, Labels: labels()}
	if node != "" {
		m.Name += "-" + node
	}
	return []Document{
		{Kind: "Role", Name: m.Name, object: role{group + "/v1", "Role", m,
			[]roleRule{{[]string{""}, []string{"secrets"}, secrets, []string{"get", "list", "watch"}}}}},
		{Kind: "RoleBinding", Name: m.Name, object: roleBinding{group + "/v1", "RoleBinding", m,
			roleRef{group, "Role", m.Name}, []subject{{"ServiceAccount", "calico-node", namespace}}}},
	}
}
