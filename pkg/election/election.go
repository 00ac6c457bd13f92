// Package election is the fence: the pure decision which one server, ever, may
// run kubeadm init. It is a small Paxos of its own among all founding servers,
// with votes that are on disk before they are answered and no clock that grants
// a right. docs/fence.md tells the protocol and its invariants.
//
// Core.Step takes an event and returns a new Core and effects in order. There
// is no goroutine, clock, randomness, disk or network in here, so that a checker
// can drive this very code through every schedule.
//
// Floor 1: it imports only pkg/cluster and pkg/device.
package election

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Config is what every elector must agree on before a vote means anything.
type Config struct {
	SpecID string
	N      int    // servers that may vote
	Q      int    // votes that decide
	Rule   string // cluster.QuorumSafe or cluster.QuorumMajority
	// Joining servers booted with joining user-data, which pins the CA of the
	// cluster in JoinCA: they never vote, propose or count.
	Joining bool
	JoinCA  string
	// Electors are hardware ids, sorted; when there are any, only they vote and
	// propose, and N is their count.
	Electors []string
}

// FromSpec reads the fence's configuration from a validated cluster file.
func FromSpec(s cluster.Spec) Config {
	c := Config{SpecID: s.ID, N: s.Servers.Expect, Rule: s.Servers.Quorum, Joining: s.Join.CA != "", JoinCA: s.Join.CA}
	if c.Rule == "" {
		c.Rule = cluster.QuorumSafe
	}
	for _, e := range s.Servers.Electors {
		c.Electors = append(c.Electors, strings.ToLower(e))
	}
	slices.Sort(c.Electors)
	c.Electors = slices.Compact(c.Electors)
	if len(c.Electors) > 0 {
		c.N = len(c.Electors)
	}
	c.Q = Quorum(c.N, c.Rule)
	return c
}

// Quorum is the number of votes that decide among n servers. The rule "safe"
// gives n-(n-1)/3, which tolerates (n-1)/3 servers that never boot and at least
// as many that lose their disk or were started too often; "majority" gives
// n/2+1, which tolerates none of the latter when n is odd. Two winners are
// possible only when wiped + extra servers exceed 2q-n-1.
func Quorum(n int, rule string) int {
	if rule == cluster.QuorumMajority {
		return n/2 + 1
	}
	return n - (n-1)/3
}

// Majority is floor(n/2)+1: the confirmations that a server needs which has no
// knowledge of its own, and that a GO needs after a reboot.
func Majority(n int) int { return n/2 + 1 }

// Tolerated is how many servers may lose their disk, or be one too many, before
// two winners are possible among n servers with quorums of q: two quorums share
// at least 2q-n servers, and one of those must remember. A negative number says
// that two quorums need not meet at all.
func Tolerated(n, q int) int { return 2*q - n - 1 }

// Hash identifies the configuration: SHA-256 over spec id, N, quorum and the
// sorted electors, in hex. It rides in every message and in the state.
func (c Config) Hash() string {
	h := sha256.New()
	fmt.Fprintf(h, "muster fence config v1\n%q\n%d\n%d\n", c.SpecID, c.N, c.Q)
	electors := slices.Clone(c.Electors)
	slices.Sort(electors)
	for _, e := range electors {
		fmt.Fprintf(h, "%q\n", e)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// votes says whether a hardware identity may vote and propose at all.
func (c Config) votes(hw string) bool {
	if len(c.Electors) == 0 {
		return true
	}
	_, found := slices.BinarySearch(c.Electors, hw)
	return found
}
