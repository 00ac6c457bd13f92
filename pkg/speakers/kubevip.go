package speakers

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/layout"
)

// The types below are the part of core/v1 that kube-vip's pod needs.
type podSpec struct {
	HostNetwork       bool        `yaml:"hostNetwork"`
	PriorityClassName string      `yaml:"priorityClassName"`
	HostAliases       []hostAlias `yaml:"hostAliases"`
	Containers        []container `yaml:"containers"`
	Volumes           []volume    `yaml:"volumes"`
}

type hostAlias struct {
	IP        string   `yaml:"ip"`
	Hostnames []string `yaml:"hostnames"`
}

type container struct {
	Name            string          `yaml:"name"`
	Image           string          `yaml:"image"`
	ImagePullPolicy string          `yaml:"imagePullPolicy"`
	Args            []string        `yaml:"args"`
	Env             []envVar        `yaml:"env"`
	Resources       resources       `yaml:"resources"`
	SecurityContext securityContext `yaml:"securityContext"`
	VolumeMounts    []volumeMount   `yaml:"volumeMounts"`
}

type envVar struct {
	Name      string     `yaml:"name"`
	Value     string     `yaml:"value,omitempty"`
	ValueFrom *valueFrom `yaml:"valueFrom,omitempty"`
}

type valueFrom struct {
	FieldRef fieldRef `yaml:"fieldRef"`
}

type fieldRef struct {
	FieldPath string `yaml:"fieldPath"`
}

type resources struct {
	Limits map[string]string `yaml:"limits"`
}

type securityContext struct {
	Capabilities capabilities `yaml:"capabilities"`
}

type capabilities struct {
	Add  []string `yaml:"add"`
	Drop []string `yaml:"drop"`
}

type volumeMount struct {
	Name      string `yaml:"name"`
	MountPath string `yaml:"mountPath"`
	ReadOnly  bool   `yaml:"readOnly"`
}

type volume struct {
	Name     string   `yaml:"name"`
	HostPath hostPath `yaml:"hostPath"`
}

type hostPath struct {
	Path string `yaml:"path"`
	Type string `yaml:"type"`
}

// KubeVIP returns the static pod of a control plane that announces the endpoint in
// muster's place, as kube-vip v1.2 reads it. routerID is this server's.
//
// Every control plane announces, each while its own API server is healthy: without
// leader election kube-vip asks the API server for nothing, so that admin.conf,
// which has no rights until late in kubeadm init, will do, and super-admin.conf,
// which has all, stays out of the pod.
func KubeVIP(spec cluster.Spec, d device.Device, routerID netip.Addr) (Document, error) {
	address, ok := spec.Kubernetes.Endpoint.Addr()
	if !ok {
		return Document{}, fmt.Errorf("spec.kubernetes.endpoint is %q: kube-vip announces an Elastic IP, and this is none", spec.Kubernetes.Endpoint.Address)
	}
	sessions, err := kubeVIPSessions(d, address)
	if err != nil {
		return Document{}, err
	}
	peers := make([]string, 0, len(sessions))
	private := false
	for _, s := range sessions {
		peers = append(peers, kubeVIPPeer(s))
		private = private || s.password != ""
	}
	pod := kubeVIPPod(spec.Network.BGP.KubeVIP.Image, kubeVIPEnv(address, sessions[0], routerID, peers))
	out := document("v1", "Pod", metadata{Name: "kube-vip", Namespace: "kube-system"}, pod)
	out.Secret = private
	return out, nil
}

// kubeVIPSessions are the sessions to announce an address by. kube-vip has one AS
// number and one source for all of them.
func kubeVIPSessions(d device.Device, address netip.Addr) ([]session, error) {
	family := 6
	if address.Is4() {
		family = 4
	}
	sessions, err := sessionsOf(d, []int{family})
	if err != nil {
		return nil, err
	}
	if len(sessions) == 0 {
		return nil, fmt.Errorf("the metadata of %s has no IPv%d router in bgp_neighbors for kube-vip to announce %s to; enable BGP for that family at the provider", d.Hostname, family, address)
	}
	for _, s := range sessions {
		if s.source != sessions[0].source {
			return nil, fmt.Errorf("the sessions of %s come from %s and %s, and kube-vip has one source for all: write network.bgp.controlPlane: builtin", d.Hostname, sessions[0].source, s.source)
		}
		if strings.ContainsAny(s.password.Reveal(), ":,") {
			return nil, errors.New("the BGP password in the metadata has a colon or a comma in it, which kube-vip cannot read: choose another on both ends, or write network.bgp.controlPlane: builtin")
		}
	}
	return sessions, nil
}

// kubeVIPPeer is an element of bgp_peers: address, AS, password, multihop. A port
// would be read and not used.
func kubeVIPPeer(s session) string {
	router := s.router.String()
	if s.router.Is6() {
		router = "[" + router + "]"
	}
	return fmt.Sprintf("%s:%d:%s:%t", router, s.routerAS, s.password.Reveal(), s.multihop && s.ebgp())
}

// kubeVIPEnv is all that kube-vip is told. What is left out is left out on purpose:
//   - vip_address, which wants vip_subnet beside it, or kube-vip ends at once;
//   - vip_leaderelection, so that every control plane announces (ECMP);
//   - bgp_peeraddress and bgp_peeras, which are one more peer, of AS 65000 by default;
//   - bgp_sourceif and bgp_routerinterface, which take the first address of a link;
//   - all that asked the API of Equinix Metal, which is an unknown flag since v0.9.
func kubeVIPEnv(address netip.Addr, s session, routerID netip.Addr, peers []string) []envVar {
	ca := path.Join(layout.KubernetesPKI, "ca.crt")
	return []envVar{
		{Name: "vip_arp", Value: "false"},
		{Name: "bgp_enable", Value: "true"},
		{Name: "cp_enable", Value: "true"},
		{Name: "svc_enable", Value: "false"},
		{Name: "cp_namespace", Value: "kube-system"},
		{Name: "port", Value: strconv.Itoa(apiServerPort)},
		{Name: "vip_interface", Value: "lo"}, // lo:0 is a label, no link: kube-vip would end at once
		{Name: envAddress, Value: address.String()},
		{Name: "vip_nodename", ValueFrom: &valueFrom{fieldRef{"spec.nodeName"}}},
		{Name: "bgp_as", Value: strconv.FormatUint(uint64(s.as), 10)},
		{Name: "bgp_routerid", Value: routerID.String()},
		{Name: "bgp_sourceip", Value: s.source.String()},
		{Name: "bgp_peers", Value: strings.Join(peers, ",")},
		{Name: "bgp_hold_time", Value: strconv.Itoa(holdTime)},
		{Name: "bgp_keepalive_interval", Value: strconv.Itoa(keepaliveTime)},
		// Without these the route stands with no API server at all. The API server's
		// certificate has the name kubernetes, and none for localhost.
		{Name: "control_plane_health_check_address", Value: fmt.Sprintf("https://%s:%d/livez", localAPIServer, apiServerPort)},
		{Name: "control_plane_health_check_ca_path", Value: ca},
		// Whole seconds. Withdrawn at most 3 s after the API server stopped to answer, 2 s
		// after it was gone; an etcd that elects for less than 2 s is borne.
		{Name: "control_plane_health_check_period_seconds", Value: "1"},
		{Name: "control_plane_health_check_timeout_seconds", Value: "1"},
		{Name: "control_plane_health_check_failure_threshold", Value: "2"},
		{Name: "prometheus_server", Value: KubeVIPMetrics}, // by default on all addresses
	}
}

// KubeVIPAddress returns the address that a manifest of muster's has kube-vip announce,
// and put on lo; false for a manifest of anybody else.
func KubeVIPAddress(manifest []byte) (netip.Addr, bool) {
	var pod object[podSpec]
	if yaml.Unmarshal(manifest, &pod) != nil || pod.Metadata.Labels[managedBy] != muster {
		return netip.Addr{}, false
	}
	for _, c := range pod.Spec.Containers {
		for _, e := range c.Env {
			if e.Name == envAddress {
				a, err := netip.ParseAddr(e.Value)
				return a, err == nil
			}
		}
	}
	return netip.Addr{}, false
}

// KubeVIPMetrics is where kube-vip listens while it runs.
const KubeVIPMetrics = "127.0.0.1:2112"

const (
	envAddress     = "address"
	apiServerPort  = 6443
	localAPIServer = "kubernetes" // by the pod's hostAliases
)

// kubeVIPMemory bounds what v1.2.3 keeps of every check: 3.5 KB (measured), 300 MB a
// day with one each second.
const kubeVIPMemory = "512Mi"

func kubeVIPPod(image string, env []envVar) podSpec {
	ca := path.Join(layout.KubernetesPKI, "ca.crt")
	return podSpec{
		HostNetwork:       true,
		PriorityClassName: "system-node-critical",
		HostAliases:       []hostAlias{{"127.0.0.1", []string{localAPIServer}}},
		Containers: []container{{
			Name: "kube-vip", Image: image, ImagePullPolicy: "IfNotPresent", Args: []string{"manager"}, Env: env,
			Resources:       resources{map[string]string{"memory": kubeVIPMemory}},
			SecurityContext: securityContext{capabilities{Add: []string{"NET_ADMIN", "NET_RAW"}, Drop: []string{"ALL"}}},
			VolumeMounts:    []volumeMount{{"kubeconfig", layout.AdminConf, true}, {"ca", ca, true}},
		}},
		Volumes: []volume{{"kubeconfig", hostPath{layout.AdminConf, "File"}}, {"ca", hostPath{ca, "File"}}},
	}
}
