package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// world is a set of servers in memory, each running the real flow and the real
// election over fakes that keep state. It outlives the agents: what a server
// wrote stays on its disk through a power loss.
type world struct {
	t       *testing.T
	cluster cluster.Cluster

	mu            sync.Mutex
	servers       map[string]*testServer // by inst
	inits         []string               // the ledger: who ran kubeadm init
	joins         []string
	rows          []member.Member
	bound         map[string]string // inst -> key
	approved      map[string]bool   // hardware
	holder        string            // of the turn to join
	token         int64
	releaseFails  bool
	clockUnsynced bool
	book          book
	applying      []string // who is there to apply the add-ons
	addonsSlow    bool
	graves        graves
	shelf         *shelf      // the agents' programs, where they count
	learner       *testServer // of etcd, which takes one
	removed       string      // instance that was removed from the directory
}

// testServer is one server with its disk.
type testServer struct {
	world   *world
	heard   chan struct{} // a change of gossip, until it is read
	inst    string
	name    string
	address netip.Addr
	device  device.Device

	skew        atomic.Int64 // of its clock, in nanoseconds
	state       election.State
	journal     map[string]string // step -> start or done
	epoch       uint64            // of the journal
	nodeCA      string            // of the node on the disk
	down        atomic.Bool       // what ran was stopped because it is void
	stands      bool
	standsEpoch uint64
	ca          []byte // its own, or the cluster's
	agentCA     string // that signed its leaf
	expect      int    // of this server's own user-data, if it is another
	joinCA      string // of joining user-data
	ownCAs      int    // times that it made or read CAs to lead with
	origin      string // what is said of this instance's beginning
	traces      string // of a cluster on its disk
	buried      string // why nothing on its disk may start

	directoryDown atomic.Bool // as down, of the directory
	outside       outside
	kept          member.Spec // revision of the spec on its disk
	starts        int         // of its agent

	running    bool
	currentRun atomic.Pointer[Agent]
	server     *Server
	stop       context.CancelFunc
	done       chan error
	healthy    bool
	promoted   bool // its etcd votes
	etcdData   bool // on its disk
	outlived   bool // kubeadm join runs on from a former agent
	// behind is a voter whose vote its etcd has not heard of; knowsLearner: it calls it a learner.
	behind       string
	knowsLearner bool
	health       chan bool
	addresses    []netip.Prefix
	joinedWith   plan.Join
	signs        bool
	enrolled     bool
	key          string // of its certificate requests
	flags        Flags
	twin         netip.Addr // where a copy of this disk answers
	// initFails makes that many kubeadm inits fail; initBlocks holds one.
	initFails  int
	joinFails  int // each loses the turn to another
	joinNever  bool
	initBlocks chan struct{}
	// These many attempts fail before one goes well.
	settleFails, connectFails, prepareFails int
	resumed                                 int // times
	installFails                            int
	saveFails, directoryFails               bool
	notReady                                bool
	firewall                                member.FirewallStatus
	guarded                                 plan.Firewall     // as Firewall was told
	filter                                  string            // the sentence about the reverse path filter
	directoryPeers                          []netip.Addr      // as Directory.Start was last told
	generation                              uint64            // that Directory.Start was last told
	pods                                    map[string]string // static ones, by manifest
}

func newWorld(t *testing.T, controlPlanes, workers int) *world {
	w := &world{t: t, servers: map[string]*testServer{}, bound: map[string]string{}, approved: map[string]bool{}, book: book{mirror: map[string]member.Record{}}}
	n := controlPlanes + workers
	w.cluster.Spec = cluster.Spec{
		ID:      "0123456789abcdef0123456789abcdef",
		Servers: cluster.Servers{Expect: n, ControlPlanes: controlPlanes, Quorum: cluster.QuorumSafe, Eligible: cluster.Eligible{Hostname: "cp*"}},
		Time:    cluster.TimePolicy{Require: cluster.TimeSync},
		Network: cluster.Network{ElasticIPs: []cluster.ElasticIP{{Address: netip.MustParsePrefix("203.0.113.10/32"), On: "control-planes"}},
			BGP: cluster.BGP{ControlPlane: cluster.SpeakerBuiltin}},
		Kubernetes: cluster.Kubernetes{Endpoint: cluster.Endpoint{Address: "203.0.113.10:6443"}},
	}
	for i := range n {
		name := fmt.Sprintf("cp%d", i+1)
		if i >= controlPlanes {
			name = fmt.Sprintf("w%d", i+1-controlPlanes)
		}
		w.add(name, i)
	}
	return w
}

func (w *world) add(name string, i int) {
	address := netip.AddrFrom4([4]byte{10, 0, 0, byte(2*i + 1)})
	s := &testServer{
		world: w, heard: make(chan struct{}, 1), inst: fmt.Sprintf("%032x", 100+i), name: name, address: address,
		journal: map[string]string{}, key: "key-of-" + name, ca: makeTestCA(),
		device: device.Device{ID: "dev-" + name, Hostname: name, Addresses: []device.Address{
			{Prefix: netip.PrefixFrom(address, 31), Gateway: netip.AddrFrom4([4]byte{10, 0, 0, byte(2 * i)})}}},
	}
	hw := fmt.Sprintf("%032x", 500+i)
	s.state, _, _ = election.Settle(nil, election.FromSpec(w.cluster.Spec), election.Hardware{HW: hw}, s.inst)
	w.servers[s.inst] = s
}

func (w *world) named(name string) *testServer {
	for _, s := range w.servers {
		if s.name == name {
			return s
		}
	}
	w.t.Fatalf("no server %s", name)
	return nil
}

// boot powers a server on.
func (w *world) boot(name string) {
	s := w.named(name)
	spec := w.cluster
	if s.expect > 0 {
		spec.Spec.Servers.Expect = s.expect
	}
	spec.Spec.Join.CA = s.joinCA
	ctx, stop := context.WithCancel(context.Background())
	s.done, s.stop, s.health = make(chan error, 1), stop, make(chan bool, 16)
	w.start(s, s.follows(spec))
	go func() {
		err := s.agent().Run(ctx, watchStatus)
		for (errors.Is(err, errSuperseded) || errors.Is(err, errParted) || errors.Is(err, errRevised)) && ctx.Err() == nil { // as systemd does
			if errors.Is(err, errParted) {
				w.mu.Lock()
				s.running, s.flags = false, Flags{}
				w.mu.Unlock()
				w.gossip()
			}
			w.start(s, s.follows(spec))
			err = s.agent().Run(ctx, watchStatus)
		}
		s.done <- err
	}()
}

// agent is the run of this server's agent, nil before the first.
func (s *testServer) agent() *Agent { return s.currentRun.Load() }

// start begins a run of a server's agent.
func (w *world) start(s *testServer, spec cluster.Cluster) {
	w.mu.Lock()
	s.starts++
	w.mu.Unlock()
	a := New(Machine{
		Cluster: spec, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: s.now,
		Metadata: s, Network: s, Firewall: fakeFirewall{s}, Host: s, Journal: s, Kubernetes: s, Authority: fakeAuthority{s}, Addons: fakeAddons{s}, Directory: fakeDirectory{s}, Speaker: fakeSpeaker{s}, Health: s, Clock: s, Outward: &s.outside, Revisions: fakeRevisions{s, spec},
		Settle: func(d device.Device) (Settled, error) {
			if s.settleFails > 0 {
				s.settleFails--
				return Settled{}, errors.New("the disk says no")
			}
			node, err := plan.NodeFor(w.cluster, d, netip.Addr{})
			eligible, _ := plan.Eligible(w.cluster.Spec.Servers.Eligible, d)
			return Settled{Self: Self{Inst: s.inst, HW: s.state.Hardware.HW, Node: node, Eligible: eligible},
				State: s.state, Origin: election.Kept, Boot: "boot", Text: s.origin, Evidence: s.traces, Buried: s.buried}, err
		},
		Connect: func(_ context.Context, _ Self, server *Server) (Fabric, error) {
			if s.connectFails > 0 {
				s.connectFails--
				return Fabric{}, errors.New("the address is not on this server yet")
			}
			w.mu.Lock()
			s.server, s.running = server, true
			s.flags.Joining = spec.Spec.Join.CA != ""
			w.mu.Unlock()
			w.gossip()
			return Fabric{Gossip: s, Search: noSearch{}, Calls: fakeCalls{w, s}, Trust: s, State: s,
				GoStands: func(epoch uint64) error {
					w.mu.Lock()
					defer w.mu.Unlock()
					s.stands, s.standsEpoch = true, epoch
					return nil
				},
				Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}, nil
		},
	})
	if w.shelf != nil {
		a.Program = fakeProgram{s}
	}
	s.currentRun.Store(a)
}

// watchStatus asks a server for the status of all from its first moment on, as
// a person does.
func watchStatus(ctx context.Context, s *Server) error {
	for sleep(ctx, 500*time.Millisecond) == nil {
		s.Servers(ctx)
		if err := s.Alive(); err != nil {
			return err
		}
	}
	return nil
}

// powerOff stops a server between two instructions of its own.
func (w *world) powerOff(name string) {
	s := w.named(name)
	w.mu.Lock()
	s.running, s.healthy, s.stands, s.addresses, s.flags = false, false, false, nil, Flags{}
	w.mu.Unlock()
	w.gossip()
	s.stop()
	if err := <-s.done; err != nil {
		w.t.Errorf("%s ended with %v", name, err)
	}
	s.stop = nil
}

// gossip wakes whoever watches the roll call.
func (w *world) gossip() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		select {
		case s.heard <- struct{}{}:
		default: // one is waiting to be read
		}
	}
}

func (w *world) ledger() (inits, joins []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.inits), slices.Clone(w.joins)
}

// Metadata, Host, Clock, Journal, StateStore.

func (s *testServer) Device(context.Context, func(error)) (device.Device, error) {
	d := s.device
	d.EventsURL = "http://10.0.0.1/events"
	return d, nil
}
func (s *testServer) Prepare(ctx context.Context, report func(member.Preparation)) error {
	report(member.Preparation{Step: "containerd"})
	if s.prepareFails > 0 {
		s.prepareFails--
		return errors.New("swap is on")
	}
	return sleep(ctx, time.Second)
}

// now is this server's clock, which may be wrong and may jump.
func (s *testServer) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

func (s *testServer) Synchronised() (bool, error) { return !s.world.clockUnsynced, nil }
func (s *testServer) Save(st election.State) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if s.saveFails {
		return errors.New("the disk is full")
	}
	s.state = st
	return nil
}
func (s *testServer) Done(step string) bool {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.journal[step] == "done"
}
func (s *testServer) Enter(epoch uint64) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if s.epoch != epoch {
		s.epoch = epoch
		clear(s.journal)
	}
	return nil
}
func (s *testServer) Finish(step string) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.journal[step] = "done"
	return nil
}

// outside hears what a server tells listeners outside.
type outside struct {
	mu    sync.Mutex
	heard []plan.Notice
	aims  []string
}

func (o *outside) Tell(n plan.Notice) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = append(o.heard, n)
}

func (o *outside) Aim(at string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.aims = append(o.aims, at)
}

func (o *outside) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// noSearch is for servers that gossip brings together.
type noSearch struct{}

func (noSearch) Report() member.Discovery { return member.Discovery{} }

// Gossip.

func (s *testServer) Peers() []Peer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	var out []Peer
	for _, p := range s.world.servers {
		if p.running {
			f := p.flags
			f.Eligible = p.name[0] == 'c'
			out = append(out, Peer{Inst: p.inst, HW: p.state.Hardware.HW, Address: p.address, Switch: p.device.Switch, Flags: f})
		}
		if p == s && s.twin.IsValid() {
			out = append(out, Peer{Inst: s.inst, HW: s.state.Hardware.HW, Address: s.twin})
		}
	}
	return out
}

func (s *testServer) Changes() <-chan struct{} { return s.heard }

func (s *testServer) SetFlags(f Flags) {
	s.world.mu.Lock()
	s.flags = f
	s.world.mu.Unlock()
	s.world.gossip()
}

// Trust.

func (s *testServer) EnsureAgentCA() (string, error)       { return "agent-ca-of-" + s.name, nil }
func (s *testServer) AgentCA() ([]byte, error)             { return []byte("agent-ca"), nil }
func (s *testServer) AdoptAgentCA([]byte, string) error    { s.signs = true; return nil }
func (s *testServer) CanSign() bool                        { return s.signs }
func (s *testServer) CSR() ([]byte, error)                 { return []byte(s.inst + "/" + s.key), nil }
func (s *testServer) Enrolled() bool                       { return s.enrolled }
func (s *testServer) Receiver() ([]byte, error)            { return []byte(s.inst), nil }
func (s *testServer) Seal(_, plain []byte) ([]byte, error) { return plain, nil }
func (s *testServer) Open(sealed []byte) ([]byte, error)   { return sealed, nil }
func (s *testServer) Lead(pinned string) error {
	if pinned != "agent-ca-of-"+s.name {
		return errors.New("another server's agent CA")
	}
	s.signs = true
	return nil
}
func (s *testServer) KeyOf(csr []byte) (string, error) {
	_, key, ok := strings.Cut(string(csr), "/")
	if !ok {
		return "", errors.New("no certificate request")
	}
	return key, nil
}
func (s *testServer) Sign(from agent.Caller, csr []byte) (agent.Enrolment, error) {
	if !strings.HasPrefix(string(csr), from.Inst+"/") {
		return agent.Enrolment{}, errors.New("request of another instance")
	}
	return agent.Enrolment{Leaf: csr, CA: []byte("agent-ca")}, nil
}
func (s *testServer) Install(e agent.Enrolment, pinned string) error {
	s.agentCA = pinned
	if s.installFails > 0 {
		s.installFails--
		return errors.New("the answer was lost")
	}
	s.enrolled = string(e.Leaf) == s.inst+"/"+s.key
	return nil
}

// Kubernetes.

func (s *testServer) EnsureAuthorities(void []string) (string, error) {
	s.ownCAs++
	if slices.Contains(void, s.caHash()) {
		s.ca = makeTestCA()
	}
	return s.caHash(), nil
}
func (s *testServer) Keep(pinned string) error {
	if s.agentCA != "" && s.agentCA != pinned {
		s.enrolled, s.signs = false, false
	}
	return nil
}
func (s *testServer) SetStaticPod(manifest string, content []byte) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if s.pods == nil {
		s.pods = map[string]string{}
	}
	delete(s.pods, manifest)
	if content != nil {
		s.pods[manifest] = string(content)
	}
	return nil
}
func (s *testServer) NodeCA() string {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.nodeCA
}
func (s *testServer) StandDown(context.Context) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.down.Store(true)
	return nil
}
func (s *testServer) caHash() string {
	hash, err := plan.CAHash(s.ca)
	if err != nil {
		s.world.t.Fatal(err)
	}
	return hash
}
func (s *testServer) Authorities() ([]byte, error) { return s.ca, nil }
func (s *testServer) AdoptAuthorities(bundle []byte, pinned string) error {
	if err := plan.PinnedCA(bundle, pinned); err != nil {
		return err
	}
	s.ca = bundle
	return nil
}
func (s *testServer) CA() ([]byte, error) { return s.ca, nil }
func (s *testServer) Init(ctx context.Context, _ plan.Node) error {
	s.world.mu.Lock()
	state, stands := s.state, s.stands
	s.world.mu.Unlock()
	if err := CheckInit(Traces{State: &state, SpecID: s.world.cluster.Spec.ID, CAHash: s.caHash(), Stands: stands, StandsEpoch: s.standsEpoch, InitStarted: true}); err != nil {
		s.world.t.Errorf("kubeadm init on %s: %v", s.name, err)
		return err
	}
	s.world.mu.Lock()
	s.nodeCA = s.caHash()
	s.world.mu.Unlock()
	if s.initFails > 0 {
		s.initFails--
		return errors.New("kubeadm init failed")
	}
	if s.initBlocks != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.initBlocks:
		}
	}
	if err := sleep(ctx, 10*time.Second); err != nil {
		return err
	}
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.inits = append(s.world.inits, s.name)
	s.journal["init"] = "done"
	s.promoted = true
	s.setHealthy(true)
	return nil
}

func (s *testServer) setHealthy(ok bool) {
	s.healthy = ok
	s.health <- ok
}

func (s *testServer) Join(ctx context.Context, _ plan.Node, j plan.Join) error {
	if onLo, _ := s.Addresses(); len(onLo) > 0 {
		s.world.t.Errorf("%s joins with Elastic IPs on lo: it would dial itself", s.name)
	}
	if s.joinNever {
		return Permanent(errors.New("a node that muster did not make"))
	}
	if j.ControlPlane {
		if err := s.mayJoin(); err != nil {
			return err
		}
		if err := s.joinEtcd(ctx, j); err != nil {
			return err
		}
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.joins = append(s.world.joins, s.name)
	s.journal["join"] = "done"
	s.joinedWith = j
	s.nodeCA = s.caHash()
	if !j.ControlPlane {
		s.nodeCA, _ = plan.CAHash(j.CA)
	}
	if j.ControlPlane {
		s.setHealthy(true)
	}
	return nil
}

func (s *testServer) JoinUnderway(context.Context) (bool, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.outlived, nil
}

// mayJoin looks whose turn it is, and takes it away when the join shall fail.
func (s *testServer) mayJoin() error {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holder != s.inst {
		w.t.Errorf("%s joins though it is the turn of %q", s.name, w.holder)
	}
	if s.joinFails == 0 {
		return nil
	}
	s.joinFails--
	w.holder, w.token = "another", w.token+1
	return errors.New("kubeadm join failed")
}

// joinEtcd is the part of a join in which etcd has a learner and takes no second.
func (s *testServer) joinEtcd(ctx context.Context, j plan.Join) error {
	if err := s.learn(j); err != nil {
		return err
	}
	err := sleep(ctx, 3*time.Second)
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if err == nil && s.world.learner != s && !s.promoted {
		return errors.New("the member was taken out while it learned")
	}
	if err == nil && s.world.learner == s {
		s.promoted, s.world.learner = true, nil
	}
	return err
}

func (s *testServer) Promoted(_ context.Context, node string) (bool, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if node != s.name {
		return s.world.named(node).promoted, nil
	}
	if !s.promoted {
		return false, errors.New("connection refused")
	}
	return true, nil
}

func (s *testServer) Initialised() bool { return s.Done("init") }
func (s *testServer) Joined() bool      { return s.Done("join") }
func (s *testServer) Resume(context.Context) error {
	s.resumed++
	if s.name[0] == 'c' {
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		s.setHealthy(true)
	}
	return nil
}
func (s *testServer) Healthy(context.Context) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if !s.healthy {
		return errors.New("connection refused")
	}
	return nil
}
func (s *testServer) BootstrapToken(context.Context) (string, error) {
	return "abcdef.0123456789abcdef", nil
}
func (s *testServer) NodeState(_ context.Context, name string) (plan.NodeState, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return plan.NodeState{Ready: !s.notReady, Cordoned: slices.Contains(s.world.graves.departed, "cordon "+name)}, nil
}

// Health and network.

func (s *testServer) Watch(ctx context.Context, _, _ string) <-chan bool {
	out := make(chan bool)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case ok := <-s.health:
				select {
				case out <- ok:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
func (s *testServer) Apply(_ context.Context, n plan.Network) error { s.Set(n); return nil }
func (s *testServer) Set(n plan.Network) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.addresses = n.Addresses
}
func (s *testServer) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (s *testServer) Addresses() ([]netip.Prefix, error) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return slices.Clone(s.addresses), nil
}
func (s *testServer) RPFilterWarning(private netip.Addr) (string, error) {
	if private != s.address {
		return "", fmt.Errorf("%s is not on this server", private)
	}
	return s.filter, nil
}
func (s *testServer) RemoveAddress(context.Context, netip.Prefix) error { return nil }

// fakeFirewall stands as the test says, on where nothing is said.
type fakeFirewall struct{ s *testServer }

func (f fakeFirewall) Set(order plan.Firewall) {
	f.s.world.mu.Lock()
	defer f.s.world.mu.Unlock()
	f.s.guarded = order
}
func (f fakeFirewall) Run(ctx context.Context, report func(member.FirewallStatus)) error {
	report(f.s.firewall)
	<-ctx.Done()
	return ctx.Err()
}

type fakeSpeaker struct{ s *testServer }

// Start asks the unit's check, as systemd does.
func (f fakeSpeaker) Start(context.Context, plan.Announcement) error {
	f.s.world.mu.Lock()
	defer f.s.world.mu.Unlock()
	return CheckStart(Traces{State: &f.s.state, Stands: f.s.stands, StandsEpoch: f.s.standsEpoch})
}

func (f fakeSpeaker) Stop(context.Context) error                         { return nil }
func (f fakeSpeaker) Withhold(context.Context, netip.Prefix, bool) error { return nil }
func (f fakeSpeaker) Peers(context.Context) ([]member.PeerStatus, error) { return nil, nil }

// fakeCalls reach the other servers' real handlers.
type fakeCalls struct {
	w    *world
	self *testServer
}

func (c fakeCalls) to(ctx context.Context, p agent.Peer) (*Server, agent.Caller, error) {
	if err := sleep(ctx, time.Millisecond); err != nil {
		return nil, agent.Caller{}, err
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for _, s := range c.w.servers {
		if s.address == p.Address && s.running && c.self.running {
			return s.server, agent.Caller{Inst: c.self.inst, HW: c.self.state.Hardware.HW, Address: c.self.address}, nil
		}
	}
	return nil, agent.Caller{}, fmt.Errorf("no answer from %s", p.Address)
}

func (c fakeCalls) Fence(ctx context.Context, p agent.Peer, m []byte) ([][]byte, agent.Caller, error) {
	server, from, err := c.to(ctx, p)
	if err != nil {
		return nil, agent.Caller{}, err
	}
	replies, err := server.Fence(ctx, from, m)
	peer := &server.agent.self
	return replies, agent.Caller{Inst: peer.Inst, HW: peer.HW}, err
}
func (c fakeCalls) Enrol(ctx context.Context, p agent.Peer, r agent.EnrolRequest) (agent.Enrolment, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.Enrolment, error) { return s.Enrol(ctx, from, r) })
}
func (c fakeCalls) Status(ctx context.Context, p agent.Peer) (member.Status, error) {
	return reach(ctx, c, p, func(s *Server, _ agent.Caller) (member.Status, error) { return s.Status(ctx), nil })
}
func (c fakeCalls) Members(ctx context.Context, p agent.Peer) ([]member.Member, error) {
	return reach(ctx, c, p, func(s *Server, _ agent.Caller) ([]member.Member, error) { return s.Members(ctx) })
}
func (c fakeCalls) ClaimRole(ctx context.Context, p agent.Peer, r agent.RoleRequest) (agent.RoleReply, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.RoleReply, error) { return s.ClaimRole(ctx, from, r) })
}
func (c fakeCalls) ReportPhase(ctx context.Context, p agent.Peer, r agent.PhaseReport) error {
	_, err := reach(ctx, c, p, func(s *Server, from agent.Caller) (int, error) { return 0, s.ReportPhase(ctx, from, r) })
	return err
}
func (c fakeCalls) Authorities(ctx context.Context, p agent.Peer, r agent.AuthoritiesRequest) (agent.AuthoritiesReply, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.AuthoritiesReply, error) { return s.Authorities(ctx, from, r) })
}
func (c fakeCalls) AcquireJoin(ctx context.Context, p agent.Peer) (agent.JoinTurn, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.JoinTurn, error) { return s.AcquireJoin(ctx, from) })
}
func (c fakeCalls) RenewJoin(ctx context.Context, p agent.Peer, t agent.JoinTurn) error {
	_, err := reach(ctx, c, p, func(s *Server, from agent.Caller) (int, error) { return 0, s.RenewJoin(ctx, from, t) })
	return err
}
func (c fakeCalls) ReleaseJoin(ctx context.Context, p agent.Peer, t agent.JoinTurn) error {
	_, err := reach(ctx, c, p, func(s *Server, from agent.Caller) (int, error) { return 0, s.ReleaseJoin(ctx, from, t) })
	return err
}
func (c fakeCalls) JoinMaterial(ctx context.Context, p agent.Peer) (agent.JoinMaterial, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.JoinMaterial, error) { return s.JoinMaterial(ctx, from) })
}

func (c fakeCalls) Leave(ctx context.Context, p agent.Peer, r agent.LeaveRequest) (agent.LeaveReply, error) {
	c.w.mu.Lock()
	refused, lost := c.w.removed == c.self.inst, c.w.graves.answersLost[r.Step]
	c.w.mu.Unlock()
	if refused {
		return agent.LeaveReply{}, errors.New("remote error: tls: bad certificate")
	}
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.LeaveReply, error) {
		reply, err := s.Leave(ctx, from, r)
		if lost && err == nil {
			err = errors.New("the connection was cut")
		}
		return reply, err
	})
}
func (c fakeCalls) Standing(ctx context.Context, p agent.Peer) (agent.Standing, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (agent.Standing, error) { return s.Standing(ctx, from) })
}

func (c fakeCalls) Spec(ctx context.Context, p agent.Peer, r agent.SpecRequest) (member.Spec, error) {
	return reach(ctx, c, p, func(s *Server, from agent.Caller) (member.Spec, error) { return s.Spec(ctx, from, r) })
}

func reach[A any](ctx context.Context, c fakeCalls, p agent.Peer, do func(*Server, agent.Caller) (A, error)) (A, error) {
	server, from, err := c.to(ctx, p)
	if err != nil {
		var none A
		return none, err
	}
	return do(server, from)
}
