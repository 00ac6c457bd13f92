// Package agent holds what agents say to each other, as plain values: who
// calls, what is asked, what is answered, and the two refusals.
//
// Floor 1. docs/formats.md describes the wire format that pkg/rpc makes of it.
package agent

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mustermetal/muster/pkg/member"
)

// Caller is who calls: instance and hardware as its certificate says, and the
// address that the connection came from.
type Caller struct {
	Inst, HW string
	Address  netip.Addr
}

// Peer is a server to call; Inst may be empty where any server of the CA will do.
type Peer struct {
	Inst    string
	Address netip.Addr
}

// EnrolRequest asks for a certificate of the agent CA.
type EnrolRequest struct {
	CSR []byte `json:"csr"` // PKCS#10, DER
}

// Enrolment is what a server gets from a control plane when it enrols.
type Enrolment struct {
	Leaf []byte `json:"leaf"` // PEM
	CA   []byte `json:"ca"`   // PEM of the agent CA; the decree pins its hash
}

// RoleRequest asks for a row in the directory.
type RoleRequest struct {
	Name     string     `json:"name"`
	Address  netip.Addr `json:"address"`
	Eligible bool       `json:"eligible"`
	// Joining says that the server booted with joining user-data: it is none of
	// those expected, and none too many either.
	Joining bool `json:"joining,omitempty"`
}

// RoleReply is the role that the directory's holder gave.
type RoleReply struct {
	Role member.Role `json:"role"`
	// Generation of the directory that gave it: a control plane joins that one.
	Generation uint64 `json:"generation"`
}

// PhaseReport tells the directory how far a server is.
type PhaseReport struct {
	Phase  member.Phase `json:"phase"`
	Detail string       `json:"detail,omitempty"`
}

// AuthoritiesRequest asks for the cluster's CA keys, sealed to PublicKey.
type AuthoritiesRequest struct {
	PublicKey []byte `json:"publicKey"`
}

// AuthoritiesReply holds the sealed bundle.
type AuthoritiesReply struct {
	Sealed []byte `json:"sealed"`
}

// JoinTurn is the state of the join lock as one caller sees it.
type JoinTurn struct {
	Granted bool   `json:"granted"`
	Holder  string `json:"holder,omitempty"` // node name or inst of the server whose turn it is
	Token   int64  `json:"token,omitempty"`
}

// JoinMaterial is what kubeadm join needs.
type JoinMaterial struct {
	Token string `json:"token"` // bootstrap token, 15 minutes
	CA    []byte `json:"ca"`    // PEM of the cluster CA; the decree pins its hash
	// EtcdGone says to a control plane that a majority of etcd knows no member of
	// its name or at its address: etcd's data there, if any, are of one that was taken out.
	EtcdGone bool `json:"etcdGone,omitempty"`
}

// LeaveStep is what a control plane does for a caller that leaves the cluster.
type LeaveStep string

// Steps of a leave, in order. Each may be asked for again.
const (
	LeaveWeigh LeaveStep = "weigh" // say what would go and what that risks, or refuse
	LeaveDrain LeaveStep = "drain" // cordon the caller's node and have its pods go elsewhere
	LeaveEtcd  LeaveStep = "etcd"  // take the caller's etcd out
	LeaveEnd   LeaveStep = "end"   // delete its node, its row and its certificate
)

// LeaveRequest asks for one step of the caller's own leave.
type LeaveRequest struct {
	Step LeaveStep `json:"step"`
}

// LeaveReply says what came of a step.
type LeaveReply struct {
	Told []string `json:"told,omitempty"` // weigh: sentences
	Pods []string `json:"pods,omitempty"` // drain: who is still there, and why
}

// Standing is what a control plane knows of an instance that asks.
type Standing struct {
	// Removed is set when it was a member and is none any more.
	Removed bool `json:"removed"`
}

// SpecRequest asks for the cluster's spec.
type SpecRequest struct {
	// Known is the revision that the caller runs by: of the same one it gets no text.
	Known uint64 `json:"known"`
	// Sum is the sha256 of that revision's text: another text of that number is sent.
	Sum string `json:"sum,omitempty"`
}

// ErrNotReady says that the server asked cannot answer yet (it is no control
// plane, or its directory or API server is still starting): ask again, or ask
// another.
var ErrNotReady = errors.New("not ready")

// ErrSurplus says that the cluster has all the servers that it expects: one more
// waits for an approval, and asks again meanwhile.
var ErrSurplus = fmt.Errorf("one server more than expected: %w", ErrNotReady)

// ErrRefused says that the server asked will not do it for this caller.
var ErrRefused = errors.New("refused")
