package cluster

import (
	"net/netip"
	"slices"
)

// Firewall guards the ports of Kubernetes and muster, and nothing else of a
// server: 6443, 10250, 2379-2381, those of spec.ports, and NodePorts. They are open to the
// private ranges (RFC 1918, RFC 4193), podSubnets, and what is named here.
type Firewall struct {
	// Mode is on, off, or auto: on where a server has a public address, while its
	// other addresses are in private ranges.
	Mode string `yaml:"mode,omitempty" allowed:"auto on off"`
	// Trusted are more ranges that may reach every guarded port. Servers whose own
	// network is not in a private range need it here.
	Trusted []netip.Prefix `yaml:"trusted,omitempty"`
	// APIServerFrom are the ranges that may reach port 6443 of the Elastic IPs, or of
	// every address with an external endpoint. Kubelets of workers come from their
	// public addresses where their default route is public. Default: all.
	APIServerFrom []netip.Prefix `yaml:"apiServerFrom,omitempty"`
	// Allow opens some of the guarded ports, NodePorts mostly, to more ranges.
	Allow []Opening `yaml:"allow,omitempty"`
}

// Opening is a port, or a range of ports, that more ranges may reach.
type Opening struct {
	// Port is one of the guarded ports, or the first of several.
	Port uint16 `yaml:"port" required:"true" example:"30443"`
	// Through is the last of several.
	Through uint16 `yaml:"through,omitempty"`
	// From are the ranges that may reach it; 0.0.0.0/0 and ::/0 are everybody.
	From []netip.Prefix `yaml:"from" required:"true" example:"[0.0.0.0/0]"`
}

// Modes of the firewall.
const (
	FirewallAuto = "auto"
	FirewallOn   = "on"
	FirewallOff  = "off"
)

// Last is the last port of an opening.
func (o Opening) Last() uint16 { return max(o.Port, o.Through) }

// PortRange is a port, or several in a row.
type PortRange struct{ First, Last uint16 }

// NodePorts are those that Kubernetes takes for Services.
var NodePorts = PortRange{30000, 32767}

// GuardedPorts are the ports that the firewall guards beside NodePorts, in order.
func (p Ports) GuardedPorts() []PortRange {
	var ports []PortRange
	for _, l := range p.Listeners() {
		if l.Guarded && l.PortRange != NodePorts && !slices.Contains(ports, l.PortRange) {
			ports = append(ports, l.PortRange)
		}
	}
	return ports
}

func (v *validator) firewall() {
	const at = "spec.network.firewall"
	f := v.Spec.Network.Firewall
	if f.Mode == FirewallOff {
		for key, n := range map[string]int{".allow": len(f.Allow), ".apiServerFrom": len(f.APIServerFrom), ".trusted": len(f.Trusted)} {
			if n > 0 {
				v.errorf(at+key, "remove it, or write mode: on", "is read while the firewall is on or auto only, this one is off")
			}
		}
		return
	}
	v.sources(at+".trusted", f.Trusted)
	for i, p := range f.Trusted {
		if p.IsValid() && p.Bits() == 0 {
			v.errorf(index(at+".trusted", i), "write mode: off, or name the ranges of your servers", "%s is everybody: the firewall would guard nothing", p)
		}
	}
	v.sources(at+".apiServerFrom", f.APIServerFrom)
	if len(f.APIServerFrom) > 0 && v.Spec.Kubernetes.Endpoint.Address == "" && v.fine("spec.kubernetes.endpoint") {
		v.errorf(at+".apiServerFrom", "remove it, or open port 6443 with network.firewall.allow", "there is no endpoint that it could be about")
	}
	for i, o := range f.Allow {
		v.opening(index(at+".allow", i), o)
	}
}

// sources checks a list of ranges that packets may come from.
func (v *validator) sources(path string, list []netip.Prefix) {
	for i, p := range list {
		if p.IsValid() && p != p.Masked() {
			v.errorf(index(path, i), "write "+p.Masked().String()+", or "+single(p.Addr()).String()+" for the one address", "%s has bits set beyond its length", p)
		}
	}
}

func (v *validator) opening(path string, o Opening) {
	v.sources(path+".from", o.From)
	if o.Port == 0 || !v.fine(path+".through") {
		return
	}
	if o.Through != 0 && o.Through < o.Port {
		v.errorf(path+".through", "the last port of the range, which includes it", "%d is below the first port %d", o.Through, o.Port)
		return
	}
	guarded := append(v.Spec.Ports.GuardedPorts(), NodePorts)
	next := int(o.Port) // the first port that no range has yet
	for _, g := range guarded {
		if int(g.First) <= next && next <= int(g.Last) {
			next = int(g.Last) + 1
		}
	}
	if next > int(o.Last()) {
		return
	}
	v.errorf(path+".port", "6443, 10250, 2379 to 2381, those of spec.ports, or 30000 to 32767", "port %d is not guarded: muster leaves every other port as it is", next)
}
