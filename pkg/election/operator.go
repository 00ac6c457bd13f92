package election

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Lower is an operator's order to decide by a majority of the expected servers,
// floor(N/2)+1 and never fewer. It spreads to the servers in sight.
type Lower struct{}

// Supersede is an operator's order to replace the holder of GO, which the
// operator confirms to be dead.
type Supersede struct {
	Epoch uint64 // of that GO
	Dead  string // its hardware id
	// LoseCluster gives up a cluster that is sealed and not closed: every node of
	// it must be reset.
	LoseCluster bool
}

// Approve is an operator's order to believe the sealed cluster with this CA,
// where too few servers confirm it.
type Approve struct{ CAHash string }

func (Lower) event()     {}
func (Supersede) event() {}
func (Approve) event()   {}

// Order is what an operator's act would do here and now, for a person to read
// before it is done.
type Order struct {
	Will   []string // what happens
	Danger []string // what it risks
}

// Weigh says what Lower, Supersede or Approve would do, or why it is refused.
// Step does only what is not refused at that moment.
func (c Core) Weigh(e Event) (Order, error) {
	if !c.started {
		return Order{}, errors.New("this server's fence still starts: try again in a moment")
	}
	if b := c.barredItself(); b != mayVote && b != barEvidence {
		return Order{}, fmt.Errorf("this server takes no part in votes: %s", c.whyBarred())
	}
	switch e := e.(type) {
	case Lower:
		return c.weighLower()
	case Supersede:
		return c.weighSupersede(e)
	case Approve:
		return c.weighApprove(e)
	}
	return Order{}, fmt.Errorf("%T is no operator's act", e)
}

// whyBarred says why this server takes no part, for whoever gives it an order.
func (c Core) whyBarred() string {
	if c.barredItself() == barNoElector {
		return "it is not among spec.servers.electors"
	}
	if cause := c.cause(); cause != "" {
		return cause
	}
	return strings.Join(c.crowd(), "; ")
}

// obey carries out what is not refused.
func (s *step) obey(e Event) {
	if _, err := s.Weigh(e); err != nil {
		s.note("an operator's act is refused: " + err.Error())
		return
	}
	switch e := e.(type) {
	case Lower:
		s.state.Lowered, s.dirty, s.check = true, true, true
	case Supersede:
		s.act, s.refusals, s.turn = e, nil, turn{slot: s.state.known()}
		s.check = true
	case Approve:
		s.believe(e.CAHash)
	}
}

func (c Core) weighLower() (Order, error) {
	n, low := c.cfg.N, Majority(c.cfg.N)
	switch {
	case c.state.Gone() || c.state.IsSealed():
		return Order{}, errors.New("GO is decided: no vote is waiting for a quorum")
	case c.state.Lowered:
		return Order{}, fmt.Errorf("it is lowered already: %d of %d decide", low, n)
	case c.cfg.Q <= low:
		return Order{}, fmt.Errorf("the quorum is %d of %d already, and it is never lowered below that: two sides of a broken network could decide each for itself", c.cfg.Q, n)
	}
	before, after := Tolerated(n, c.cfg.Q), Tolerated(n, low)
	return Order{
		Will: []string{fmt.Sprintf("%d of %d servers decide from now on, instead of %d; the servers in sight learn it, and it is kept on disk", low, n, c.cfg.Q)},
		Danger: []string{fmt.Sprintf("until now the vote was safe with up to %d servers that lost their disk or were started too many; now with up to %d: "+
			"make sure that no more servers were reinstalled since they first booted, and that no more than %d run with this user-data", before, after, n)},
	}, nil
}

func (c Core) weighSupersede(e Supersede) (Order, error) {
	l, epoch, led := c.state.Leader()
	switch {
	case !led || !c.state.Gone():
		return Order{}, fmt.Errorf("GO of epoch %d is not decided, so nobody is to be superseded: a leader that stays silent is replaced by itself after %s", epoch, silenceDelay)
	case e.Epoch != epoch:
		return Order{}, fmt.Errorf("epoch %d is not the one that holds: GO of epoch %d belongs to %s (hardware %s)", e.Epoch, epoch, l.Name, l.HW)
	case e.Dead != l.HW:
		return Order{}, fmt.Errorf("hardware %s does not hold GO of epoch %d: %s does, its hardware id is %s", e.Dead, epoch, l.Name, l.HW)
	case l.Inst == c.state.Inst:
		return Order{}, errors.New("this very server holds GO: it cannot declare itself dead")
	case l.HW == c.state.Hardware.HW:
		return Order{}, fmt.Errorf("this server was installed anew on the hardware that holds GO, which has no vote in this; run the command on one of: %s", c.successors())
	}
	if why := c.keeps(e.LoseCluster); why != "" {
		return Order{}, errors.New(why)
	}
	if c.state.Config != c.hash { // it is sealed, or this server were barred
		return Order{}, errors.New("this server's expect, quorum or electors differ from those the cluster was formed with, and would count the votes; " +
			"run the command on another server, or restore the first user-data here")
	}
	if !c.self.Eligible || c.candidate == (Leader{}) {
		return Order{}, fmt.Errorf("this server may not become a control plane, or is not ready to; run the command on one that may: %s", c.successors())
	}
	if slices.Contains(c.state.voidWith(l), c.candidate.CAHash) {
		return Order{}, fmt.Errorf("this server holds the CA of the lost cluster (%s) and can lead only with another: "+
			"reset it first (kubeadm reset -f, remove /etc/kubernetes/pki and /var/lib/muster/pki/kubernetes, systemctl restart muster)", c.candidate.CAHash)
	}
	return c.orderToSupersede(e, l), nil
}

func (c Core) orderToSupersede(e Supersede, l Leader) Order {
	slot, need := c.state.known(), Majority(c.cfg.N)
	here := c.votersFor(slot)
	o := Order{
		Will: []string{
			fmt.Sprintf("%s (%s, hardware %s) loses GO of epoch %d; this server leads epoch %d with its own CA, when %d of %d servers without %s vote for it; %d are here (%s)",
				l.Name, l.Address, l.HW, e.Epoch, e.Epoch+1, need, c.cfg.N, l.Name, len(here), c.names(here)),
			fmt.Sprintf("the cluster CA %s becomes void: whatever %s built is refused by everybody from then on", l.CAHash, l.Name),
		},
		Danger: []string{fmt.Sprintf("if %s still runs, it may be building a cluster of its own, and there would be two: power it off, or pull its cables, before you confirm; "+
			"when it boots again it starts nothing, and must be reinstalled to be of use", l.Name)},
	}
	if c.state.IsSealed() {
		o.Danger = []string{
			fmt.Sprintf("if %s still runs, there will be two clusters: power it off, or pull its cables, before you confirm, and do not boot it from its disk again; "+
				"it knows that its cluster was sealed, so it would run that, and announce its addresses, until it hears of this decree", l.Name),
			"the cluster is sealed: everything in it is lost, and every node that joined it must be reset",
		}
	}
	return o
}

// successors names who may lead next.
func (c Core) successors() string {
	l, _, _ := c.state.Leader()
	var able []string
	for _, hw := range c.roll.eligible {
		if hw != l.HW {
			able = append(able, hw)
		}
	}
	if len(able) == 0 {
		return "none is in sight; boot one that spec.servers.eligible selects"
	}
	return c.names(able)
}

// keeps says why this server does not let the holder of GO be superseded now;
// empty when it does.
func (c *Core) keeps(loseCluster bool) string {
	l, epoch, _ := c.state.Leader()
	switch {
	case c.state.Sealed.Closed:
		return "the cluster is closed: a second etcd member votes, so etcd is the authority; restore etcd from a member or a backup, or start anew with another spec.id"
	case c.state.IsSealed() && !loseCluster:
		return fmt.Sprintf("epoch %d is sealed: its cluster exists (CA %s); it can only be given up as a whole, with --lose-cluster", epoch, l.CAHash)
	case c.roll.shows(l.Inst):
		return fmt.Sprintf("%s is in sight of %s: it is not dead; power it off, or pull its cables, and wait until status no longer shows it", l.Name, c.self.Name)
	}
	return ""
}

// refused notes why another elector keeps the holder of GO.
func (s *step) refused(from Sender, m Message) {
	if s.act == (Supersede{}) || m.Refusal == "" {
		return
	}
	s.refusals = slices.DeleteFunc(slices.Clone(s.refusals), func(x saying) bool { return x.inst == from.Inst })
	s.refusals = append(s.refusals, saying{inst: from.Inst, text: m.Name + " refuses: " + m.Refusal})
}

func (c Core) explainAct() string {
	l, _, _ := c.state.Leader()
	slot := c.state.known()
	here := c.votersFor(slot)
	text := fmt.Sprintf("superseding %s: %d of %d votes needed, %d here (%s)", l.Name, c.quorum(slot), c.cfg.N, len(here), c.names(here))
	for _, r := range c.refusals {
		text += "; " + r.text
	}
	if why := c.keeps(c.act.LoseCluster); why != "" {
		text += "; " + why
	}
	return text + "; restart muster.service to give it up"
}

func (c Core) weighApprove(e Approve) (Order, error) {
	if c.state.IsSealed() {
		return Order{}, fmt.Errorf("this server knows its cluster already: it has the CA %s", c.state.Sealed.CAHash)
	}
	for _, x := range c.claims {
		if x.sealed.CAHash == e.CAHash {
			return Order{
				Will: []string{fmt.Sprintf("this server believes %s that the cluster with CA %s is its own, and joins it", c.roll.name(x.hw), e.CAHash)},
				Danger: []string{"compare the hash with a control plane that you trust (kubeadm token create --print-join-command prints it there): " +
					"whoever holds another cluster's CA would own this server"},
			}, nil
		}
	}
	said := c.hearsay()
	if said == "" {
		return Order{}, errors.New("no server in sight speaks of a cluster that exists: nothing is to be approved; bootstrap status says what this server waits for")
	}
	return Order{}, fmt.Errorf("no server in sight speaks of a cluster with CA %s: %s", e.CAHash, said)
}

// hearsay says of which clusters the servers in sight speak.
func (c Core) hearsay() string {
	by := map[string][]string{}
	for _, x := range c.claims {
		by[x.sealed.CAHash] = append(by[x.sealed.CAHash], x.hw)
	}
	var out []string
	for ca, hardware := range by {
		out = append(out, c.names(hardware)+": CA "+ca)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
