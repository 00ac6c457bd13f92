package kubeadm

import (
	"maps"

	"github.com/mustermetal/muster/pkg/cluster"
)

func kubelet(extra map[string]any) map[string]any {
	return merge(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		// containerd is told the same; two drivers make static pods restart.
		"cgroupDriver": "systemd",
	}, extra)
}

func kubeProxy(k cluster.Kubernetes) map[string]any {
	c := map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
		"kind":       "KubeProxyConfiguration",
		"mode":       "nftables",
		// By default the health check listens on every address, the public one
		// among them.
		"metricsBindAddress": "127.0.0.1:10249",
		"healthzBindAddress": "127.0.0.1:10256",
	}
	if len(k.PodSubnets) > 0 {
		c["clusterCIDR"] = joinPrefixes(k.PodSubnets)
	}
	return merge(c, k.KubeProxy)
}

// merge lays over on base, map by map; lists and scalars of over win. Neither is
// changed.
func merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for key, v := range over {
		a, isMap := out[key].(map[string]any)
		b, both := v.(map[string]any)
		if isMap && both {
			out[key] = merge(a, b)
			continue
		}
		out[key] = v
	}
	return out
}
