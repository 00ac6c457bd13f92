package kubeadm

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// The types below are the part of kubeadm.k8s.io/v1beta4 that muster writes. The
// fields and their meaning: Kubernetes, cmd/kubeadm/app/apis/kubeadm/v1beta4.
// v1beta4 is what kubeadm 1.31 to 1.37 read.
const apiVersion = "kubeadm.k8s.io/v1beta4"

type initConfiguration struct {
	APIVersion       string           `yaml:"apiVersion"`
	Kind             string           `yaml:"kind"`
	BootstrapTokens  []bootstrapToken `yaml:"bootstrapTokens"`
	NodeRegistration nodeRegistration `yaml:"nodeRegistration"`
	LocalAPIEndpoint apiEndpoint      `yaml:"localAPIEndpoint"`
	SkipPhases       []string         `yaml:"skipPhases,omitempty"`
	Patches          patches          `yaml:"patches"`
	Timeouts         timeouts         `yaml:"timeouts"`
}

type joinConfiguration struct {
	APIVersion       string            `yaml:"apiVersion"`
	Kind             string            `yaml:"kind"`
	Discovery        discovery         `yaml:"discovery"`
	ControlPlane     *joinControlPlane `yaml:"controlPlane,omitempty"`
	NodeRegistration nodeRegistration  `yaml:"nodeRegistration"`
	SkipPhases       []string          `yaml:"skipPhases,omitempty"`
	Patches          patches           `yaml:"patches"`
	Timeouts         timeouts          `yaml:"timeouts"`
}

type resetConfiguration struct {
	APIVersion    string   `yaml:"apiVersion"`
	Kind          string   `yaml:"kind"`
	CRISocket     string   `yaml:"criSocket"`
	Force         bool     `yaml:"force"`
	CleanupTmpDir bool     `yaml:"cleanupTmpDir"`
	Timeouts      timeouts `yaml:"timeouts"`
}

type clusterConfiguration struct {
	APIVersion           string     `yaml:"apiVersion"`
	Kind                 string     `yaml:"kind"`
	ClusterName          string     `yaml:"clusterName"`
	KubernetesVersion    string     `yaml:"kubernetesVersion"`
	ControlPlaneEndpoint string     `yaml:"controlPlaneEndpoint"`
	EncryptionAlgorithm  string     `yaml:"encryptionAlgorithm"`
	Networking           networking `yaml:"networking"`
	APIServer            apiServer  `yaml:"apiServer"`
	ControllerManager    component  `yaml:"controllerManager,omitempty"`
}

type bootstrapToken struct {
	Token       string   `yaml:"token"`
	Description string   `yaml:"description"`
	TTL         string   `yaml:"ttl"`
	Usages      []string `yaml:"usages"`
	Groups      []string `yaml:"groups"`
}

type nodeRegistration struct {
	Name                  string   `yaml:"name"`
	CRISocket             string   `yaml:"criSocket"`
	ImagePullPolicy       string   `yaml:"imagePullPolicy"`
	ImagePullSerial       bool     `yaml:"imagePullSerial"`
	IgnorePreflightErrors []string `yaml:"ignorePreflightErrors,omitempty"`
	KubeletExtraArgs      []arg    `yaml:"kubeletExtraArgs"`
}

type arg struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

type apiEndpoint struct {
	AdvertiseAddress netip.Addr `yaml:"advertiseAddress"`
	BindPort         uint16     `yaml:"bindPort"`
}

type joinControlPlane struct {
	LocalAPIEndpoint apiEndpoint `yaml:"localAPIEndpoint"`
}

type discovery struct {
	File              fileDiscovery `yaml:"file"`
	TLSBootstrapToken string        `yaml:"tlsBootstrapToken"`
}

type fileDiscovery struct {
	KubeConfigPath string `yaml:"kubeConfigPath"`
}

type networking struct {
	PodSubnet     string `yaml:"podSubnet,omitempty"`
	ServiceSubnet string `yaml:"serviceSubnet,omitempty"`
	DNSDomain     string `yaml:"dnsDomain,omitempty"`
}

type apiServer struct {
	CertSANs  []string `yaml:"certSANs"`
	ExtraArgs []arg    `yaml:"extraArgs,omitempty"`
}

// shutdownDelay is how long an API server that is told to end says that it is not
// ready, and still answers: the speaker withdraws the Elastic IP meanwhile, which takes
// it two probes, 1.2 s, and the router some milliseconds more.
const shutdownDelay = "3s"

type component struct {
	ExtraArgs []arg `yaml:"extraArgs,omitempty"`
}

// controllerManagerArgs are the same on every control plane. kubeadm before 1.36 has the
// directory of FlexVolumes made, which is below /usr unless it is told otherwise; on a
// server that cannot write there the controller-manager would not start
// (kubernetes/kubernetes#136423).
func controllerManagerArgs(k cluster.Kubernetes) []arg {
	args := nodeMasks(k)
	var minor int
	if _, err := fmt.Sscanf(k.Version, "v1.%d.", &minor); err == nil && minor < 36 {
		args = append(args, arg{"flex-volume-plugin-dir", layout.KubeletData + "/volumeplugins"})
	}
	return args
}

type patches struct {
	Directory string `yaml:"directory"`
}

type timeouts struct {
	ControlPlaneComponentHealthCheck string `yaml:"controlPlaneComponentHealthCheck,omitempty"`
	KubeletHealthCheck               string `yaml:"kubeletHealthCheck,omitempty"`
	KubernetesAPICall                string `yaml:"kubernetesAPICall,omitempty"`
	EtcdAPICall                      string `yaml:"etcdAPICall,omitempty"`
	TLSBootstrap                     string `yaml:"tlsBootstrap,omitempty"`
	Discovery                        string `yaml:"discovery,omitempty"`
}

// generous holds for init and join. kubernetesAPICall must be long because it,
// and not controlPlaneComponentHealthCheck, bounds the first start of the API
// server in kubeadm 1.34.10, 1.35.8, 1.36.1 and later (kubeadm#3320); etcdAPICall
// because a control plane that joins waits there for the only learner's place.
var generous = timeouts{
	ControlPlaneComponentHealthCheck: "10m0s",
	KubeletHealthCheck:               "5m0s",
	KubernetesAPICall:                "5m0s",
	EtcdAPICall:                      "5m0s",
	TLSBootstrap:                     "10m0s",
	Discovery:                        "10m0s",
}

// InitTokenTTL is how long the bootstrap token lives that kubeadm init makes. It
// is never used, since joiners get one of their own when it is their turn, but
// without one in the configuration kubeadm makes one that lives for a day.
const InitTokenTTL = 15 * time.Minute

// tokenGroup lets the holder of a bootstrap token ask for a kubelet's certificate.
const tokenGroup = "system:bootstrappers:kubeadm:default-node-token"

// InitInput is what an InitConfiguration is made of.
type InitInput struct {
	Cluster cluster.Cluster
	Node    plan.Node
	Token   cluster.Secret // bootstrap token, see NewToken
	// Finish lays the run over what an earlier one left: its files and open ports
	// are no reason to stop. kubeadm keeps certificates and configurations that
	// are there and repeats the rest.
	Finish bool
}

// JoinInput is what a JoinConfiguration is made of.
type JoinInput struct {
	Cluster cluster.Cluster
	Node    plan.Node
	Join    plan.Join
	// DiscoveryFile is where the discovery kubeconfig lies.
	DiscoveryFile string
	Finish        bool // as in InitInput
	// Bootstrapped says that the kubelet has its certificate: it is not
	// bootstrapped again.
	Bootstrapped bool
}

// leftovers are the preflight checks that an unfinished run of kubeadm fails by
// its own files and processes.
var leftovers = []string{
	"DirAvailable--etc-kubernetes-manifests",
	"DirAvailable--var-lib-etcd",
	"FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
	"FileAvailable--etc-kubernetes-kubelet.conf",
	"FileAvailable--etc-kubernetes-manifests-etcd.yaml",
	"FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
	"FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml",
	"FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml",
	"FileAvailable--etc-kubernetes-pki-ca.crt",
	"Port-10250",
	"Port-10257",
	"Port-10259",
	"Port-2379",
	"Port-2380",
	"Port-6443",
}

// InitConfig is the file for kubeadm init: InitConfiguration,
// ClusterConfiguration, KubeletConfiguration and KubeProxyConfiguration. What
// belongs to this node stands in the first alone: kubeadm copies the others to
// every later control plane.
func InitConfig(in InitInput) ([]byte, error) {
	if err := checkNode(in.Node); err != nil {
		return nil, fmt.Errorf("making kubeadm's init configuration: %w", err)
	}
	k := in.Cluster.Spec.Kubernetes
	return documents(
		initConfiguration{
			APIVersion: apiVersion, Kind: "InitConfiguration",
			BootstrapTokens: []bootstrapToken{{
				Token: in.Token.Reveal(), Description: "muster: made by init, not used", TTL: InitTokenTTL.String(),
				Usages: []string{"signing", "authentication"}, Groups: []string{tokenGroup},
			}},
			NodeRegistration: registration(in.Node, k, in.Finish),
			LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: in.Node.Private, BindPort: plan.APIServerPort},
			SkipPhases:       k.SkipPhases,
			Patches:          patches{Directory: layout.KubeadmPatches},
			Timeouts:         generous,
		},
		clusterConfiguration{
			APIVersion: apiVersion, Kind: "ClusterConfiguration",
			ClusterName: in.Cluster.Metadata.Name, KubernetesVersion: k.Version,
			ControlPlaneEndpoint: in.Node.Endpoint,
			// P-256 keys are an eighth of RSA's size and quicker to make.
			EncryptionAlgorithm: "ECDSA-P256",
			Networking: networking{
				PodSubnet: joinPrefixes(k.PodSubnets), ServiceSubnet: joinPrefixes(k.ServiceSubnets), DNSDomain: k.DNSDomain,
			},
			APIServer:         apiServer{CertSANs: names(in), ExtraArgs: []arg{{"shutdown-delay-duration", shutdownDelay}}},
			ControllerManager: component{ExtraArgs: controllerManagerArgs(k)},
		},
		kubelet(k.Kubelet),
		kubeProxy(k),
	)
}

// JoinConfig is the file for kubeadm join. Discovery is by file: no anonymous
// reading of cluster-info is needed, and the CA is pinned by being in the file.
func JoinConfig(in JoinInput) ([]byte, error) {
	if err := checkNode(in.Node); err != nil {
		return nil, fmt.Errorf("making kubeadm's join configuration: %w", err)
	}
	c := joinConfiguration{
		APIVersion: apiVersion, Kind: "JoinConfiguration",
		Discovery: discovery{
			File:              fileDiscovery{KubeConfigPath: in.DiscoveryFile},
			TLSBootstrapToken: in.Join.Token,
		},
		NodeRegistration: registration(in.Node, in.Cluster.Spec.Kubernetes, in.Finish),
		Patches:          patches{Directory: layout.KubeadmPatches},
		Timeouts:         generous,
	}
	if in.Join.ControlPlane {
		c.ControlPlane = &joinControlPlane{LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: in.Node.Private, BindPort: plan.APIServerPort}}
	}
	if in.Bootstrapped {
		// kubelet-start refuses to join a name whose node is Ready.
		c.SkipPhases = []string{"kubelet-start"}
	}
	return documents(c)
}

// ResetConfig is the file for kubeadm reset. The API is asked only briefly: an
// unfinished node may well have none.
func ResetConfig() ([]byte, error) {
	return documents(resetConfiguration{
		APIVersion: apiVersion, Kind: "ResetConfiguration",
		CRISocket: criSocket, Force: true, CleanupTmpDir: true,
		Timeouts: timeouts{KubernetesAPICall: "20s", EtcdAPICall: "1m0s"},
	})
}

// Patches are the files of kubeadm's patches directory, by name: what is set for
// this node alone. The kubelet listens on the private address only.
func Patches(n plan.Node) map[string][]byte {
	return map[string][]byte{
		"kubeletconfiguration+merge.yaml": fmt.Appendf(nil, "address: %q\n", n.Private),
	}
}

const criSocket = "unix://" + layout.Containerd

func registration(n plan.Node, k cluster.Kubernetes, finish bool) nodeRegistration {
	ignore := slices.Clone(k.IgnorePreflightErrors)
	if finish {
		ignore = append(ignore, leftovers...)
	}
	slices.Sort(ignore)
	if slices.ContainsFunc(ignore, func(s string) bool { return strings.EqualFold(s, "all") }) {
		ignore = []string{"all"} // kubeadm takes it alone only
	}
	// Without node-ip the kubelet takes the address of the default route, which is
	// the public one, and with an external cloud provider none at all.
	args := []arg{{Name: "node-ip", Value: nodeIPs(n)}}
	if k.CloudProvider != "" {
		// For the kubelet alone: kube-controller-manager reads the flag only to refuse
		// what is not external, and the API server has none.
		args = append(args, arg{Name: "cloud-provider", Value: k.CloudProvider})
	}
	return nodeRegistration{
		Name: n.Name, CRISocket: criSocket,
		// Images that were baked or fetched beforehand are not asked for again.
		ImagePullPolicy: "IfNotPresent", ImagePullSerial: false,
		IgnorePreflightErrors: slices.Compact(ignore),
		KubeletExtraArgs:      args,
	}
}

// names are the extra names of the API server's certificate, the same on every
// control plane; kubeadm adds the node's own and the endpoint.
func names(in InitInput) []string {
	sans := []string{"127.0.0.1"}
	for _, e := range in.Cluster.Spec.Network.ElasticIPs {
		sans = append(sans, e.Address.Addr().String())
	}
	if host, _, err := net.SplitHostPort(in.Node.Endpoint); err == nil {
		sans = append(sans, host)
	}
	slices.Sort(sans)
	return slices.Compact(sans)
}

func joinPrefixes(ps []netip.Prefix) string {
	var s []string
	for _, p := range ps {
		s = append(s, p.String())
	}
	return strings.Join(s, ",")
}

func documents(docs ...any) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range docs {
		if err := e.Encode(d); err != nil {
			return nil, fmt.Errorf("encoding kubeadm's configuration: %w", err)
		}
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("encoding kubeadm's configuration: %w", err)
	}
	return b.Bytes(), nil
}

// checkNode refuses what kubeadm would take and get wrong.
func checkNode(n plan.Node) error {
	switch {
	case n.Name == "":
		return fmt.Errorf("the node has no name")
	case !n.Private.IsValid() || n.Private.IsLoopback() || n.Private.IsUnspecified():
		return fmt.Errorf("node %s: its private address is %q, expected one that other servers reach", n.Name, n.Private)
	case n.Endpoint == "":
		return fmt.Errorf("node %s: the cluster has no endpoint, expected host:port", n.Name)
	}
	return nil
}
