// Package cluster holds the cluster file: the one document that an operator
// writes, its defaults, its strict decoding with places, and its validation.
//
// Floor 0: it imports nothing of this module and touches nothing but the bytes
// it is given. docs/cluster-file.md is generated from the types below: the doc
// comment of a field is its description there, the tags `required` and `allowed`
// are enforced by the decoder and printed beside it.
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

// Cluster is a cluster file.
type Cluster struct {
	// APIVersion is the version of this format.
	APIVersion string `yaml:"apiVersion" required:"true" allowed:"muster/v1alpha1"`
	// Kind is always Cluster.
	Kind     string   `yaml:"kind" required:"true" allowed:"Cluster"`
	Metadata Metadata `yaml:"metadata"`
	Spec     Spec     `yaml:"spec"`
	// Secret is refused in the operator's file: it is a file of its own, and
	// `userdata render` puts it into the copy that lies on a server
	// (/etc/muster/cluster.yaml, 0600). 32 random bytes in base64.
	Secret Secret `yaml:"secret,omitempty"`
	// AcceptSecret is a second secret that the server accepts and does not use, while
	// the secret changes: `bootstrap rotate` writes it into the copy on a server, the
	// one place where it may be.
	AcceptSecret Secret `yaml:"acceptSecret,omitempty"`
	// APIToken reads the list of devices for discovery by packetAPI. It is refused in
	// the operator's file like the secret, and `userdata render --api-token FILE` adds it.
	APIToken Secret `yaml:"apiToken,omitempty"`
	// Lock is refused in the operator's file likewise: what a server installs, by
	// digest. `userdata render` copies it from the lock file.
	Lock []Pin `yaml:"lock,omitempty"`
}

// Metadata names the cluster.
type Metadata struct {
	// Name is a DNS label (lower-case letters, digits and hyphens, at most 63
	// characters); it becomes kubeadm's clusterName.
	Name string `yaml:"name" required:"true" example:"k8s-bgp"`
}

// Spec is what the servers shall become.
type Spec struct {
	// ID is 32 hex digits, random, new for every generation of the cluster:
	// servers with another id are never part of this one.
	ID string `yaml:"id" required:"true" example:"5b0c6d1f9e2a47b88c3d4e5f60718293"`
	// Platform is the form in which a server is told what it is (docs/platforms.md).
	// static is spec.static alone; auto finds out, and says why, without asking more
	// than one service.
	Platform       string         `yaml:"platform" required:"true" allowed:"auto packet ec2 openstack vultr hetzner latitude nocloud cloudinit static"`
	MetadataSource MetadataSource `yaml:"metadata,omitempty"`
	// Static describes servers. With platform static it describes every one of them;
	// with any other it is laid over what the platform tells, key by key, such as BGP
	// neighbours that no metadata has.
	Static   []StaticServer `yaml:"static,omitempty"`
	Servers  Servers        `yaml:"servers"`
	Join     Join           `yaml:"join,omitempty"`
	Identity Identity       `yaml:"identity,omitempty"`
	Time     TimePolicy     `yaml:"time,omitempty"`
	// Discovery lists ways to find the first peers; all of them are tried. It may
	// be left out when one server is expected.
	Discovery  []Discovery  `yaml:"discovery,omitempty"`
	Report     Report       `yaml:"report,omitempty"`
	SecretFrom SecretSource `yaml:"secretFrom,omitempty"`
	Agent      AgentSource  `yaml:"agent,omitempty"`
	Artifacts  Artifacts    `yaml:"artifacts,omitempty"`
	Kubernetes Kubernetes   `yaml:"kubernetes"`
	Containerd Containerd   `yaml:"containerd,omitempty"`
	Network    Network      `yaml:"network,omitempty"`
	Ports      Ports        `yaml:"ports,omitempty"`
	// Addons are applied in this order, once; `bootstrap apply` gives another list.
	Addons []Addon `yaml:"addons,omitempty"`
	Unsafe Unsafe  `yaml:"unsafe,omitempty"`
}

// Platforms that this release reads metadata from.
const (
	PlatformAuto      = "auto"      // whichever of the others it is
	PlatformPacket    = "packet"    // the Packet / Equinix Metal JSON document over HTTP
	PlatformEC2       = "ec2"       // the tree of EC2, which Tinkerbell serves too
	PlatformOpenStack = "openstack" // config drive or HTTP
	PlatformVultr     = "vultr"     // v1.json
	PlatformHetzner   = "hetzner"   // Hetzner Cloud
	PlatformLatitude  = "latitude"  // Latitude.sh
	PlatformNoCloud   = "nocloud"   // a seed of cloud-init
	PlatformCloudInit = "cloudinit" // what cloud-init found, wherever
	PlatformStatic    = "static"    // the servers are described in spec.static
)

// MetadataSource says where the metadata service answers and how long a server
// waits for a complete document before it says so and starts over.
type MetadataSource struct {
	// URL is the base URL of the metadata service, which each platform has its paths
	// below (packet: URL/metadata). Default: http://169.254.169.254; with openstack and
	// nocloud a drive or seed. Required by platform packet: the public service of
	// Equinix Metal has closed, so there is no address that a default could name safely.
	// With auto only that service is asked.
	URL string `yaml:"url,omitempty"`
	// Deadline bounds one round of attempts, 10s to 1h. It is not an end: the agent
	// reports the failure in status and tries again.
	Deadline time.Duration `yaml:"deadline,omitempty"`
	// RequireBGP makes a document without BGP neighbours incomplete, unless spec.static
	// has them, so that it is asked for again: BGP is often enabled on a server only
	// after it was created. Default: true when network.bgp names a speaker.
	RequireBGP *bool `yaml:"requireBGP,omitempty"`
}

// StaticServer describes one server, or what is the same for all. Platform static
// needs id, hostname and addresses of each; any other only what it does not tell.
type StaticServer struct {
	Match StaticMatch `yaml:"match"`
	// ID is the platform's id of the server; unique in this list.
	ID string `yaml:"id,omitempty" example:"rack1-u7"`
	// Hostname becomes the node name; unique in this list.
	Hostname string `yaml:"hostname,omitempty" example:"cp1"`
	// Tags are what a metadata service would call tags; servers.eligible may select by them.
	Tags []string `yaml:"tags,omitempty"`
	// Addresses are the server's own; at least one is private.
	Addresses []StaticAddress `yaml:"addresses,omitempty" example:"[{address: 10.99.14.9/31, gateway: 10.99.14.8}]"`
	// BGPNeighbors are the top-of-rack routers that this server announces to.
	BGPNeighbors []StaticNeighbor `yaml:"bgpNeighbors,omitempty"`
}

// StaticMatch picks the server; exactly one field is set.
type StaticMatch struct {
	// Hostname is compared with the kernel's host name.
	Hostname string `yaml:"hostname,omitempty"`
	// MAC is the permanent address of any of its links, as 52:54:00:12:34:56.
	MAC string `yaml:"mac,omitempty"`
	// Address is an IP address that is on one of its links.
	Address string `yaml:"address,omitempty"`
	// All says that the entry is for every server. The one that names a server comes
	// over it.
	All bool `yaml:"all,omitempty"`
}

// StaticAddress is an address with its gateway.
type StaticAddress struct {
	// Address is the address with the length of its subnet, such as 10.99.14.9/31.
	Address netip.Prefix `yaml:"address" required:"true" example:"10.99.14.9/31"`
	// Gateway is the router in that subnet.
	Gateway netip.Addr `yaml:"gateway,omitempty"`
	// Public marks an address that the Internet reaches; muster's own ports and
	// the cluster's internal traffic never use it.
	Public bool `yaml:"public,omitempty"`
}

// StaticNeighbor is a BGP neighbour with the meaning of a bgp_neighbors entry.
type StaticNeighbor struct {
	// CustomerAS is the AS number of the server.
	CustomerAS uint32 `yaml:"customerAS" required:"true" example:"65000"`
	// CustomerIP is the address that the session comes from; default: the private
	// address of the same family.
	CustomerIP netip.Addr `yaml:"customerIP,omitempty"`
	// PeerAS is the AS number of the routers.
	PeerAS uint32 `yaml:"peerAS" required:"true" example:"65530"`
	// PeerIPs are the routers' addresses, one session each.
	PeerIPs []netip.Addr `yaml:"peerIPs" required:"true" example:"[169.254.255.1, 169.254.255.2]"`
	// Multihop says that the routers are not on the same link.
	Multihop bool `yaml:"multihop,omitempty"`
	// MD5 is the TCP MD5 password of the sessions.
	MD5 Secret `yaml:"md5,omitempty"`
}

// Servers says how many servers there are and who may lead.
type Servers struct {
	// Expect is N: every server that gets the founding user-data, 1 to 1000,
	// workers too. All of them vote. It is frozen once the cluster has formed.
	Expect int `yaml:"expect" required:"true" example:"5"`
	// ControlPlanes is K: how many of them become control planes; 1 or 3, rarely 5 or 7.
	// Of more eligible servers those behind different top-of-rack switches are
	// preferred, where the platform names the switches (switch_short_id).
	ControlPlanes int      `yaml:"controlPlanes" required:"true" example:"3"`
	Eligible      Eligible `yaml:"eligible,omitempty"`
	// Quorum is how many of the N must be visible and agree before anything is
	// created: safe = N - (N-1)/3, majority = N/2 + 1. With majority one server
	// that loses its disk at the wrong moment can lead to two clusters.
	Quorum string `yaml:"quorum,omitempty" allowed:"safe majority"`
	// Electors are hardware ids (32 hex digits). When given only they vote, and N
	// is their count: a server pasted twice, or one too many, then has no vote.
	Electors []string `yaml:"electors,omitempty"`
	Replace  Replace  `yaml:"replace,omitempty"`
}

// Replace says how a server that was installed anew gets back the place of its
// former life: the same hardware, under the same name and address.
type Replace struct {
	// By is who decides. auto, the default: the control planes, when the former life
	// was out of sight for the time in after and all other members of etcd are healthy.
	// operator: nobody but who runs `bootstrap replace`.
	By string `yaml:"by,omitempty" allowed:"auto operator"`
	// After is that time, 1m to 24h; 10m when left out. It is for the case that the
	// hardware id is wrong, because two servers have the same or somebody with the
	// user-data claims it, so it should be longer than your servers take to reboot; a
	// minute is what gossip needs to be sure that a server is gone.
	After time.Duration `yaml:"after,omitempty"`
}

// Who replaces a server that was installed anew.
const (
	ReplaceAuto     = "auto"
	ReplaceOperator = "operator"
)

// Join makes the user-data that of a server which joins a formed cluster: it
// never votes and is none of the expected ones. `userdata render --join --ca HASH`
// adds it.
type Join struct {
	// CA is the hash of the cluster CA's public key, as kubeadm pins it: the server
	// believes in no other cluster. `bootstrap status -o json` shows it as caHash.
	CA string `yaml:"ca" required:"true" example:"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
}

// Eligible selects the servers that may become control planes. At most one
// field is set; none means all.
type Eligible struct {
	// Tag is a metadata tag, as it stands, or the KEY of a tag KEY=control-plane.
	Tag string `yaml:"tag,omitempty"`
	// Hostname is a pattern such as cp-* (path.Match of Go).
	Hostname string `yaml:"hostname,omitempty"`
	// List names them by hostname.
	List []string `yaml:"list,omitempty"`
	// All says that every server may; so does an empty eligible.
	All bool `yaml:"all,omitempty"`
	// None says that this server may not. Only user-data of one server says so:
	// `userdata render --role worker` writes it.
	None bool `yaml:"none,omitempty"`
}

// Quorum rules.
const (
	QuorumSafe     = "safe"     // N - (N-1)/3
	QuorumMajority = "majority" // N/2 + 1
)

// Identity says which hardware identity a server votes with.
type Identity struct {
	// Source is auto (the DMI UUID, else the lowest permanent MAC), mac, or
	// metadata (the platform's id), for fleets whose boards share UUIDs.
	Source string `yaml:"source,omitempty" allowed:"auto mac metadata"`
}

// TimePolicy says what counts as a clock good enough for GO.
type TimePolicy struct {
	// Require is sync (the kernel says that the clock is synchronised), peers (it is
	// within 5 s of the median of a quorum), or auto: sync, else peers after 60 s.
	Require string `yaml:"require,omitempty" allowed:"auto sync peers"`
}

// AgentSource says where muster-fetch gets the agent. Without URLs the agent
// must be baked into the image.
type AgentSource struct {
	// URLs are tried in order; ARCH in one is replaced by amd64 or arm64. Any scheme
	// that curl or wget speak: the sha256 decides.
	URLs []string `yaml:"urls,omitempty"`
	// SHA256 is that of the agent by architecture (amd64, arm64): 64 hex digits each.
	SHA256 map[string]string `yaml:"sha256,omitempty"`
}

// Kubernetes is what kubeadm shall build.
type Kubernetes struct {
	// Version is a full release such as v1.36.3.
	Version string `yaml:"version" required:"true" example:"v1.36.3"`
	// Endpoint is the address of the API server for clients: host:port when host is
	// one of network.elasticIPs, or {address: host:port, external: true} for one
	// that something else brings to the control planes. May be absent with one
	// control plane.
	Endpoint Endpoint `yaml:"endpoint,omitempty"`
	// PodSubnets is one range, or one per address family. Every node takes a /24 out
	// of it; of IPv6 a /64 where the range is a /48 to /56, else a share that is 16
	// bits narrower than the range, so that fd01::/64 is room for 65,536 nodes of a
	// /80.
	PodSubnets []netip.Prefix `yaml:"podSubnets,omitempty"`
	// ServiceSubnets is one range, or one per address family, in the order of
	// podSubnets. The servers' own ports are at their private addresses of the first
	// family; with two families a node has an address of each.
	ServiceSubnets []netip.Prefix `yaml:"serviceSubnets,omitempty"`
	// DNSDomain is the domain of Services.
	DNSDomain string `yaml:"dnsDomain,omitempty"`
	// CloudProvider is the kubelets' --cloud-provider: with it each taints its new node
	// until a cloud controller manager has taken it over. cloudController says who
	// brings one.
	CloudProvider   string          `yaml:"cloudProvider,omitempty" allowed:"external"`
	CloudController CloudController `yaml:"cloudController,omitempty"`
	// Kubelet is merged into KubeletConfiguration, unchecked: `check` warns on each key.
	Kubelet map[string]any `yaml:"kubelet,omitempty"`
	// KubeProxy is merged into KubeProxyConfiguration, unchecked: `check` warns on each key.
	KubeProxy map[string]any `yaml:"kubeProxy,omitempty"`
	// IgnorePreflightErrors go to nodeRegistration of init and join: `check` warns on each.
	IgnorePreflightErrors []string `yaml:"ignorePreflightErrors,omitempty"`
	// SkipPhases are kubeadm init phases that are left out, such as addon/coredns:
	// `check` warns on each.
	SkipPhases []string `yaml:"skipPhases,omitempty"`
}

// Endpoint is the address of the API server that clients use: host:port as a
// string, or {address, external: true} for one that muster does not announce.
type Endpoint struct {
	// Address is host:port.
	Address string `yaml:"address,omitempty"`
	// External says that muster neither holds nor announces the address.
	External bool `yaml:"external,omitempty"`
}

// Containerd adds to the configuration that muster writes whole.
type Containerd struct {
	// Extra maps a plugin id to settings that are laid over ours, unchecked: `check`
	// warns on each.
	Extra map[string]map[string]any `yaml:"extra,omitempty"`
}

// Network is what the servers announce, and whom they let in.
type Network struct {
	// ElasticIPs are addresses that the routers lead to whoever announces them.
	ElasticIPs   []ElasticIP  `yaml:"elasticIPs,omitempty"`
	BGP          BGP          `yaml:"bgp,omitempty"`
	LoadBalancer LoadBalancer `yaml:"loadBalancer,omitempty"`
	Firewall     Firewall     `yaml:"firewall,omitempty"`
}

// ElasticIP is an address on lo of the servers that On names.
type ElasticIP struct {
	// Address is a /32 or a /128.
	Address netip.Prefix `yaml:"address" required:"true" example:"147.75.194.92/32"`
	// On names the servers that hold it while they are healthy.
	On string `yaml:"on" required:"true" allowed:"control-planes"`
}

// OnControlPlanes is the one value of ElasticIP.On so far.
const OnControlPlanes = "control-planes"

// Ports are listened on at the private address only.
type Ports struct {
	// Gossip is the roll call, tcp and udp.
	Gossip uint16 `yaml:"gossip,omitempty"`
	// Agents is where agents talk to each other, tcp, mutual TLS.
	Agents uint16 `yaml:"agents,omitempty"`
	// Enrolment is where a server gets its certificate, tcp.
	Enrolment uint16 `yaml:"enrolment,omitempty"`
	// Directory is the replicated database of members, tcp, mutual TLS.
	Directory uint16 `yaml:"directory,omitempty"`
}

// Unsafe holds relaxations for test servers.
type Unsafe struct {
	// StateFilesystem accepts a state directory on tmpfs, ramfs or overlay: votes
	// are then forgotten at power loss.
	StateFilesystem bool `yaml:"stateFilesystem,omitempty"`
}
