// Package layout names every file of muster on a server, in one place, so that
// the agent, its units, the generator and the docs agree.
//
// Floor 0. docs/formats.md describes the contents.
package layout

import "strings"

// Files and directories. Those under Run are gone at reboot.
const (
	ClusterFile = "/etc/muster/cluster.yaml" // 0600, the spec as rendered, with the secret
	FetchEnv    = "/etc/muster/fetch.env"    // URLs and sha256 of the agent
	UnitDir     = "/etc/systemd/system"

	// PodScopes is the drop-in of every container's scope.
	PodScopes = "/etc/systemd/system/cri-containerd-.scope.d/muster.conf"

	State     = "/var/lib/muster"                        // 0700
	Elect     = "/var/lib/muster/elect"                  // state.a, state.b
	Journal   = "/var/lib/muster/journal"                // steps done, appended and fsynced
	Buried    = "/var/lib/muster/buried"                 // why the node on this disk must not start, until a reset
	PKI       = "/var/lib/muster/pki"                    // pre-made CAs, agent CA, agent leaf
	Directory = "/var/lib/muster/directory"              // e<epoch>-g<generation>/
	Revoked   = "/var/lib/muster/directory/revoked.json" // instances whose certificates are refused
	Device    = "/var/lib/muster/device.json"
	Spec      = "/var/lib/muster/spec.json"    // revision of the cluster's spec that this server runs by
	Artifacts = "/var/lib/muster/artifacts"    // by sha256, and installed.json
	Upgrade   = "/var/lib/muster/upgrade.json" // the last exchange of agents
	// Agents are programs of the agent, by sha256 too: what is pinned and what runs.
	Agents = Artifacts + "/agents"

	Run            = "/run/muster"                    // 0700
	Socket         = "/run/muster/agent.sock"         // status and the operator's acts
	Drive          = "/run/muster/drive"              // documents of a labelled disk
	Boot           = "/run/muster/boot"               // random name of this boot
	InitConfig     = "/run/muster/kubeadm-init.yaml"  // 0600
	JoinConfig     = "/run/muster/kubeadm-join.yaml"  // 0600
	ResetConfig    = "/run/muster/kubeadm-reset.yaml" // its presence permits one kubeadm reset
	DiscoveryFile  = "/run/muster/discovery.conf"     // 0600
	GoStands       = "/run/muster/go-stands"          // enough electors confirmed GO since this boot
	DirectoryPlan  = "/run/muster/directory.json"     // how muster-directory shall start
	DirectorySock  = "/run/muster/directory.sock"
	KubectlCache   = "/run/muster/kubectl"       // what the API server can do
	NetworkState   = "/run/muster/network.json"  // which IPv6 addresses on lo are ours
	FirewallState  = "/run/muster/firewall.json" // how the packet filter's table looked when it was right
	AnnouncePlan   = "/run/muster/announce.json" // 0600: holds MD5 passwords
	AnnounceSock   = "/run/muster/announce.sock"
	KubeadmPatches = "/etc/kubernetes/patches"
	Kubernetes     = "/etc/kubernetes"
	KubeletData    = "/var/lib/kubelet"
	KubeletPKI     = "/var/lib/kubelet/pki"
	KubernetesPKI  = "/etc/kubernetes/pki"
	Manifests      = "/etc/kubernetes/manifests"
	KubeVIP        = "/etc/kubernetes/manifests/kube-vip.yaml" // 0600: holds MD5 passwords
	AdminConf      = "/etc/kubernetes/admin.conf"
	KubeletConf    = "/etc/kubernetes/kubelet.conf"
	EtcdData       = "/var/lib/etcd"
	Containerd     = "/run/containerd/containerd.sock"
	CNIBinDir      = "/opt/cni/bin"
	CNIConfDir     = "/etc/cni/net.d"
)

// Units that the agent or the image installs.
const (
	UnitFetch        = "muster-fetch.service"
	UnitAgent        = "muster.service"
	UnitDirectory    = "muster-directory.service"
	UnitRoutes       = "muster-routes.service"
	UnitUpgrade      = "muster-upgrade.service"
	UnitDrive        = "muster-drive.service"
	UnitAnnounce     = "muster-announce.service"
	UnitKubeadmInit  = "kubeadm-init.service"
	UnitKubeadmJoin  = "kubeadm-join.service"
	UnitKubeadmReset = "kubeadm-reset.service"
	UnitKubelet      = "kubelet.service"
	UnitContainerd   = "containerd.service"
)

// Prefix is the directory below which a server has its programs: all of the layout in
// which servers differ. The generator chooses it, and an agent knows it by where it lies.
type Prefix string

// Local is the default. Opt is for servers whose /usr cannot be written, /usr/local
// included, as Flatcar's.
const (
	Local Prefix = "/usr/local"
	Opt   Prefix = "/opt"
)

// Prefixes are all, the default first.
var Prefixes = []Prefix{Local, Opt}

// Bin holds the agent, kubeadm, kubelet, kubectl, containerd, ctr and crictl.
func (p Prefix) Bin() string { return string(p) + "/bin" }

// Runc is the one that containerd runs.
func (p Prefix) Runc() string { return string(p) + "/sbin/runc" }

// Agent is this program on a server.
func (p Prefix) Agent() string { return p.Bin() + "/bootstrap" }

// FormerAgent is the one before, which watches a new one and takes its place back.
func (p Prefix) FormerAgent() string { return p.Bin() + "/bootstrap.former" }

// AgentPart is where muster-fetch looks for a whole agent that lacks its name only.
func (p Prefix) AgentPart() string { return p.Bin() + "/.bootstrap.part" }

// Fetch is the script that gets the agent.
func (p Prefix) Fetch() string { return string(p) + "/libexec/muster-fetch" }

// BakedArtifacts may hold artefacts by sha256 in an image.
func (p Prefix) BakedArtifacts() string { return string(p) + "/share/muster/artifacts" }

// Move is a text for servers with this prefix, of one that was written for Local: a
// unit, or the script that gets the agent.
func (p Prefix) Move(text string) string {
	return strings.ReplaceAll(text, string(Local), string(p))
}
