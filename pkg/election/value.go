package election

import (
	"cmp"
	"fmt"
	"net/netip"

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
}

// fits says whether a value may stand in a slot.
func (v Value) fits(slot int) error {
	switch {
	case slot%2 == 0 && v.Kind != Lead:
		return fmt.Errorf("slot %d of the fence holds %q, expected %s", slot, v.Kind, Lead)
	case slot%2 == 1 && v.Kind != Go && v.Kind != Abdicate:
		return fmt.Errorf("slot %d of the fence holds %q, expected %s or %s", slot, v.Kind, Go, Abdicate)
	case v.Kind != Lead && v.Leader != (Leader{}):
		return fmt.Errorf("slot %d of the fence: %s carries a leader, expected none", slot, v.Kind)
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

// Ballot orders the attempts on one slot; the zero Ballot is none.
type Ballot struct {
	Round uint64 `json:"round"`
	Inst  string `json:"inst"`
}

// Less orders ballots by round, then by instance.
func (b Ballot) Less(o Ballot) bool {
	if c := cmp.Compare(b.Round, o.Round); c != 0 {
		return c < 0
	}
	return b.Inst < o.Inst
}

// Slot is an elector's memory of one decision. When Decided is set the rest is
// dropped: every question about the slot is answered with the decision.
type Slot struct {
	Promised Ballot `json:"promised,omitzero"` // nothing below is accepted any more
	Accepted Ballot `json:"accepted,omitzero"` // ballot of Value
	Value    Value  `json:"value,omitzero"`
	Decided  Value  `json:"decided,omitzero"`
}

// Sealed says that the first control plane runs, and with which CA.
type Sealed struct {
	Epoch    uint64 `json:"epoch"`
	CAHash   string `json:"caHash"`
	Endpoint string `json:"endpoint"` // host:port of the API server
}

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
	for i, slot := range s.Slots {
		if slot.Decided == (Value{}) {
			return i
		}
	}
	return len(s.Slots)
}

// open is the slot that may be decided next. There is none after GO: only an
// operator's act may open one there.
func (s State) open() (slot int, ok bool) {
	n := s.known()
	if n > 0 && s.Slots[n-1].Decided.Kind == Go {
		return 0, false
	}
	return n, true
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

// HoldsGo says whether this very instance was decided to run kubeadm init, with
// the marker on disk. It is the one right that the fence gives before sealed.
func (s State) HoldsGo() bool {
	l, _, ok := s.Leader()
	return ok && s.Gone() && s.GoMarker && l.Inst == s.Inst && l.HW == s.Hardware.HW
}

// IsSealed says whether the first control plane is known to run.
func (s State) IsSealed() bool { return s.Sealed != Sealed{} }
