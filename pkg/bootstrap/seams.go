package bootstrap

import (
	"context"
	"net/netip"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Metadata reads what the platform says of this server, from the service or,
// after a reboot with the service down, from the copy on disk.
type Metadata interface {
	// Device returns a complete document, or the last error at the deadline.
	// report hears of each failed attempt.
	Device(ctx context.Context, report func(error)) (device.Device, error)
}

// Outward tells listeners outside how far this server is. It never makes anybody
// wait: what cannot be told is lost.
type Outward interface {
	Tell(n plan.Notice)
	Aim(at string) // where the platform listens
	Run(ctx context.Context) error
}

// Journal remembers across power loss which steps are done.
type Journal interface {
	// Enter begins an epoch, unless it is under way: what was done in an earlier
	// one does not count.
	Enter(epoch uint64) error
	Done(step string) bool
	Finish(step string) error
}

// Peer is a server that gossip sees. Address and hardware are hearsay: what
// counts is the certificate it shows when called.
type Peer struct {
	Inst, HW string
	Address  netip.Addr
	Switch   string // the same for servers on the same one; empty where it is not known
	Flags
}

// Flags are the hints that ride on gossip.
type Flags struct {
	Eligible     bool
	Decided      bool // knows a GO
	Sealed       bool
	ControlPlane bool // answers for the directory and hands out join material
	Joining      bool // booted with joining user-data
}

// Gossip is the roll call.
type Gossip interface {
	Peers() []Peer // this server among them
	Changes() <-chan struct{}
	SetFlags(Flags)
}

// Search looks for servers that gossip does not know yet.
type Search interface {
	Report() member.Discovery
}

// Calls reach other agents: Vote and Enrol on the enrolment port, the rest on
// the agent port.
type Calls interface {
	Fence(ctx context.Context, p agent.Peer, message []byte) (replies [][]byte, from agent.Caller, err error)
	Enrol(ctx context.Context, p agent.Peer, request agent.EnrolRequest) (agent.Enrolment, error)
	// Status asks on the agent port when this server has enrolled, else on the
	// enrolment port.
	Status(ctx context.Context, p agent.Peer) (member.Status, error)
	Members(ctx context.Context, p agent.Peer) ([]member.Member, error)
	ClaimRole(ctx context.Context, p agent.Peer, request agent.RoleRequest) (agent.RoleReply, error)
	ReportPhase(ctx context.Context, p agent.Peer, report agent.PhaseReport) error
	Authorities(ctx context.Context, p agent.Peer, request agent.AuthoritiesRequest) (agent.AuthoritiesReply, error)
	AcquireJoin(ctx context.Context, p agent.Peer) (agent.JoinTurn, error)
	RenewJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error
	ReleaseJoin(ctx context.Context, p agent.Peer, turn agent.JoinTurn) error
	JoinMaterial(ctx context.Context, p agent.Peer) (agent.JoinMaterial, error)
	Leave(ctx context.Context, p agent.Peer, request agent.LeaveRequest) (agent.LeaveReply, error)
	// Standing is asked on the enrolment port, where a removed server may.
	Standing(ctx context.Context, p agent.Peer) (agent.Standing, error)
	Spec(ctx context.Context, p agent.Peer, request agent.SpecRequest) (member.Spec, error)
}

// Trust holds this server's keys: the leaf of the enrolment CA that it made
// itself, the leaf of the agent CA that it gets by enrolling, and, on control
// planes, the agent CA.
type Trust interface {
	// EnsureAgentCA makes the agent CA that this server will use if it leads, or
	// reads the one made before, and returns the hash of its public key.
	EnsureAgentCA() (hash string, err error)
	// AgentCA returns certificate and key as PEM for another control plane;
	// AdoptAgentCA stores them, if the hash is the pinned one.
	AgentCA() ([]byte, error)
	AdoptAgentCA(pem []byte, pinned string) error
	CanSign() bool
	// Keep drops the leaf and the agent CA of a decree that was superseded: all
	// that is not of the pinned CA.
	Keep(pinned string) error
	// Lead makes the CA of EnsureAgentCA the agent CA, if it is the pinned one.
	Lead(pinned string) error
	// KeyOf returns the hash of the public key that a certificate request asks a
	// leaf for, once its signature by that key was checked.
	KeyOf(csr []byte) (hash string, err error)
	// Sign issues a leaf for the caller's certificate request.
	Sign(from agent.Caller, csr []byte) (agent.Enrolment, error)
	CSR() ([]byte, error)
	// Install stores the leaf, if its CA's hash is the pinned one.
	Install(e agent.Enrolment, pinned string) error
	Enrolled() bool
	// Seal encrypts to a public key; Open opens what was sealed to Receiver.
	Receiver() (publicKey []byte, err error)
	Seal(publicKey, plaintext []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// DirectoryRun says which directory a server runs, and how it starts.
type DirectoryRun struct {
	plan.Directory
	Address netip.Addr
	Peers   []netip.Addr // the other control planes
	Make    bool         // the Lease lets this server make this generation
}

// Directory is the dqlite directory of this server, a unit of its own.
type Directory interface {
	// Generation is the highest of an epoch that this server began to run.
	Generation(epoch uint64) (uint64, error)
	// Start brings it up and returns when it answers. Without peers only the one
	// who may make it has one that starts.
	Start(ctx context.Context, run DirectoryRun) error
	// Stop ends what runs of it here.
	Stop(ctx context.Context) error
	// BindKey binds an instance to the first key it enrols with; another one
	// wraps agent.ErrRefused.
	BindKey(ctx context.Context, inst, hw, keyHash string) error
	// ClaimRole wraps agent.ErrSurplus for a server of other hardware than the
	// expect ones that have rows, until it is approved; expect 0 is no limit. It
	// wraps agent.ErrRefused for an instance that was removed.
	ClaimRole(ctx context.Context, m member.Member, eligible, first bool, controlPlanes, expect int) (member.Role, error)
	Approve(ctx context.Context, hw string) error
	// Remove takes a member out for ever, by its name; without do it only looks. It
	// wraps agent.ErrRefused when it must stay, and goes on where it was interrupted.
	Remove(ctx context.Context, name string, do bool) (member.Removal, error)
	Members(ctx context.Context) ([]member.Member, error)
	// SetPhase of an instance without a row wraps agent.ErrRefused.
	SetPhase(ctx context.Context, inst string, phase member.Phase, detail string) error
	// Records are what a lost directory is made again from; Restore gives rows to
	// members that have none.
	Records(ctx context.Context) ([]member.Record, error)
	Restore(ctx context.Context, records []member.Record) error
	AcquireJoin(ctx context.Context, inst string) (agent.JoinTurn, error)
	RenewJoin(ctx context.Context, inst string, token int64) error
	ReleaseJoin(ctx context.Context, inst string, token int64) error
	// Spec is the revision of the cluster's spec, nil when there is none yet; without
	// its text when it is the known one. -1 is none.
	Spec(ctx context.Context, known int64) (*member.Spec, error)
	// WriteSpec writes a revision that comes after the expected one, and wraps
	// agent.ErrRefused when somebody else was faster. RestoreSpec brings one back,
	// unless there is the same or a higher one.
	WriteSpec(ctx context.Context, spec member.Spec, expected uint64) error
	RestoreSpec(ctx context.Context, spec member.Spec) error
}

// Revisions keeps the revision of the cluster's spec that this server runs by.
type Revisions interface {
	// Running is the one that this run began with, and what hinders one that was kept;
	// revision 0 is the server's own cluster file.
	Running() (member.Spec, error)
	// Check says why this server could not run by a spec.
	Check(text string) error
	// Keep makes a revision durable, so that the next start runs by it, and says
	// whether that is anything else than what runs.
	Keep(spec member.Spec) (differs bool, err error)
}

// Kubernetes runs kubeadm in its units and reads what it left behind.
type Kubernetes interface {
	// EnsureAuthorities makes the cluster's CAs, or reads those made before, and
	// returns the hash that joiners pin. A set whose hash is void is replaced.
	EnsureAuthorities(void []string) (caHash string, err error)
	// NodeCA is the hash of the CA in /etc/kubernetes, "" where there is none: the
	// cluster that a node here was made for.
	NodeCA() string
	// StandDown stops kubeadm and the kubelet. Containers run on until a reboot.
	StandDown(ctx context.Context) error
	Authorities() ([]byte, error)                        // certificates and keys, for another control plane
	AdoptAuthorities(bundle []byte, pinned string) error // those of the cluster
	CA() ([]byte, error)                                 // PEM of the cluster CA's certificate
	// Init runs kubeadm init, or what is left of it; it returns when the API
	// server answers and this node is registered.
	Init(ctx context.Context, n plan.Node) error
	Join(ctx context.Context, n plan.Node, j plan.Join) error
	// JoinUnderway says whether kubeadm join runs now, begun by an agent before this one.
	JoinUnderway(ctx context.Context) (bool, error)
	// Promoted says whether the etcd of this node votes; until then no other
	// control plane can join.
	Promoted(ctx context.Context, node string) (bool, error)
	// EtcdMembers asks each member for its health too; RemoveEtcdMember and DeleteNode
	// of one that is gone do nothing.
	EtcdMembers(ctx context.Context) ([]plan.EtcdMember, error)
	RemoveEtcdMember(ctx context.Context, id uint64) error
	// EtcdHas says whether etcd has a member of that name or at that address, as its
	// majority knows.
	EtcdHas(ctx context.Context, node string, address netip.Addr) (bool, error)
	DeleteNode(ctx context.Context, name string) error
	// Cordon keeps new pods from a node. Pods are those on it; Evict asks one to go,
	// and its error says what keeps it.
	Cordon(ctx context.Context, node string) error
	Pods(ctx context.Context, node string) ([]plan.Pod, error)
	Evict(ctx context.Context, p plan.Pod) error
	// EndKubeVIP ends the pod that announces in the speaker's place, if there is one.
	EndKubeVIP(ctx context.Context) error
	// Reset runs kubeadm reset over what there is of a node: its etcd must have left.
	Reset(ctx context.Context) error
	// Initialised and Joined say whether it has been done on this disk.
	Initialised() bool
	Joined() bool
	// Resume starts what a reboot left stopped: containerd and kubelet.
	Resume(ctx context.Context) error
	Healthy(ctx context.Context) error // the API server of this server
	// SetStaticPod gives the kubelet of this server a pod, or, without content, takes
	// it away.
	SetStaticPod(manifest string, content []byte) error
	BootstrapToken(ctx context.Context) (string, error)
	NodeState(ctx context.Context, name string) (plan.NodeState, error)
}

// Authority is the Kubernetes API of this control plane, as the authority over the
// directory: which generation of it stands, and what a new one is made from.
type Authority interface {
	Lease(ctx context.Context) (l plan.Lease, found bool, err error)
	// WriteLease creates a Lease without version, and replaces one that still has
	// its version; written is false when another was faster.
	WriteLease(ctx context.Context, l plan.Lease) (written bool, err error)
	Mirrored(ctx context.Context) ([]member.Record, error)
	// Mirror adds and changes records, and takes those of the instances gone away.
	Mirror(ctx context.Context, records []member.Record, gone ...string) error
	// ConfigMap reads one of kube-system; WriteConfigMap replaces one that still has
	// its version, or makes one without, and returns no version when another was faster.
	ConfigMap(ctx context.Context, name string) (data map[string]string, version string, err error)
	WriteConfigMap(ctx context.Context, name string, data map[string]string, version string) (next string, err error)
}

// Addons applies the add-ons of the cluster file.
type Addons interface {
	// Run returns when they are applied, or are not for this server to apply; first is
	// the control plane that ran kubeadm init. report hears how far each is, and what
	// went wrong.
	Run(ctx context.Context, self Self, first bool, report func(list []member.AddonStatus, problem error)) error
}

// Host prepares the machine: sysctls, containerd, kubelet, artefacts.
type Host interface {
	Prepare(ctx context.Context, report func(member.Preparation)) error
}

// Network puts addresses on lo and routes in the table, and heals them.
type Network interface {
	Apply(ctx context.Context, n plan.Network) error
	Set(n plan.Network) // what Run keeps
	Run(ctx context.Context) error
	Addresses() ([]netip.Prefix, error) // Elastic IPs of ours on lo now
	// RPFilterWarning is a sentence when the kernel, as it is set, drops what comes
	// for an Elastic IP to the link of the private address, else "".
	RPFilterWarning(private netip.Addr) (string, error)
	// RemoveAddress deletes an Elastic IP and destroys the sockets bound to it.
	RemoveAddress(ctx context.Context, p netip.Prefix) error
}

// Firewall keeps strangers from the ports of Kubernetes and muster.
type Firewall interface {
	Set(f plan.Firewall)
	// Run keeps what was set until ctx ends; report hears how it stands whenever that
	// changes.
	Run(ctx context.Context, report func(member.FirewallStatus)) error
}

// Speaker is the BGP speaker, a unit of its own.
type Speaker interface {
	Start(ctx context.Context, a plan.Announcement) error
	Stop(ctx context.Context) error
	// Withhold orders the speaker to withdraw a prefix, or lets it announce again.
	Withhold(ctx context.Context, p netip.Prefix, withheld bool) error
	Peers(ctx context.Context) ([]member.PeerStatus, error)
}

// Health watches the API server of this server: each value is its health from
// then on.
type Health interface {
	Watch(ctx context.Context, url, caFile string) <-chan bool
}

// Clock says whether this server's clock may be trusted for certificates.
type Clock interface {
	Synchronised() (bool, error)
}

// StateStore makes the state of the election durable.
type StateStore interface {
	Save(s election.State) error
}
