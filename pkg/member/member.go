// Package member holds the directory's rows and the status of a server as plain
// values, so that the directory, the agents and the status table share them.
//
// Floor 0.
package member

import (
	"net/netip"
	"time"
)

// Role is what a server is in the cluster.
type Role string

// Roles. A server without a row in the directory has none yet.
const (
	NoRole       Role = ""
	ControlPlane Role = "control-plane"
	Worker       Role = "worker"
)

// Phase is how far a server is, in the order of the boot.
type Phase string

// Phases.
const (
	Identity     Phase = "identity"     // settling hardware identity, instance and keys
	Metadata     Phase = "metadata"     // reading the platform's metadata
	RollCall     Phase = "roll-call"    // gossip: seeing enough servers
	Deciding     Phase = "deciding"     // votes for LEADER and GO
	Enrolling    Phase = "enrolling"    // getting a certificate of the agent CA and a role
	Preparing    Phase = "preparing"    // host preparation is what is still missing
	Initialising Phase = "initialising" // kubeadm init
	Waiting      Phase = "waiting"      // for the first control plane, or for the turn to join
	Joining      Phase = "joining"      // kubeadm join
	Ready        Phase = "ready"
	Leaving      Phase = "leaving" // an operator ordered it to leave; it goes on by itself
	Left         Phase = "left"    // it is no member any more, and stays out until bootstrap reset
	Stopped      Phase = "stopped" // configuration error: a restart cannot help
)

// Member is one row of the directory.
type Member struct {
	Inst    string     `json:"inst"` // instance: 32 hex digits
	HW      string     `json:"hw"`   // hardware identity: 32 hex digits
	Name    string     `json:"name"` // Kubernetes node name
	Address netip.Addr `json:"address"`
	Role    Role       `json:"role"`
	Phase   Phase      `json:"phase"`
	Detail  string     `json:"detail,omitempty"` // what the server last said of this phase, a sentence
	Epoch   uint64     `json:"epoch"`            // of the decree under which the row was made
}

// Revoked is a member that was removed: its certificate counts no more. The
// fields are those of its former row.
type Revoked struct {
	Inst    string     `json:"inst"`
	HW      string     `json:"hw"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// First is set when it held GO; its place among the control planes is not kept
	// any longer.
	First bool   `json:"first"`
	Epoch uint64 `json:"epoch"`
}

// Removal is what the removal of a member did, or would do.
type Removal struct {
	Member Revoked `json:"member"`
	Role   Role    `json:"role,omitempty"` // empty when its row is gone already
	// Node is the role of its node in the directory's database: voter, stand-by or
	// spare; empty when it has none. Voters counts the voters without it.
	Node   string `json:"node,omitempty"`
	Voters int    `json:"voters"`
}

// Status is what one server says of itself.
type Status struct {
	Member
	Since   time.Time `json:"since,omitzero"`    // when this phase began, server's clock
	Time    time.Time `json:"time,omitzero"`     // the server's clock when it answered
	Waiting string    `json:"waiting,omitempty"` // what it waits for, why, and what the operator may do
	Problem string    `json:"problem,omitempty"` // the last error, a sentence
	// Preparation is how far this server's own preparation is.
	Preparation Preparation `json:"preparation,omitzero"`
	// NodeCA is the CA of the Kubernetes node on this server, if there is one.
	NodeCA string `json:"nodeCA,omitempty"`
	// Cordoned says that the node takes no new pods, by somebody's order. muster never
	// takes that back.
	Cordoned bool `json:"cordoned,omitempty"`
	// Decree is what this server knows to be decided.
	Decree Decree `json:"decree"`
	// Network is what this server has on lo and what its speaker says, for people.
	Network NetworkStatus `json:"network"`
	// Spec is which revision of the cluster's spec this server runs by.
	Spec SpecStatus `json:"spec,omitzero"`
	// Spared is how far this server is on its way out, where the spec asks for fewer
	// control planes than there are; a sentence.
	Spared string `json:"spared,omitempty"`
	// Addons are those of this server's cluster file; on control planes only.
	Addons []AddonStatus `json:"addons,omitempty"`
	// Agent is the program that tells this.
	Agent AgentStatus `json:"agent,omitzero"`
}

// AgentStatus is the agent's own program, and its exchange for the pinned one.
type AgentStatus struct {
	SHA256 string `json:"sha256"`           // of the program that runs
	Pinned string `json:"pinned,omitempty"` // what is to run, when that is another one
	State  string `json:"state,omitempty"`
	Detail string `json:"detail,omitempty"` // why it is not exchanged yet, a sentence
}

// States of an exchange. Without one there is none to be made.
const (
	AgentWaits    = "waits"    // for its turn
	AgentNext     = "next"     // it begins in a moment
	AgentFetches  = "fetches"  // the new program
	AgentTrial    = "trial"    // the new one runs and has to be ready in time
	AgentReturned = "returned" // the new one did not do; the former one runs
	AgentHeld     = "held"     // it did not do on another server
)

// Preparation is how far host preparation is.
type Preparation struct {
	Step      string   `json:"step,omitempty"` // what it does now; empty when it is done
	Artefacts Fetching `json:"artefacts,omitzero"`
}

// Fetching is how far the artefacts of the lock file are. Bytes and Size are of
// those that were missing when it began.
type Fetching struct {
	Done  int   `json:"done"`
	Items int   `json:"items"`
	Bytes int64 `json:"bytes"`
	Size  int64 `json:"size"`
	// Faults are places that failed, each with its last reason. They stay when
	// another place had everything.
	Faults []string `json:"faults,omitempty"`
}

// AddonStatus is one add-on and how far it is.
type AddonStatus struct {
	Name   string `json:"name"`
	State  string `json:"state"`            // applied or pending
	Detail string `json:"detail,omitempty"` // what it waits for
}

// States of an add-on.
const (
	AddonApplied = "applied" // all it waits for is so
	AddonPending = "pending"
)

// Decree is the fence as a person sees it.
type Decree struct {
	State      string `json:"state"` // forming | leader | go | sealed
	Epoch      uint64 `json:"epoch"`
	Leader     string `json:"leader,omitempty"` // inst
	LeaderName string `json:"leaderName,omitempty"`
	CAHash     string `json:"caHash,omitempty"` // sha256:… of the cluster CA's public key
	Votes      int    `json:"votes"`            // distinct hardware visible that may vote
	Quorum     int    `json:"quorum"`
	Expect     int    `json:"expect"`
}

// NetworkStatus says what is announced from here, and who is let in.
type NetworkStatus struct {
	ElasticIPs []netip.Prefix `json:"elasticIPs,omitempty"` // on lo now
	Peers      []PeerStatus   `json:"peers,omitempty"`
	Firewall   FirewallStatus `json:"firewall,omitzero"`
}

// FirewallStatus says how the table of the packet filter stands.
type FirewallStatus struct {
	State  string `json:"state"`            // on, off or failed
	Reason string `json:"reason,omitempty"` // why it is off or failed, a sentence
}

// States of the firewall.
const (
	FirewallOn     = "on"
	FirewallOff    = "off"
	FirewallFailed = "failed" // it shall be on or off, and is not as it shall be
)

// PeerStatus is one BGP session.
type PeerStatus struct {
	Address netip.Addr `json:"address"`
	State   string     `json:"state"`            // established, active, …
	Since   time.Time  `json:"since,omitzero"`   // it is up, or down, by that server's clock
	Reason  string     `json:"reason,omitempty"` // why it is down, a sentence
}
