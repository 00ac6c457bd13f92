package election

// coverage says what a search must have come across to mean anything.
type coverage struct {
	begun, promised, nacked, accepted, decided, learned, adopted, lost, crashed, wiped, held, stood, abdicated, lowered, superseded, asked int
}

func (c *coverage) add(o coverage) {
	c.begun += o.begun
	c.promised += o.promised
	c.nacked += o.nacked
	c.accepted += o.accepted
	c.decided += o.decided
	c.learned += o.learned
	c.adopted += o.adopted
	c.lost += o.lost
	c.crashed += o.crashed
	c.wiped += o.wiped
	c.held += o.held
	c.stood += o.stood
	c.abdicated += o.abdicated
	c.lowered += o.lowered
	c.superseded += o.superseded
	c.asked += o.asked
}

// cover says what a transition shows.
func (x *table) cover(r *result, a, b local) {
	began := func(l local) Ballot { return l.core.try.ballot }
	if began(b) != (Ballot{}) && began(a) != began(b) {
		r.seen.begun++
	}
	if began(a) != (Ballot{}) && began(a) != began(b) && b.core.state.known() == a.core.state.known() {
		r.seen.lost++
	}
	for _, id := range r.answers {
		switch m := x.answers[id]; m.Kind {
		case Promise:
			r.seen.promised++
		case Nack:
			r.seen.nacked++
		case Accepted:
			r.seen.accepted++
		case Stands:
			r.seen.asked++
		}
	}
	if b.core.state.known() > a.core.state.known() {
		if a.core.try.accepting && began(b) != began(a) && a.core.try.value == b.core.state.Slots[a.core.try.slot].Decided {
			r.seen.decided++
			if a.core.try.value.Kind == Abdicate {
				r.seen.abdicated++
			}
			if a.core.try.value.Supersedes != "" {
				r.seen.superseded++
			}
			if v := a.core.try.value; v.Kind == Lead && v.Leader.Inst != a.core.state.Inst {
				r.seen.adopted++
			}
		} else {
			r.seen.learned++
		}
	}
	if b.disk.HoldsGo() && !a.disk.HoldsGo() {
		r.seen.held++
	}
	if b.core.state.Lowered && !a.core.state.Lowered {
		r.seen.lowered++
	}
	if b.holds && !a.holds {
		r.seen.stood++
	}
}
