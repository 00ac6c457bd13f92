// Package cluster holds the cluster file: the one document that an operator
// writes, its defaults, its strict decoding with places, and its validation.
//
// Floor 0: it imports nothing of this module and touches nothing but the bytes
// it is given.
package cluster

import (
	"net/netip"
	"time"
)

// APIVersion and Kind open every cluster file.
const (
	APIVersion = "muster/v1alpha1"
	Kind       = "Cluster"
)

// Cluster is a cluster file. Secret is empty in the operator's file and set in
// the copy that lies on a server (/etc/muster/cluster.yaml, 0600).
type Cluster struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`
	Spec       Spec     `yaml:"spec"`
	Secret     Secret   `yaml:"secret,omitempty"`
}

// Metadata names the cluster.
type Metadata struct {
	// Name is a DNS label; it becomes kubeadm's clusterName.
	Name string `yaml:"name"`
}

// Spec is what the servers shall become.
type Spec struct {
	// ID is 32 hex digits, random, new for every generation of the cluster.
	ID             string         `yaml:"id"`
	Platform       string         `yaml:"platform"`
	MetadataSource MetadataSource `yaml:"metadata,omitempty"`
	Static         []StaticServer `yaml:"static,omitempty"`
	Servers        Servers        `yaml:"servers"`
	Identity       Identity       `yaml:"identity,omitempty"`
	Time           TimePolicy     `yaml:"time,omitempty"`
	Discovery      []Discovery    `yaml:"discovery"`
	Agent          AgentSource    `yaml:"agent,omitempty"`
	Kubernetes     Kubernetes     `yaml:"kubernetes"`
	Containerd     Containerd     `yaml:"containerd,omitempty"`
	Network        Network        `yaml:"network,omitempty"`
	Ports          Ports          `yaml:"ports,omitempty"`
	Unsafe         Unsafe         `yaml:"unsafe,omitempty"`
}

// Platforms that this release reads metadata from.
const (
	PlatformPacket = "packet" // the Packet / Equinix Metal JSON document over HTTP
	PlatformStatic = "static" // the servers are described in spec.static
)

// MetadataSource says where the metadata service answers and how long a server
// waits for a complete document before it says so and starts over.
type MetadataSource struct {
	URL string `yaml:"url,omitempty"` // base URL; the document is at URL/metadata
	// Deadline bounds one round of attempts (default 5m). It is not an end: the
	// agent reports the failure in status and tries again.
	Deadline time.Duration `yaml:"deadline,omitempty"`
	// RequireBGP makes a document without bgp_neighbors incomplete, so that it is
	// asked for again. Defaults to true when a speaker of ours needs neighbours.
	RequireBGP *bool `yaml:"requireBGP,omitempty"`
}

// StaticServer describes one server where no metadata service exists.
type StaticServer struct {
	Match        StaticMatch      `yaml:"match"`
	ID           string           `yaml:"id"`
	Hostname     string           `yaml:"hostname"`
	Tags         []string         `yaml:"tags,omitempty"`
	Addresses    []StaticAddress  `yaml:"addresses"`
	BGPNeighbors []StaticNeighbor `yaml:"bgpNeighbors,omitempty"`
}

// StaticMatch picks the server; exactly one field is set.
type StaticMatch struct {
	Hostname string `yaml:"hostname,omitempty"`
	MAC      string `yaml:"mac,omitempty"`
	Address  string `yaml:"address,omitempty"`
}

// StaticAddress is an address with its gateway.
type StaticAddress struct {
	Address netip.Prefix `yaml:"address"`
	Gateway netip.Addr   `yaml:"gateway,omitempty"`
	Public  bool         `yaml:"public,omitempty"`
}

// StaticNeighbor is a BGP neighbour with the meaning of a bgp_neighbors entry.
type StaticNeighbor struct {
	CustomerAS uint32       `yaml:"customerAS"`
	CustomerIP netip.Addr   `yaml:"customerIP,omitempty"`
	PeerAS     uint32       `yaml:"peerAS"`
	PeerIPs    []netip.Addr `yaml:"peerIPs"`
	Multihop   bool         `yaml:"multihop,omitempty"`
	MD5        Secret       `yaml:"md5,omitempty"`
}

// Servers says how many servers there are and who may lead.
type Servers struct {
	Expect        int      `yaml:"expect"`        // N: every server that gets the founding user-data
	ControlPlanes int      `yaml:"controlPlanes"` // K
	Eligible      Eligible `yaml:"eligible,omitempty"`
	Quorum        string   `yaml:"quorum,omitempty"`   // safe | majority
	Electors      []string `yaml:"electors,omitempty"` // hardware ids; then only they vote and N = their count
}

// Eligible selects the servers that may become control planes. At most one
// field is set; none means all.
type Eligible struct {
	Tag      string   `yaml:"tag,omitempty"`      // a metadata tag, as it stands or as KEY=control-plane
	Hostname string   `yaml:"hostname,omitempty"` // a path.Match pattern on the hostname
	List     []string `yaml:"list,omitempty"`     // hostnames
	All      bool     `yaml:"all,omitempty"`
}

// Quorum rules.
const (
	QuorumSafe     = "safe"     // N - (N-1)/3
	QuorumMajority = "majority" // N/2 + 1
)

// Identity says which hardware identity a server votes with.
type Identity struct {
	Source string `yaml:"source,omitempty"` // auto | mac | metadata
}

// TimePolicy says what counts as a clock good enough for GO.
type TimePolicy struct {
	Require string `yaml:"require,omitempty"` // sync | peers | auto
}

// Discovery is one way to find the first peers; exactly one field is set.
type Discovery struct {
	Static []netip.Addr `yaml:"static,omitempty"`
}

// AgentSource says where muster-fetch gets the agent. Without URLs the agent
// must be baked into the image.
type AgentSource struct {
	// URLs are tried in order; ARCH in one is replaced by amd64 or arm64.
	URLs []string `yaml:"urls,omitempty"`
	// SHA256 by architecture (amd64, arm64), 64 hex digits.
	SHA256 map[string]string `yaml:"sha256,omitempty"`
}

// Kubernetes is what kubeadm shall build.
type Kubernetes struct {
	Version        string         `yaml:"version"` // v1.36.3
	Endpoint       Endpoint       `yaml:"endpoint,omitempty"`
	PodSubnets     []netip.Prefix `yaml:"podSubnets,omitempty"`
	ServiceSubnets []netip.Prefix `yaml:"serviceSubnets,omitempty"`
	DNSDomain      string         `yaml:"dnsDomain,omitempty"`
	// Kubelet and KubeProxy are merged into KubeletConfiguration and
	// KubeProxyConfiguration; check warns on each key.
	Kubelet   map[string]any `yaml:"kubelet,omitempty"`
	KubeProxy map[string]any `yaml:"kubeProxy,omitempty"`
	// IgnorePreflightErrors go to nodeRegistration of init and join.
	IgnorePreflightErrors []string `yaml:"ignorePreflightErrors,omitempty"`
	// SkipPhases are kubeadm init phases that are left out, such as addon/coredns.
	SkipPhases []string `yaml:"skipPhases,omitempty"`
}

// Endpoint is the address of the API server that clients use: host:port as a
// string, or {address, external: true} for one that muster does not announce.
type Endpoint struct {
	Address  string `yaml:"address,omitempty"`
	External bool   `yaml:"external,omitempty"`
}

// Containerd adds to the configuration that muster writes whole.
type Containerd struct {
	// Extra maps a plugin id to settings that are laid over ours.
	Extra map[string]map[string]any `yaml:"extra,omitempty"`
}

// Network is what the servers announce.
type Network struct {
	ElasticIPs []ElasticIP `yaml:"elasticIPs,omitempty"`
	BGP        BGP         `yaml:"bgp,omitempty"`
}

// ElasticIP is an address on lo of the servers that On names.
type ElasticIP struct {
	Address netip.Prefix `yaml:"address"` // /32 or /128
	On      string       `yaml:"on"`      // control-planes
}

// BGP says who announces.
type BGP struct {
	ControlPlane string `yaml:"controlPlane,omitempty"` // builtin | none
}

// Speakers of the control plane's Elastic IP.
const (
	SpeakerBuiltin = "builtin"
	SpeakerNone    = "none"
)

// Ports are listened on at the private address only.
type Ports struct {
	Gossip    uint16 `yaml:"gossip,omitempty"`    // 9760, tcp and udp
	Agents    uint16 `yaml:"agents,omitempty"`    // 9761
	Enrolment uint16 `yaml:"enrolment,omitempty"` // 9762
	Directory uint16 `yaml:"directory,omitempty"` // 9763
}

// Unsafe holds relaxations for test servers.
type Unsafe struct {
	// StateFilesystem accepts a state directory on tmpfs, ramfs or overlay.
	StateFilesystem bool `yaml:"stateFilesystem,omitempty"`
}
