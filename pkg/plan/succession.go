package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// ReplaceAfter is how long a former life is out of sight before its place goes to the
// next one by itself, where the cluster file does not say. It is longer than a server
// with much memory takes to reboot.
const ReplaceAfter = 10 * time.Minute

// Succession is what a control plane knows when a server comes under the name of a
// member that has the same hardware: it was installed anew, or says so.
type Succession struct {
	By    string        // as in the cluster file
	After time.Duration // 0: ReplaceAfter
	Old   member.Member
	// At and From are where the new one says that it is, and where its call came from.
	At, From netip.Addr
	InSight  bool          // the former life, by gossip
	Silent   time.Duration // it was out of sight so long, as seen from here
	Etcd     []EtcdMember  // as it is now
}

// Wait says what keeps the new one from the place; "" is nothing.
func (s Succession) Wait() string {
	after := cmp.Or(s.After, ReplaceAfter)
	byHand := "bootstrap replace " + s.Old.Name + " on a control plane gives it that place"
	switch {
	case s.InSight:
		return fmt.Sprintf("the former life (instance %s) is in sight at %s: two servers have one hardware id, or this one was cloned; switch one off", s.Old.Inst, s.Old.Address)
	case s.By == cluster.ReplaceOperator:
		return byHand
	case s.At != s.Old.Address || s.From != s.Old.Address:
		return fmt.Sprintf("its former address was %s, now it is %s and calls from %s, so it is not replaced by itself; %s", s.Old.Address, s.At, s.From, byHand)
	case s.Silent < after:
		return fmt.Sprintf("it gets that place by itself when the former life (instance %s) has been out of sight for %s, now %s; at once: %s", s.Old.Inst, after, s.Silent.Truncate(time.Second), byHand)
	}
	var ill []string
	for _, m := range s.Etcd {
		own := m.Name == s.Old.Name || m.Name == "" && m.Address == s.Old.Address
		switch {
		case own && m.Healthy:
			return fmt.Sprintf("the etcd of its former life answers at %s: it is not gone", m.Address)
		case !own && (!m.Healthy || m.Learner):
			ill = append(ill, cmp.Or(m.Name, m.Address.String()))
		}
	}
	if len(ill) > 0 {
		return "it gets that place by itself when all other members of etcd are healthy; not yet: " + strings.Join(ill, ", ")
	}
	return ""
}
