package election

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// startOver is the remedy for a server whose disk remembers something that
// cannot be reconciled.
const startOver = "to give it to this cluster, reinstall it, under another hostname if it had a role there before"

// Problems are the sentences that an operator must see, sorted: servers too
// many, twice or counting differently, and why this one takes no part.
func (c Core) Problems() []string {
	var out []string
	if cause := c.cause(); cause != "" && !c.cfg.Joining && !(c.state.IsSealed() && c.state.Superseded()) {
		out = append(out, cause)
	}
	if c.act != (Supersede{}) {
		out = append(out, c.explainAct())
	}
	if text := c.alone(); text != "" {
		out = append(out, text)
	}
	if c.roll.twin != "" {
		out = append(out, c.roll.twin)
	}
	if !c.state.IsSealed() {
		out = append(out, c.crowd()...)
		if c.state.Lowered {
			out = append(out, fmt.Sprintf("the quorum was lowered to %d of %d by an operator: one server that lost its disk, or one too many, could make a second cluster", Majority(c.cfg.N), c.cfg.N))
		}
	} else if c.state.Config != c.hash && !c.foreign() && !c.cfg.Joining {
		out = append(out, "the user-data's expect, quorum or electors differ from those the cluster was formed with; it is sealed, so they are ignored")
	}
	for _, x := range c.strangers {
		out = append(out, x.text)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// cause is why this server takes no part, as far as it lies in itself.
func (c Core) cause() string {
	switch c.barredItself() {
	case barForeign:
		return foreignText(c.state, c.cfg)
	case barConflict:
		return c.conflict
	case barTwin:
		return c.roll.twin
	case barReconfigured:
		return fmt.Sprintf("this server began with expect: %d (config %.8s), its user-data now says %d (config %.8s): it does not vote; "+
			"restore the first user-data", c.state.N, c.state.Config, c.cfg.N, c.hash)
	case barJoining:
		return "this server booted with joining user-data (spec.join): it joins the cluster with CA " + c.cfg.JoinCA + " and takes no part in votes"
	case barSuperseded:
		return c.supersededText()
	case barEvidence:
		return fmt.Sprintf("there is no decree on this disk, but %s: this server does not vote; %s", c.evidence, startOver)
	}
	return ""
}

func foreignText(s State, cfg Config) string {
	return fmt.Sprintf("the state on this disk belongs to cluster %s, the user-data to cluster %s: nothing is touched; %s", s.SpecID, cfg.SpecID, startOver)
}

// alone says that the one control plane of a sealed cluster is not in sight. Once
// the cluster is closed, etcd has more members and Kubernetes tells.
func (c Core) alone() string {
	l, epoch, led := c.state.Leader()
	if c.act != (Supersede{}) || !led || !c.state.IsSealed() || c.state.Sealed.Closed || l.Inst == c.state.Inst || c.roll.shows(l.Inst) {
		return ""
	}
	return fmt.Sprintf("%s, the first control plane, is not in sight, and no second etcd member is known to vote: power it on; if its disk is lost, so is the cluster: "+
		"power it off, and on a server that may become a control plane (%s) run: bootstrap supersede --epoch %d --confirm-dead %s --lose-cluster NODES", l.Name, c.successors(), epoch, l.HW)
}

// supersededText is for a server whose GO was replaced.
func (c Core) supersededText() string {
	l, epoch, led := c.state.Leader()
	text := "this server held GO and was superseded by an operator's order"
	if led {
		text += fmt.Sprintf(": %s leads epoch %d now", l.Name, epoch)
	}
	return text + "; what it built is void and stays down; " + startOver
}

// crowd says who is here too often.
func (c Core) crowd() []string {
	var out []string
	for _, hw := range c.roll.doubled {
		lives := c.lives(hw)
		number, verdict, off := "two", "neither votes", "one"
		if len(lives) > 2 {
			number, verdict, off = strconv.Itoa(len(lives)), "none votes", "all but one"
		}
		out = append(out, fmt.Sprintf("%s live instances carry the hardware id %s (%s): %s; switch %s off, "+
			"or set spec.identity.source to mac where the firmware gives every server the same UUID", number, hw, strings.Join(lives, ", "), verdict, off))
	}
	if n := c.surplus(); n > 0 {
		text := fmt.Sprintf("%d servers share this user-data, which expects %d: %s", c.cfg.N+n, c.cfg.N, c.names(c.roll.hardware))
		if limit := c.cfg.N + Tolerated(c.cfg.N, c.quorum(c.state.known())); c.cfg.N+n > limit {
			text += fmt.Sprintf("; above %d nobody votes: switch off those that do not belong, or name the electors in spec.servers.electors", limit)
		}
		out = append(out, text)
	}
	return out
}

// lives names the instances of one hardware id that are here, by where they are:
// their names may be one.
func (c Core) lives(hw string) []string {
	var out []string
	if hw == c.state.Hardware.HW {
		out = append(out, c.self.Name+" at "+c.self.Address.String())
	}
	for _, p := range c.roll.peers {
		if p.HW != hw {
			continue
		}
		if p.Name != "" {
			out = append(out, p.Name+" at "+p.Address.String())
		} else {
			out = append(out, p.Address.String())
		}
	}
	slices.Sort(out)
	return out
}
