package election

import "slices"

// burst lets a few machines get somewhere on their own: one proposes, messages
// among them come in order, and at any point it ends, perhaps with the death of
// the proposer. Attempts that stop half way, one after the other among different
// machines, are where a vote goes wrong if it can.
func (w *sim) burst() {
	group := w.group()
	first := group[0]
	if w.chance(2) {
		w.flights = w.flights[:0]
	}
	for _, m := range group {
		if !m.up && !m.dead {
			w.start(m)
		}
	}
	for _, m := range group {
		if m.up && !w.chance(4) {
			w.step(m, w.view(m))
		}
	}
	if w.mode == modeSupersede && first.up && first.core.state.Gone() && w.chance(2) {
		w.supersede(first, true)
	}
	for _, k := range []int{5, 0} { // silence, then propose
		if w.failure == "" && first.clock[k] > 0 {
			first.clock[k] = 0
			w.step(first, Timer{Kind: allTimers[k]})
		}
	}
	w.deliverSome(w.rnd.IntN(6 * len(group)))
	if first.up && w.chance(3) {
		w.stop(first, w.chance(2))
	}
}

// group draws machines and cuts them off from the others: most often as many as
// a vote needs.
func (w *sim) group() []*machine {
	group := slices.Clone(w.machines)
	w.rnd.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
	n := w.size.q
	if w.mode == modeLower || w.mode == modeSupersede && len(w.decrees) > 1 {
		n = min(n, Majority(w.size.n))
	}
	switch {
	case w.chance(3):
		n += w.rnd.IntN(len(group) - n + 1)
	case w.chance(4):
		n = max(1, n-1)
	}
	group = group[:n]
	var in uint16
	for _, m := range group {
		in |= 1 << m.id
	}
	for _, m := range w.machines {
		w.cut[m.id] = in
		if in&(1<<m.id) != 0 {
			w.cut[m.id] = ^in
		}
	}
	w.say("only %0*b reach each other", len(w.machines), in)
	w.saw(sawPartition)
	return group
}

// deliverSome delivers messages in order, and loses a few.
func (w *sim) deliverSome(n int) {
	for ; n > 0 && len(w.flights) > 0 && w.failure == ""; n-- {
		f := w.flights[0]
		w.flights = slices.Delete(w.flights, 0, 1)
		if w.steps++; !w.chance(12) {
			w.deliver(f)
		}
	}
}
