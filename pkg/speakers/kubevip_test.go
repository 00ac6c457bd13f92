package speakers

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// vip is the cluster file's part that kube-vip's pod is made of.
func vip(endpoint string) cluster.Spec {
	return cluster.Spec{
		Kubernetes: cluster.Kubernetes{Endpoint: cluster.Endpoint{Address: endpoint}},
		Network:    cluster.Network{BGP: cluster.BGP{ControlPlane: "kube-vip", KubeVIP: cluster.KubeVIP{Image: "ghcr.io/kube-vip/kube-vip:v1.2.3"}}},
	}
}

// kubeVIPOf is the pod's YAML, and its environment with the name of what a value
// is read from.
func kubeVIPOf(t *testing.T, spec cluster.Spec, d device.Device) (Document, string, map[string]string) {
	t.Helper()
	document, err := KubeVIP(spec, d, addr("10.99.14.5"))
	if err != nil {
		t.Fatal(err)
	}
	stream := rendered(t, []Document{document})
	env := map[string]string{}
	pod := decode(t, stream)[0]["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	for _, e := range pod["env"].([]any) {
		v := e.(map[string]any)
		name := v["name"].(string)
		if _, twice := env[name]; twice {
			t.Errorf("%s stands there twice", name)
		}
		if from, ok := v["valueFrom"].(map[string]any); ok {
			env[name] = from["fieldRef"].(map[string]any)["fieldPath"].(string)
		} else {
			env[name] = v["value"].(string)
		}
	}
	return document, string(stream), env
}

// TestKubeVIP: the pod of a control plane with two routers beyond its subnet, that
// of one whose router is its gateway, and one of IPv6.
func TestKubeVIP(t *testing.T) {
	for file, row := range map[string]struct {
		endpoint string
		device   device.Device
		peers    string
	}{
		"kube-vip-pair.yaml":    {"147.75.194.92:6443", server("cp1", 2, "s3cret").Device, "169.254.255.1:65530:s3cret:true,169.254.255.2:65530:s3cret:true"},
		"kube-vip-gateway.yaml": {"147.75.194.92:6443", gateways()[1].Device, "10.99.14.4:65530:s3cret:false"},
		"kube-vip-ipv6.yaml":    {"[2604:1380:1::92]:6443", server("cp1", 2, "").Device, "[fc00::e]:65530::true,[fc00::f]:65530::true"},
	} {
		document, text, env := kubeVIPOf(t, vip(row.endpoint), row.device)
		if env["bgp_peers"] != row.peers {
			t.Errorf("%s: bgp_peers %s, want %s", file, env["bgp_peers"], row.peers)
		}
		if document.Secret != strings.Contains(text, "s3cret") {
			t.Errorf("%s: marked as a secret: %t", file, document.Secret)
		}
		if !strings.Contains(document.String(), "Pod kube-vip") {
			t.Errorf("%s is called %q", file, document)
		}
		compare(t, file, text)
		want := netip.MustParseAddrPort(row.endpoint).Addr()
		if a, ours := KubeVIPAddress([]byte(text)); a != want || !ours {
			t.Errorf("%s: the address in it is %s (%t), want %s", file, a, ours, want)
		}
		for _, other := range []string{strings.Replace(text, "by: muster", "by: Helm", 1), "", "{", "[]"} {
			if a, ours := KubeVIPAddress([]byte(other)); ours {
				t.Errorf("%q is taken for muster's, with the address %s", other, a)
			}
		}
	}
}

// TestKubeVIPTraps: each row is something that ended kube-vip, silenced it, or made
// it announce what it must not (kube-vip v1.2.3; docs/network.md).
func TestKubeVIPTraps(t *testing.T) {
	_, text, env := kubeVIPOf(t, vip("147.75.194.92:6443"), server("cp1", 2, "s3cret").Device)
	for name, want := range map[string]string{
		// One mode of four, or it ends.
		"bgp_enable": "true", "vip_arp": "false",
		// The control plane's address only: Services are another speaker's.
		"cp_enable": "true", "svc_enable": "false", "cp_namespace": "kube-system", "port": "6443",
		// lo:0 is an address label, and "Link not found".
		"vip_interface": "lo",
		// vip_address wants vip_subnet; address does not.
		"address": "147.75.194.92", "vip_nodename": "spec.nodeName",
		// The CLI's default is AS 65000 on both sides.
		"bgp_as": "65000",
		// Not from an interface: its first address may be the Elastic IP.
		"bgp_routerid": "10.99.14.5", "bgp_sourceip": "10.99.14.5",
		"bgp_hold_time": "9", "bgp_keepalive_interval": "3",
		// Without a health check the route stands with no API server at all; its
		// certificate is for kubernetes, not for localhost or 127.0.0.1.
		"control_plane_health_check_address": "https://kubernetes:6443/livez",
		"control_plane_health_check_ca_path": "/etc/kubernetes/pki/ca.crt",
		// The defaults, 5, 3 and 3, withdraw after 14.5 s.
		"control_plane_health_check_period_seconds": "1", "control_plane_health_check_timeout_seconds": "1",
		"control_plane_health_check_failure_threshold": "2",
		// :2112 is all addresses, the public one too.
		"prometheus_server": "127.0.0.1:2112",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
		delete(env, name)
	}
	delete(env, "bgp_peers") // TestKubeVIP
	for name, value := range env {
		t.Errorf("%s=%s is one more than kube-vip shall be told", name, value)
	}
	for _, never := range []string{
		"vip_address", "vip_subnet", "lo:0", "vip_leaderelection", "vip_loseleadership", "bgp_peeraddress", "bgp_peeras", "bgp_sourceif",
		"bgp_routerinterface", "metal", "packet", "provider-config", "cidr", "super-admin.conf",
	} {
		if strings.Contains(text, never) {
			t.Errorf("%s is in the pod:\n%s", never, text)
		}
	}
	for _, piece := range []string{
		"hostAliases:\n    - ip: 127.0.0.1\n      hostnames:\n        - kubernetes\n",
		"- name: ca\n          mountPath: /etc/kubernetes/pki/ca.crt\n          readOnly: true\n",
		"- name: kubeconfig\n          mountPath: /etc/kubernetes/admin.conf\n          readOnly: true\n",
		"- name: ca\n      hostPath:\n        path: /etc/kubernetes/pki/ca.crt\n        type: File\n",
		// It keeps some memory of every check.
		"resources:\n        limits:\n          memory: 512Mi\n",
		"hostNetwork: true\n", "image: ghcr.io/kube-vip/kube-vip:v1.2.3\n", "- NET_ADMIN\n",
	} {
		if !strings.Contains(text, piece) {
			t.Errorf("the pod lacks %q:\n%s", piece, text)
		}
	}
}

// TestKubeVIPRefused: what kube-vip cannot do with this metadata is said.
func TestKubeVIPRefused(t *testing.T) {
	change := func(do func(*device.Device)) device.Device {
		d := server("cp1", 2, "").Device
		do(&d)
		return d
	}
	for _, row := range []struct {
		name, endpoint string
		device         device.Device
		want           string
	}{
		{"a name", "api.example.net:6443", server("cp1", 2, "").Device, `spec.kubernetes.endpoint is "api.example.net:6443"`},
		{"a colon in the password", "147.75.194.92:6443", server("cp1", 2, "s3:cret").Device, "the BGP password in the metadata has a colon or a comma in it"},
		{"a comma in the password", "147.75.194.92:6443", server("cp1", 2, "s3,cret").Device, "the BGP password in the metadata has a colon or a comma in it"},
		{"no router of the family", "[2604:1380:1::92]:6443", change(func(d *device.Device) { d.BGPNeighbors = d.BGPNeighbors[1:] }),
			"the metadata of cp1 has no IPv6 router in bgp_neighbors for kube-vip to announce 2604:1380:1::92 to"},
		{"two sources", "147.75.194.92:6443", change(func(d *device.Device) {
			d.Addresses = append(d.Addresses, device.Address{Prefix: prefix("10.99.20.1/31"), Gateway: addr("10.99.20.0")})
			n := d.BGPNeighbors[1]
			n.CustomerIP, n.PeerIPs = addr("10.99.20.1"), []netip.Addr{addr("169.254.255.3")}
			d.BGPNeighbors = append(d.BGPNeighbors, n)
		}), "come from 10.99.14.5 and 10.99.20.1, and kube-vip has one source for all"},
		{"two AS numbers", "147.75.194.92:6443", change(func(d *device.Device) {
			n := d.BGPNeighbors[1]
			n.CustomerAS, n.PeerIPs = 65001, []netip.Addr{addr("169.254.255.3")}
			d.BGPNeighbors = append(d.BGPNeighbors, n)
		}), "a speaker has one AS number"},
	} {
		_, err := KubeVIP(vip(row.endpoint), row.device, addr("10.99.14.5"))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		} else if strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: the password is in %v", row.name, err)
		}
	}
	// Both families in the metadata are no hindrance: the address's is taken.
	_, _, env := kubeVIPOf(t, vip("147.75.194.92:6443"), server("cp1", 2, "").Device)
	if peers := strings.Split(env["bgp_peers"], ","); slices.ContainsFunc(peers, func(p string) bool { return strings.HasPrefix(p, "[") }) {
		t.Errorf("sessions of both families from one source: %v", peers)
	}
}
