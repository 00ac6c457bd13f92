package election

// Phase is how far the fence is.
type Phase string

// Phases.
const (
	Forming Phase = "forming" // no leader
	Led     Phase = "leader"  // LEADER decided
	Gone    Phase = "go"      // GO decided
	Closed  Phase = "sealed"  // the first control plane is up
)

// Decree is what this server knows to be decided, and how the votes stand.
type Decree struct {
	Phase  Phase
	Epoch  uint64
	Leader Leader // zero while forming
	Mine   bool   // this instance is the leader
	// Stands says that GO is this server's own and was decided or confirmed
	// since this boot; with it, or with Sealed, kubeadm init, kubelet and the
	// announcer may start.
	Stands bool
	Sealed Sealed

	Votes   int      // distinct hardware here that may vote, this server among them
	Quorum  int      // votes needed
	Expect  int      // servers expected
	Present []string // names of those here, sorted
	Missing []string // names or hardware ids of those known and not here, sorted
}
