// Package bootstrap is the flow: how a server becomes a member of its cluster
// and stays one. Run reads top to bottom in the order of the boot. The flow
// knows the outside only through the small interfaces in seams.go.
//
// Floor 2.
package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Machine is everything the flow uses of the server it runs on.
type Machine struct {
	Cluster cluster.Cluster
	Log     *slog.Logger
	Notify  func(status string) // systemd's STATUS=
	Now     func() time.Time

	Metadata   Metadata
	Network    Network
	Firewall   Firewall
	Host       Host
	Journal    Journal
	Kubernetes Kubernetes
	Authority  Authority
	Addons     Addons
	Directory  Directory
	Speaker    Speaker
	Health     Health
	Clock      Clock
	Outward    Outward // nil tells nobody
	Program    Program // nil is never exchanged
	Revisions  Revisions

	// Settle finds out which hardware this is and which instance, from the state
	// on disk; Connect opens what needs to know.
	Settle  func(d device.Device) (Settled, error)
	Connect func(ctx context.Context, self Self, server *Server) (Fabric, error)
}

// Settled is this server's identity with the state it takes part with.
type Settled struct {
	Self
	State  election.State
	Origin election.Origin
	Text   string // for a person, when there is something to say
	// Evidence names traces of a cluster on the disk.
	Evidence string
	// Buried says why nothing on this disk may start, until a reset; a sentence.
	Buried string
	Boot   string // the kernel's boot id
	Stands bool   // GO was confirmed in this boot already
}

// Self is who this server is to its peers.
type Self struct {
	Inst, HW string
	Node     plan.Node
	Device   device.Device
	Eligible bool
}

// Fabric is what connects this server with the others.
type Fabric struct {
	Gossip Gossip
	Search Search
	Calls  Calls
	Trust  Trust
	State  StateStore
	// GoStands leaves the mark that the units' checks look for: this GO was
	// confirmed in this boot.
	GoStands func(epoch uint64) error
	Run      func(ctx context.Context) error // serves both ports until ctx ends
}

// Agent is one run of the flow.
type Agent struct {
	Machine
	board *board

	self   Self
	device device.Device
	fabric Fabric
	fence  *fence

	reached milestone     // as the journal was last told; of the fence alone
	compare chan struct{} // holds one when others vote or lead: time to look at the clocks again

	absences absences // who is out of sight, and since when

	surplus surplus // who asks here and waits for an approval
	spread  spread  // who asks here and gives way to others

	flagsMu sync.Mutex
	flags   Flags // as gossip was last told

	unanswered atomic.Pointer[error]  // why this server's directory does not answer
	generation atomic.Uint64          // of the directory, the highest that this server heard of
	running    atomic.Uint64          // the one that it runs
	lost       atomic.Pointer[string] // what is wrong with the directory, for status

	clockAsked time.Time // when all but the clock was ready; of watchFitness alone

	released   chan struct{}  // closed when an operator orders this server to leave
	release    func()         // closes it
	endDuty    func()         // ends what runs for a member
	announcers sync.WaitGroup // hold Elastic IPs and their announcer

	prepared  chan struct{}          // closed when host preparation is done
	hindrance atomic.Pointer[error]  // what hinders it now
	origin    atomic.Pointer[string] // what is to be said of this instance's beginning
	spec      specWatch              // which revision of the spec is run by, and which is known
	connected atomic.Bool            // self, device, fabric and fence are there for Server to read
	directory atomic.Bool            // this server's directory answers
}

// New prepares a run.
func New(m Machine) *Agent {
	a := &Agent{Machine: m, board: newBoard(m.Log, m.Notify, m.Now), prepared: make(chan struct{}), compare: make(chan struct{}, 1), released: make(chan struct{})}
	a.release = sync.OnceFunc(func() { close(a.released) })
	if a.Outward == nil {
		a.Outward = silent{}
	}
	a.board.entered = a.tellOutside
	return a
}

// Run brings this server into its cluster and keeps it there until ctx ends. It
// may be run again at any time: each step looks first and changes only what
// differs. serveLocal answers on the local socket, from the first moment on, so
// that status can tell whatever goes wrong.
func (a *Agent) Run(ctx context.Context, serveLocal func(context.Context, *Server) error) error {
	work, ctx := errgroup.WithContext(ctx)
	server := &Server{agent: a}
	work.Go(func() error { return serveLocal(ctx, server) })
	work.Go(func() error { return a.Outward.Run(ctx) })
	work.Go(func() error {
		err := a.form(ctx, work, server)
		var stop permanentError
		if errors.As(err, &stop) && ctx.Err() == nil {
			// Keep serving: a person must be able to ask why.
			a.board.stop(stop.error)
			<-ctx.Done()
			return nil
		}
		return err
	})
	err := work.Wait()
	a.announcers.Wait()
	if err != nil && ctx.Err() == nil || err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// form is the boot, in order.
func (a *Agent) form(ctx context.Context, work *errgroup.Group, server *Server) error {
	if err := a.readDevice(ctx); err != nil {
		return err
	}
	settled, err := a.settleSelf(ctx)
	if err != nil {
		return err
	}
	if settled.Buried != "" {
		return a.lie(ctx, settled.Buried)
	}
	if a.Journal.Done(StepLeft) {
		return a.rest(ctx)
	}
	void := a.voidNode(settled.State)
	if err := a.startNetwork(ctx, void); err != nil {
		return err
	}
	work.Go(func() error { return a.Network.Run(ctx) })
	work.Go(func() error { return a.guardPorts(ctx) })
	work.Go(func() error { return a.prepareHost(ctx) })

	a.board.enter(member.RollCall)
	err = a.until(ctx, "the ports of the agents and the gossip", func(ctx context.Context) (err error) {
		a.fabric, err = a.Connect(ctx, a.self, server)
		return err
	})
	if err != nil {
		return err
	}
	a.startFence(ctx, work, settled)
	a.connected.Store(true)
	work.Go(func() error { return a.fabric.Run(ctx) })
	work.Go(func() error { return a.watchPeers(ctx) })
	work.Go(func() error { return a.keepAgent(ctx, server) })
	work.Go(func() error { return a.leaveWhenSpared(ctx, server) })
	if !a.joining() {
		work.Go(func() error { return a.watchFitness(ctx) })
	}

	decree, err := a.decide(ctx, void)
	if err != nil {
		return err
	}
	if void {
		return Permanent(a.voidText(decree))
	}
	if err := a.Journal.Enter(decree.Epoch); err != nil {
		return err
	}
	work.Go(func() error { return a.watchEpoch(ctx, decree.Epoch) })
	if err := a.standFirst(ctx, decree); err != nil {
		return err
	}
	return a.belong(ctx, work, decree)
}

// belong is steps 7 to 10, and the way out again. What runs for a member goes on when
// another step stopped for good, and ends when this server leaves.
func (a *Agent) belong(ctx context.Context, work *errgroup.Group, d election.Decree) error {
	duty, endDuty := context.WithCancel(ctx)
	a.endDuty = endDuty
	role, err := a.takeRole(duty, work, d)
	if err != nil {
		return err
	}
	if err := a.serveNode(duty, work, d, role); err != nil || ctx.Err() != nil {
		return err
	}
	return a.part(ctx, d, role)
}

// serveNode is steps 8 to 10. It returns without an error at the end of ctx, and when
// an operator orders this server to leave.
func (a *Agent) serveNode(ctx context.Context, work *errgroup.Group, d election.Decree, role member.Role) error {
	if a.Journal.Done(StepLeaving) {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	work.Go(func() error {
		select {
		case <-ctx.Done():
		case <-a.released:
		}
		stop()
		return nil
	})
	err := a.becomeNode(ctx, work, d, role)
	if err == nil {
		work.Go(func() error { return a.followSpec(ctx, d, role) })
		err = a.stay(ctx)
	}
	if a.Journal.Done(StepLeaving) {
		return nil
	}
	return err
}

// becomeNode is steps 7 and 8: this server makes the cluster, or joins it.
func (a *Agent) becomeNode(ctx context.Context, work *errgroup.Group, d election.Decree, role member.Role) error {
	if !d.Mine && role != member.ControlPlane {
		return a.joinWorker(ctx, d)
	}
	a.announcers.Go(func() { a.holdElasticIPs(ctx) })
	var err error
	if d.Mine {
		work.Go(func() error { return a.rememberSealed(ctx) })
		err = a.lead(ctx, d)
	} else {
		err = a.joinControlPlane(ctx, work, d)
	}
	if err == nil {
		work.Go(func() error { return a.applyAddons(ctx, d.Mine) })
	}
	return err
}

// applyAddons is step 9, beside the joins: a node is not Ready before its network is
// there, which is an add-on.
func (a *Agent) applyAddons(ctx context.Context, first bool) error {
	var was error
	err := a.Addons.Run(ctx, a.self, first, func(list []member.AddonStatus, problem error) {
		a.board.change(func(s *member.Status) { s.Addons = list })
		if was != nil && problem == nil {
			a.board.solved(was)
		} else if problem != nil {
			a.board.problem(problem)
		}
		was = problem
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// joining says that this server booted with joining user-data: it has no vote,
// and comes to a cluster that has formed.
func (a *Agent) joining() bool { return a.Cluster.Spec.Join.CA != "" }

// decide is step 6: it returns when GO is decided, whoever holds it. A joining
// server waits until the cluster that it pins is sealed, unless its node is void
// and stays down.
func (a *Agent) decide(ctx context.Context, void bool) (election.Decree, error) {
	return a.awaitDecree(ctx, func(d election.Decree) bool {
		if d.Phase == election.PhaseSealed || d.Phase == election.PhaseGo && (void || !a.joining()) {
			return true
		}
		if d.Votes >= d.Quorum && d.Quorum > 0 && !a.joining() && a.board.read().Phase == member.RollCall {
			a.board.enter(member.Deciding)
		}
		return false
	})
}

// stay is step 10: formed. The loops go on; this one watches that the node is
// Ready, which is all that is left to wait for. A node that was is asked a few
// times before it is called anything else: an API server that is slow for a
// moment is no news.
func (a *Agent) stay(ctx context.Context) error {
	const settled, watching, patience = 30 * time.Second, time.Second, 3
	for missed := 0; ; missed++ {
		node, err := a.Kubernetes.NodeState(ctx, a.self.Node.Name)
		if err == nil && node.Cordoned != a.board.read().Cordoned {
			a.board.change(func(s *member.Status) { s.Cordoned = node.Cordoned })
		}
		pause := watching
		switch was := a.board.read().Phase == member.Ready; {
		case node.Ready:
			a.board.enter(member.Ready)
			missed, pause = 0, settled
		case was && missed < patience:
		default:
			if was {
				a.board.enter(member.Waiting)
			}
			a.board.wait("Kubernetes to call this node Ready; kubectl describe node " + a.self.Node.Name + " says why it does not")
			if err != nil {
				a.board.problem(err)
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return nil
		}
	}
}
