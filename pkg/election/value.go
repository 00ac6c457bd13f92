package election

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/device"
)

// Leader is the value of a LEADER slot: who shall build the first control
// plane, and the hash of the cluster CA that it made beforehand, which every
// joiner pins.
type Leader struct {
	HW          string     `json:"hw"`
	Inst        string     `json:"inst"`
	Name        string     `json:"name"` // Kubernetes node name
	Address     netip.Addr `json:"address"`
	CAHash      string     `json:"caHash"`      // sha256:… of the cluster CA's public key, as kubeadm's
	AgentCAHash string     `json:"agentCAHash"` // sha256:… of the agent CA's public key
}

// Kind tells the values of the slots apart.
type Kind string

// Kinds of values. Slot 2e holds Lead, slot 2e+1 holds Go or Abdicate.
const (
	Lead     Kind = "LEADER"
	Go       Kind = "GO"
	Abdicate Kind = "ABDICATE"
)

// Value is what a slot decides. The zero Value is none. Values compare with ==.
type Value struct {
	Kind   Kind   `json:"kind"`
	Leader Leader `json:"leader,omitzero"` // with Lead only
	// Supersedes is the hardware that held the GO of the slot before and that an
	// operator confirmed to be dead; with a Lead after GO only.
	Supersedes string `json:"supersedes,omitempty"`
}

// fits says whether a value may stand in a slot.
func (v Value) fits(slot int) error {
	switch {
	case slot%2 == 0 && v.Kind != Lead:
		return fmt.Errorf("slot %d of the fence holds %q, expected %s", slot, v.Kind, Lead)
	case slot%2 == 1 && v.Kind != Go && v.Kind != Abdicate:
		return fmt.Errorf("slot %d of the fence holds %q, expected %s or %s", slot, v.Kind, Go, Abdicate)
	case v.Kind != Lead && (v.Leader != (Leader{}) || v.Supersedes != ""):
		return fmt.Errorf("slot %d of the fence: %s carries a leader, expected none", slot, v.Kind)
	case len(v.Supersedes) > maxField || v.Supersedes != "" && v.Supersedes == v.Leader.HW:
		return fmt.Errorf("slot %d of the fence: hardware %.40q supersedes itself", slot, v.Supersedes)
	case v.Kind == Lead:
		return v.Leader.check()
	}
	return nil
}

func (l Leader) check() error {
	for _, f := range []struct{ name, value string }{
		{"hw", l.HW}, {"inst", l.Inst}, {"name", l.Name}, {"caHash", l.CAHash}, {"agentCAHash", l.AgentCAHash},
	} {
		if f.value == "" || len(f.value) > maxField {
			return fmt.Errorf("leader's %s is %d bytes long, expected 1 to %d", f.name, len(f.value), maxField)
		}
	}
	if !l.Address.IsValid() || l.Address.IsUnspecified() {
		return fmt.Errorf("leader %s has the address %q, expected an IP address", l.Name, l.Address)
	}
	return nil
}

// Ballot orders the attempts on one slot; the zero Ballot is none. No two
// attempts ever share one, whatever happens to a disk: a round is written before
// it is used, and where a disk was put back from a copy, which forgets rounds,
// the run of the agent is another.
type Ballot struct {
	Round uint64 `json:"round"`
	Inst  string `json:"inst"`
	Run   string `json:"run"` // Start.Run of the proposer
}

// Less orders ballots by round, then by instance, then by run.
func (b Ballot) Less(o Ballot) bool {
	return cmp.Or(cmp.Compare(b.Round, o.Round), cmp.Compare(b.Inst, o.Inst), cmp.Compare(b.Run, o.Run)) < 0
}

// Slot is an elector's memory of one decision. When Decided is set the rest but
// Voted is dropped: every question about the slot is answered with the decision.
type Slot struct {
	Promised Ballot `json:"promised,omitzero"` // nothing below is accepted any more
	Accepted Ballot `json:"accepted,omitzero"` // ballot of Value
	Value    Value  `json:"value,omitzero"`
	Decided  Value  `json:"decided,omitzero"`
	// Voted says that this instance accepted the decided value before it heard of
	// the decision. A server that lost its disk has not, however much it learns.
	Voted bool `json:"voted,omitempty"`
}

// Sealed says that the first control plane runs, and with which CA.
type Sealed struct {
	Epoch    uint64 `json:"epoch"`
	CAHash   string `json:"caHash"`
	Endpoint string `json:"endpoint"` // host:port of the API server
	// Closed says that a second etcd member votes: from then on etcd is the
	// authority, and no decree supersedes this one.
	Closed bool `json:"closed,omitempty"`
}

// same says whether two servers speak of one cluster.
func (s Sealed) same(o Sealed) bool { return s.Epoch == o.Epoch && s.CAHash == o.CAHash }

// Hardware is what a server's identity was made of. HW is the chosen identity;
// the rest tells a late network card from a cloned disk.
type Hardware struct {
	HW   string   `json:"hw"`             // 32 hex digits
	UUID string   `json:"uuid,omitempty"` // DMI product UUID, as read
	MACs []string `json:"macs,omitempty"` // permanent addresses of the network cards
}

// Same says whether a state that was written on the hardware h belongs to the
// hardware now.
func (h Hardware) Same(now Hardware) bool {
	facts := func(h Hardware) device.Hardware { return device.Hardware{UUID: h.UUID, MACs: h.MACs} }
	return device.SameHardware(h.HW, facts(h), now.HW, facts(now))
}

// State is what an elector keeps on disk. It is a value: no Slot that was
// handed out is ever written again.
type State struct {
	Seq      uint64   `json:"seq"` // counts writes; 0 was never written
	SpecID   string   `json:"specID"`
	Config   string   `json:"config"` // Config.Hash
	N        int      `json:"n"`      // of that config, to be said when it differs
	Hardware Hardware `json:"hardware"`
	Inst     string   `json:"inst"`  // 32 hex digits: one life of one disk
	Round    uint64   `json:"round"` // of the newest ballot made here
	Slots    []Slot   `json:"slots,omitempty"`
	GoMarker bool     `json:"goMarker,omitempty"` // this instance was decided to run kubeadm init
	Lowered  bool     `json:"lowered,omitempty"`  // an operator lowered the quorum to a majority
	Sealed   Sealed   `json:"sealed,omitzero"`
}

// Decided returns the decided values from slot 0 on, without a gap.
func (s State) Decided() []Value {
	n := s.known()
	out := make([]Value, n)
	for i := range out {
		out[i] = s.Slots[i].Decided
	}
	return out
}

// known is the length of the decided prefix.
func (s State) known() int {
	for i := range s.Slots {
		if s.Slots[i].Decided.Kind == "" {
			return i
		}
	}
	return len(s.Slots)
}

// superseded is the hardware that held GO before this slot, sorted: whatever is
// decided there replaces it, so it has no vote in it.
func (s State) superseded(slot int) []string {
	var out []string
	for i := 1; i < min(slot, len(s.Slots)); i += 2 {
		if s.Slots[i].Decided.Kind == Go {
			out = with(out, s.Slots[i-1].Decided.Leader.HW)
		}
	}
	return out
}

// Superseded says whether this server held a GO that another decree replaced:
// what it built is void.
func (s State) Superseded() bool {
	return slices.Contains(s.superseded(s.known()-1), s.Hardware.HW)
}

// VoidCAs are the hashes of the CAs of superseded leaders: nothing that they
// signed belongs to the cluster.
func (s State) VoidCAs() []string {
	var out []string
	for i := 1; i < s.known()-1; i += 2 {
		if s.Slots[i].Decided.Kind == Go {
			out = with(out, s.Slots[i-1].Decided.Leader.CAHash)
		}
	}
	return out
}

// Leader returns the leader of the newest epoch that has one, and the epoch.
// After ABDICATE there is none until the next epoch decides.
func (s State) Leader() (l Leader, epoch uint64, ok bool) {
	n := s.known()
	if n == 0 || s.Slots[n-1].Decided.Kind == Abdicate {
		return Leader{}, uint64(n / 2), false
	}
	at := (n - 1) / 2
	return s.Slots[2*at].Decided.Leader, uint64(at), true
}

// Gone says whether GO is decided in the newest epoch.
func (s State) Gone() bool {
	n := s.known()
	return n > 0 && s.Slots[n-1].Decided.Kind == Go
}

// challenged says that something was promised after GO: its holder may be
// superseded already.
func (s State) challenged() bool { return s.Gone() && len(s.Slots) > s.known() }

// everGone says whether GO was decided in any epoch.
func (s State) everGone() bool {
	return slices.ContainsFunc(s.Slots, func(x Slot) bool { return x.Decided.Kind == Go })
}

// voidWith are the CAs that are void once this leader is superseded.
func (s State) voidWith(l Leader) []string { return with(s.VoidCAs(), l.CAHash) }

// HoldsGo says whether this very instance was decided to run kubeadm init, with
// the marker on disk. It is the one right that the fence gives before sealed.
func (s State) HoldsGo() bool {
	l, _, ok := s.Leader()
	return ok && s.Gone() && s.GoMarker && l.Inst == s.Inst && l.HW == s.Hardware.HW
}

// IsSealed says whether the first control plane is known to run.
func (s State) IsSealed() bool { return s.Sealed != Sealed{} }
