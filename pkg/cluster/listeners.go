package cluster

import (
	"cmp"
	"slices"
)

// Listener is a port that a server of the cluster listens on.
type Listener struct {
	PortRange
	Protocol string // tcp, udp
	At       string // AtPrivate, AtEvery, AtLoopback
	Program  string
	What     string
	// ControlPlanes says that workers do not listen there.
	ControlPlanes bool
	// Guarded says that the firewall keeps strangers away.
	Guarded bool
}

// Where servers listen.
const (
	AtPrivate  = "private address"
	AtEvery    = "every address"
	AtLoopback = "loopback"
)

// Listeners lists what muster, and the Kubernetes that it configures, listen on, by
// port. It is the one list: the firewall guards by it, and people read it.
func (p Ports) Listeners() []Listener {
	one := func(port uint16) PortRange { return PortRange{port, port} }
	all := []Listener{
		{one(p.Gossip), "tcp", AtPrivate, "muster", "gossip: who is there", false, true},
		{one(p.Gossip), "udp", AtPrivate, "muster", "gossip: who is there", false, true},
		{one(p.Agents), "tcp", AtPrivate, "muster", "agents among themselves, mutual TLS", false, true},
		{one(p.Enrolment), "tcp", AtPrivate, "muster", "certificates for servers", false, true},
		{one(p.Directory), "tcp", AtPrivate, "muster-directory", "the database of members, mutual TLS", true, true},
		// 2381, its metrics, on loopback only.
		{PortRange{2379, 2381}, "tcp", AtPrivate, "etcd", "API servers and other members", true, true},
		// kube-apiserver takes one address or all; the Elastic IP must reach it.
		{one(apiPort), "tcp", AtEvery, "kube-apiserver", "the Kubernetes API", true, true},
		{one(10248), "tcp", AtLoopback, "kubelet", "health", false, false},
		{one(10249), "tcp", AtLoopback, "kube-proxy", "metrics", false, false},
		{one(10250), "tcp", AtPrivate, "kubelet", "API servers: logs, exec, metrics", false, true},
		{one(10256), "tcp", AtLoopback, "kube-proxy", "health", false, false},
		{one(10257), "tcp", AtLoopback, "kube-controller-manager", "health and metrics", true, false},
		{one(10259), "tcp", AtLoopback, "kube-scheduler", "health and metrics", true, false},
		{NodePorts, "tcp", AtEvery, "kube-proxy", "NodePorts, as Services ask for them (udp too)", false, true},
	}
	slices.SortStableFunc(all, func(a, b Listener) int { return cmp.Compare(a.First, b.First) })
	return all
}
