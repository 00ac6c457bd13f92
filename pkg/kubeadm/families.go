package kubeadm

import (
	"strconv"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/plan"
)

// nodeIPs are the kubelet's --node-ip: one address of each family.
func nodeIPs(n plan.Node) string {
	if n.Second.IsValid() {
		return n.Private.String() + "," + n.Second.String()
	}
	return n.Private.String()
}

// nodeMasks tell the controller-manager the nodes' share of an IPv6 range, and
// kubeadm, which checks that the range is wide enough. They are of the cluster, so
// they may stand in its configuration.
func nodeMasks(k cluster.Kubernetes) []arg {
	for _, p := range k.PodSubnets {
		if p.Addr().Is6() {
			return []arg{{Name: "node-cidr-mask-size-ipv6", Value: strconv.Itoa(k.NodeMask(p))}}
		}
	}
	return nil
}
