package election

import "time"

// heal ends all faults: servers that do not belong are switched off, the others
// run with the right user-data, are fit and see each other.
func (w *sim) heal() {
	if len(w.decrees) > 0 {
		w.saw(sawLeader)
	}
	w.calm, w.rates, w.cut = true, rates{}, [16]uint16{}
	w.say("peace")
	owner := map[string]bool{}
	for _, m := range w.machines {
		if m.strange || m.traces || m.dead || owner[m.hw] {
			if m.up {
				w.stop(m, true)
			}
			if m.strange {
				m.cfg = w.config()
			}
			m.strange, m.traces = false, false
		}
		if !owner[m.hw] && !m.dead {
			w.restore(m)
		}
		owner[m.hw] = true
	}
	w.meet()
	if !w.settle() {
		w.fail("no decree within a day: %s", w.positions())
	}
}

// restore lets a machine run and be fit.
func (w *sim) restore(m *machine) {
	if !m.up {
		w.start(m)
	}
	if m.core.reconfigured() && !m.core.state.everGone() {
		// It voted under other numbers only, so an operator may reset it.
		w.stop(m, true)
		m.disk = disk{lazy: m.disk.lazy}
		w.start(m)
	}
	w.step(m, Fitness{LeaderFit: true, GoFit: true})
}

func (w *sim) meet() {
	for _, m := range w.machines {
		if m.up {
			w.step(m, w.view(m))
		}
	}
}

// rise boots the dead, first alone and then among the others; check holds that
// they start nothing.
func (w *sim) rise() {
	any := false
	for _, d := range w.deaths {
		any = true
		w.stop(d.m, true)
		w.start(d.m)
		for range 3 {
			w.step(d.m, Timer{Kind: TimerStand})
		}
	}
	if !any {
		return
	}
	w.meet()
	if !w.settle() {
		w.fail("the dead that rose do not learn within a day: %s", w.positions())
	}
}

// settle lets virtual time pass in order until all agree; it gives up after a
// day. An operator does what only an operator may.
func (w *sim) settle() bool {
	for end := w.now + 24*time.Hour; w.failure == ""; {
		w.quiet()
		if w.agreed() {
			return true
		}
		var due *machine
		kind, at := 0, end
		for _, m := range w.machines {
			for k, t := range m.clock {
				if m.up && t > 0 && t < at && (!asks(allTimers[k]) || m.calm < 6) {
					due, kind, at = m, k, t
				}
			}
		}
		if due == nil || w.mut.broken() && w.steps > 2000 {
			if w.mut.broken() || !w.operate() {
				return false
			}
			end = w.now + 24*time.Hour
			continue
		}
		if asks(allTimers[kind]) {
			due.calm++
		}
		w.now = at
		due.clock[kind] = 0
		w.steps++
		w.step(due, Timer{Kind: allTimers[kind]})
	}
	return true
}

// asks tells the timers of questions: to ask again and again changes nothing and
// costs the most, so that they run out a few times only after anything was
// written.
func asks(k TimerKind) bool { return k == TimerAsk || k == TimerStand }

// operate helps servers that wait for an operator; it reports whether it could.
func (w *sim) operate() bool {
	for _, m := range w.machines {
		if m.up && m.core.barred() == barClaims {
			w.say("an operator approves the cluster at %s", m.self.Name)
			w.step(m, Approve{CAHash: m.core.claims[0].sealed.CAHash})
			w.saw(sawApproved)
			return m.core.state.IsSealed()
		}
	}
	for _, m := range w.machines {
		if m.up && m.core.act == (Supersede{}) && w.repeats(m) {
			return true
		}
	}
	// Whoever knew GO lost its disk, so there is nothing to supersede: the holder
	// is switched on again.
	revived := false
	for _, m := range w.machines {
		if m.dead {
			m.dead, revived = false, true
			w.restore(m)
		}
	}
	w.meet()
	return revived
}

// repeats gives the order to supersede once more where it was begun and
// forgotten: whoever decided it may have lost its disk. The dead is switched off
// again first.
func (w *sim) repeats(m *machine) bool {
	l, epoch, _ := m.core.state.Leader()
	if !m.core.state.Gone() || !w.dying(l.HW) && !w.superseded(l.Inst) {
		return false
	}
	for _, d := range w.deaths {
		if d.inst == l.Inst && d.m.up {
			w.stop(d.m, true)
			w.meet()
		}
	}
	order := Supersede{Epoch: epoch, Dead: l.HW, LoseCluster: true}
	if _, err := m.core.Weigh(order); err != nil {
		return false
	}
	w.supersede(m, true)
	return true
}

// quiet delivers everything in order until nothing is under way.
func (w *sim) quiet() {
	n := 0
	for ; n < len(w.flights) && w.failure == ""; n++ {
		if n > 100_000 {
			w.fail("the servers never stop talking")
		}
		w.steps++
		w.deliver(w.flights[n])
	}
	w.flights = w.flights[:0]
}

// agreed says whether every machine knows the newest decree, a GO of one that
// is not confirmed dead, and whether the cluster is sealed.
func (w *sim) agreed() bool {
	n := len(w.decrees)
	if n == 0 || w.decrees[n-1].Kind != Go || w.dying(w.decrees[n-2].Leader.HW) {
		return false
	}
	sealed, gone, up := 0, 0, 0
	for _, m := range w.machines {
		if !m.up || m.cfg.Joining {
			continue
		}
		up++
		switch st := m.core.state; {
		case st.IsSealed() && (st.known() == n || st.known() == 0):
			sealed++
		case st.known() == n:
			gone++
		}
	}
	return sealed == up || gone == up
}
