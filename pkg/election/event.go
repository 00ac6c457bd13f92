package election

import (
	"net/netip"
	"time"
)

// Event is something that happened to a server.
type Event interface{ event() }

// Start comes first, once, after New.
type Start struct {
	Boot string // the kernel's boot id: confirmations count within one boot only
	Run  string // random, new for every run of the agent: no two runs share a ballot
	// Stands says that this boot already confirmed GO (the agent was restarted,
	// the server was not).
	Stands bool
}

// View is the set of servers that gossip shows alive now, without this one.
type View struct{ Peers []Peer }

// Peer is one server as gossip shows it: a hint, never a vote.
type Peer struct {
	Inst     string
	HW       string
	Name     string
	Address  netip.Addr
	Eligible bool // may become a control plane
	Joining  bool // booted with joining user-data: neither votes nor counts
}

// Fitness says what this server is ready for.
type Fitness struct {
	LeaderFit bool     // identity, addresses and the pre-made CAs are there
	GoFit     bool     // also artefacts, disk and clock
	Reasons   []string // why not, for a person
}

// Candidate is the LEADER value that this server would propose for itself.
type Candidate struct{ Leader Leader }

// Sender is who sent a message, as its TLS certificate says.
type Sender struct{ Inst, HW string }

// Received is a message from an authenticated server.
type Received struct {
	From    Sender
	Message Message
}

// Timer says that a timer fired. Firing early, late, twice or never costs time,
// never safety.
type Timer struct{ Kind TimerKind }

// InitDone says that the GO holder's control plane was verified to run.
type InitDone struct{ Endpoint string }

// Closed says that a second etcd member of the sealed cluster votes.
type Closed struct{}

// Evidence says that the server carries traces of a cluster (etcd data,
// kubelet.conf, static manifests). Without a decree in the state it never votes.
type Evidence struct{ What string }

func (Start) event()     {}
func (View) event()      {}
func (Fitness) event()   {}
func (Candidate) event() {}
func (Received) event()  {}
func (Timer) event()     {}
func (InitDone) event()  {}
func (Closed) event()    {}
func (Evidence) event()  {}

// Effect is something the driver must do. Effects are carried out in order; a
// crash may come between any two. Nothing after a Persist may happen before it has
// succeeded: it is tried again, or the server starts again from what is on disk.
type Effect interface{ effect() }

// Persist writes the state and returns only when it survives power loss.
type Persist struct{ State State }

// Send delivers a message to an instance, or loses it. An answer to a Received
// message may go back over the connection on which that came.
type Send struct {
	To      string // inst
	Message Message
}

// SetTimer replaces the timer of a kind. After 0 stops it.
type SetTimer struct {
	Kind  TimerKind
	After time.Duration
}

// Changed says that the decree changed.
type Changed struct{ Decree Decree }

// Note is a sentence for status and the journal.
type Note struct{ Text string }

func (Persist) effect()  {}
func (Send) effect()     {}
func (SetTimer) effect() {}
func (Changed) effect()  {}
func (Note) effect()     {}

// TimerKind names a timer; there is at most one of each kind.
type TimerKind string

// Timers. They start attempts and never grant a right.
const (
	TimerPropose TimerKind = "propose" // the turn to propose, or the end of a backoff
	TimerResend  TimerKind = "resend"  // unanswered Prepare or Accept
	TimerSpread  TimerKind = "spread"  // decisions that some server has not acknowledged
	TimerAsk     TimerKind = "ask"     // asking what is decided
	TimerUnfit   TimerKind = "unfit"   // the leader was unfit for too long
	TimerSilence TimerKind = "silence" // the leader was not seen for too long
	TimerStand   TimerKind = "stand"   // asking whether GO stands after a reboot
)
