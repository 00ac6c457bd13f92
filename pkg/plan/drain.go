package plan

import "fmt"

// Pod is a pod on a node, as far as a drain must know it.
type Pod struct {
	Namespace, Name string
	Owner           string // kind of its controller, "" where it has none
	Static          bool   // the kubelet's own, from a manifest on the node
	Ended           bool   // succeeded or failed
	Going           bool   // it was told to end
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// NodeState is how a node stands in Kubernetes.
type NodeState struct {
	Ready    bool
	Cordoned bool // it takes no new pods, by somebody's order
}

// ToEvict are the pods that a drain waits for: not those of the node itself, which
// kubeadm reset ends, and not those that have ended.
func ToEvict(pods []Pod) []Pod {
	var out []Pod
	for _, p := range pods {
		if !p.Static && !p.Ended && p.Owner != "DaemonSet" {
			out = append(out, p)
		}
	}
	return out
}

// DrainTold says what a drain does and what it risks.
func DrainTold(node string, pods []Pod) []string {
	evict := ToEvict(pods)
	told := []string{fmt.Sprintf("Its node %s is cordoned and drained: %d pods go elsewhere.", node, len(evict))}
	for _, p := range evict {
		if p.Owner == "" {
			told = append(told, fmt.Sprintf("DANGER: no controller starts the pod %s again: it ends for good.", p))
		}
	}
	return told
}
