package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// EtcdMember is a member of the cluster's etcd, as another one sees it.
type EtcdMember struct {
	ID      uint64
	Name    string     // the node's; empty until it has started once
	Address netip.Addr // where the others reach it
	Learner bool       // has no vote yet
	Healthy bool       // answers that it is
}

// ErrEtcdQuorum says that etcd would have no majority without a member.
var ErrEtcdQuorum = errors.New("etcd keeps it")

// OtherLearners are the learners that are not of the node whose turn it is to join.
// etcd takes one learner at a time, so each is of a server that lost its turn, and
// would hold the place for ever. It has no vote that could be lost with it.
func OtherLearners(members []EtcdMember, name string, address netip.Addr) []EtcdMember {
	var out []EtcdMember
	for _, x := range members {
		if x.Learner && x.Name != name && x.Address != address {
			out = append(out, x)
		}
	}
	return out
}

// LeaveEtcd finds the member of a node by name, or by address where it never
// started, and says with how many voters etcd goes on without it. found is false
// when there is none. An error wraps ErrEtcdQuorum.
func LeaveEtcd(members []EtcdMember, name string, address netip.Addr) (m EtcdMember, voters int, found bool, err error) {
	healthy := 0
	var ill []string
	for _, x := range members {
		if x.Name == name || x.Name == "" && x.Address == address {
			m, found = x, true
			continue
		}
		if x.Learner {
			continue
		}
		voters++
		if x.Healthy {
			healthy++
		} else {
			ill = append(ill, x.Name)
		}
	}
	switch need := voters/2 + 1; {
	case !found || m.Learner:
		return m, voters, found, nil
	case voters == 0:
		err = fmt.Errorf("%w: %s is the only member that votes", ErrEtcdQuorum, name)
	case healthy < need:
		err = fmt.Errorf("%w: without %s it has %d voters, of which %d are healthy and %d are needed; start first: %s", ErrEtcdQuorum, name, voters, healthy, need, strings.Join(ill, ", "))
	}
	return m, voters, found, err
}
