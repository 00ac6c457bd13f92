package election

import (
	"fmt"
	"slices"
	"strings"
)

// Phase is how far the fence is.
type Phase string

// Phases.
const (
	PhaseForming Phase = "forming" // no leader
	PhaseLeader  Phase = "leader"  // LEADER decided
	PhaseGo      Phase = "go"      // GO decided
	PhaseSealed  Phase = "sealed"  // the first control plane is up
)

// Decree is what this server knows to be decided, and how the votes stand.
type Decree struct {
	Phase  Phase
	Epoch  uint64
	Leader Leader // zero while forming, and where only sealed is known
	Mine   bool   // this instance is the leader
	// Stands says that GO is this server's own and was decided or confirmed
	// since this boot; with it, or with Sealed, kubeadm init, kubelet and the
	// announcer may start.
	Stands bool
	Sealed Sealed

	Lowered bool     // an operator lowered the quorum
	Votes   int      // distinct hardware here that may vote, this server among them
	Quorum  int      // votes needed
	Expect  int      // servers expected
	Present []string // names of the voters here, sorted
	Missing []string // names or hardware ids of those known and not here, sorted
}

// decreeKey is the part of a decree whose change is told.
type decreeKey struct {
	phase        Phase
	epoch        uint64
	leader       string
	mine, stands bool
	sealed       Sealed
}

// Phase says how far the fence is, from the state alone.
func (s State) Phase() Phase {
	_, _, led := s.Leader()
	switch {
	case s.IsSealed():
		return PhaseSealed
	case s.Gone():
		return PhaseGo
	case led:
		return PhaseLeader
	}
	return PhaseForming
}

func (c *Core) key() decreeKey {
	l, epoch, led := c.state.Leader()
	k := decreeKey{phase: c.state.Phase(), epoch: epoch, leader: l.Inst, mine: led && l.Inst == c.state.Inst, sealed: c.state.Sealed}
	if c.state.IsSealed() {
		k.epoch = c.state.Sealed.Epoch
	}
	k.stands = c.stand.ok && c.state.HoldsGo() && c.roll.twin == "" && c.conflict == ""
	return k
}

// Decree returns what is decided and how the votes stand.
func (c Core) Decree() Decree {
	k := c.key()
	l, _, _ := c.state.Leader()
	d := Decree{
		Phase: k.phase, Epoch: k.epoch, Leader: l, Mine: k.mine, Stands: k.stands, Sealed: k.sealed,
		Votes: len(c.roll.voters), Quorum: c.quorum(c.state.known() - 1), Expect: c.cfg.N, Lowered: c.state.Lowered,
	}
	for _, hw := range c.roll.voters {
		d.Present = append(d.Present, c.names([]string{hw}))
	}
	for _, hw := range c.absent() {
		d.Missing = append(d.Missing, c.names([]string{hw}))
	}
	slices.Sort(d.Present)
	slices.Sort(d.Missing)
	return d
}

// absent lists the hardware that was here before, or is an elector, and is not
// here now.
func (c *Core) absent() []string {
	var known []string
	if len(c.cfg.Electors) > 0 {
		known = c.cfg.Electors
	} else {
		for _, p := range c.roll.past {
			if !p.Joining {
				known = append(known, p.HW)
			}
		}
	}
	var out []string
	for _, hw := range known {
		if _, here := slices.BinarySearch(c.roll.hardware, hw); !here {
			out = append(out, hw)
		}
	}
	return out
}

// Explain says in one sentence what this server waits for, why, and what the
// operator may do. It is empty when there is nothing to wait for.
func (c Core) Explain() string {
	d := c.Decree()
	if c.act != (Supersede{}) {
		return c.explainAct()
	}
	if d.Phase == PhaseSealed {
		return ""
	}
	if text := c.explainBar(); text != "" {
		return text
	}
	switch d.Phase {
	case PhaseGo:
		return c.explainGo(d)
	case PhaseLeader:
		return c.explainLeader(d)
	}
	if d.Votes < d.Quorum {
		return "no leader yet: " + c.votes(d)
	}
	if len(c.roll.eligible) == 0 {
		return fmt.Sprintf("no leader yet: the %d votes needed are here (%s), but none of these servers may become a control plane; "+
			"boot one that spec.servers.eligible selects, or check its tag and hostname", d.Quorum, strings.Join(d.Present, ", "))
	}
	if c.self.Eligible && !c.fit.LeaderFit {
		return "no leader yet: enough servers are here; this one is not ready to lead: " + c.reasons()
	}
	return fmt.Sprintf("no leader yet: the %d votes needed are here; the vote for one of %s is under way", d.Quorum, c.names(c.roll.eligible))
}

// explainBar speaks when this server may not vote.
func (c Core) explainBar() string {
	b := c.barred()
	if b == barClaims {
		best, count := Sealed{}, 0
		for _, x := range c.claims {
			n := 0
			for _, y := range c.claims {
				if x.sealed.Epoch == y.sealed.Epoch && x.sealed.CAHash == y.sealed.CAHash {
					n++
				}
			}
			if n > count {
				best, count = x.sealed, n
			}
		}
		return fmt.Sprintf("a cluster with CA %s exists already; this server has no memory of it and believes it when %d servers confirm it, %d did so far; "+
			"boot more of the cluster's servers, or compare the hash with a control plane and run here: bootstrap approve --ca %s; "+
			"if that cluster is no more, switch off who speaks of it (%s), then: systemctl restart muster", best.CAHash, Majority(c.cfg.N), count, best.CAHash, c.hearsay())
	}
	if b == barJoining {
		text := fmt.Sprintf("this server joins the cluster with CA %s and waits for a server of it", c.cfg.JoinCA)
		if said := c.hearsay(); said != "" {
			text += "; those in sight are of another: " + said
		}
		return text + "; check that one is powered on, that this server reaches its gossip port, and spec.join.ca"
	}
	if b == barNoElector {
		if d := c.Decree(); d.Phase == PhaseForming && d.Votes < d.Quorum {
			return "this server is not among spec.servers.electors and waits for them: " + c.votes(d)
		}
		return ""
	}
	if cause := c.cause(); cause != "" {
		return cause
	}
	if b == mayVote || c.state.Gone() {
		return ""
	}
	return "this server does not vote: " + strings.Join(c.crowd(), "; ")
}

func (c Core) explainLeader(d Decree) string {
	if d.Mine {
		if !c.fit.GoFit {
			return "this server leads and is not ready for GO: " + c.reasons()
		}
		return "this server leads and asks for GO: " + c.votes(d)
	}
	if !c.roll.shows(d.Leader.Inst) {
		text := fmt.Sprintf("%s leads epoch %d, has not decided GO and does not answer; power it on again, or wait: after %s without it the others choose another",
			d.Leader.Name, d.Epoch, silenceDelay)
		if d.Votes < d.Quorum {
			text += ", if they are enough: " + c.votes(d)
		}
		return text
	}
	return fmt.Sprintf("%s leads epoch %d and prepares for GO; its own status says what it waits for", d.Leader.Name, d.Epoch)
}

func (c Core) explainGo(d Decree) string {
	switch {
	case d.Mine && !d.Stands && len(c.stand.nays) > 0:
		return fmt.Sprintf("this server was to build the first control plane before it rebooted, but an operator began to supersede it at %s: it stays down; "+
			"power it off, end that there (bootstrap status shows the command once this server is out of sight), then reinstall it", strings.Join(c.stand.nays, ", "))
	case d.Mine && !d.Stands:
		return fmt.Sprintf("this server was to build the first control plane before it rebooted; it goes on when %d of %d servers confirm that, %d did so far (itself included); "+
			"boot the others", Majority(d.Expect), d.Expect, 1+c.counted(c.stand.votes))
	case d.Mine:
		return "this server builds the first control plane"
	case !c.roll.shows(d.Leader.Inst):
		return fmt.Sprintf("%s was decided to build the first control plane and does not answer; no other server takes over by itself, "+
			"because it may still be running: power it on again; if it is gone for good, power it off and run on a server that may become a control plane (%s): "+
			"bootstrap supersede --epoch %d --confirm-dead %s", d.Leader.Name, c.successors(), d.Epoch, d.Leader.HW)
	}
	return fmt.Sprintf("%s builds the first control plane; there, journalctl -u kubeadm-init shows how far", d.Leader.Name)
}

// votes says how many votes are here and who is missing.
func (c Core) votes(d Decree) string {
	text := fmt.Sprintf("%d of %d votes needed, %d here", d.Quorum, d.Expect, d.Votes)
	missing := max(d.Expect-d.Votes, 0)
	switch unnamed := missing - len(d.Missing); {
	case missing == 0:
		return text + " (" + strings.Join(d.Present, ", ") + ")"
	case len(d.Missing) == 0:
		text += fmt.Sprintf(", missing: %d that never answered", missing)
	case unnamed <= 0:
		text += ", missing: " + strings.Join(d.Missing, ", ")
	default:
		text += fmt.Sprintf(", missing: %s and %d that never answered", strings.Join(d.Missing, ", "), unnamed)
	}
	text += fmt.Sprintf(" (here: %s); power them on, or check that they reach this server's gossip and enrolment ports", strings.Join(d.Present, ", "))
	if low := Majority(d.Expect); d.Quorum > low && d.Votes >= low {
		text += fmt.Sprintf("; if they never come: bootstrap quorum --majority lets %d decide", low)
	}
	return text
}

func (c Core) reasons() string {
	if len(c.fit.Reasons) == 0 {
		return "preparation is under way"
	}
	return strings.Join(c.fit.Reasons, "; ")
}
