package election

import "slices"

// order is an operator's act, at any server and any moment.
func (w *sim) order(m *machine) {
	switch {
	case w.mode == modeLower && m.up:
		w.say("an operator lowers the quorum at %s", m.self.Name)
		w.step(m, Lower{})
		if m.up && m.core.state.Lowered {
			w.saw(sawLowered)
		}
	case w.mode == modeSupersede && m.up:
		w.supersede(m, w.chance(2))
	}
}

// supersede switches the holder of GO off and gives the order to replace it. It
// stays off until that is decided; afterwards it may come back.
func (w *sim) supersede(m *machine, lose bool) {
	l, epoch, ok := m.core.state.Leader()
	if !ok || !m.core.state.Gone() || l.HW == m.hw || w.living() <= Majority(w.size.n) && !w.dying(l.HW) && !w.superseded(l.Inst) {
		return
	}
	for _, x := range w.machines {
		if x.hw == l.HW && !x.dead && !w.superseded(l.Inst) {
			w.stop(x, true)
			x.dead = true
		}
	}
	w.say("an operator supersedes %s at %s", l.HW, m.self.Name)
	w.step(m, w.view(m))
	w.step(m, Supersede{Epoch: epoch, Dead: l.HW, LoseCluster: lose})
}

// living counts the hardware that was expected and is not given up.
func (w *sim) living() int {
	n := w.size.n - len(w.deaths)
	for _, m := range w.machines[:w.size.n] {
		if m.dead {
			n--
		}
	}
	return n
}

// dying says whether hardware was confirmed dead and not yet superseded.
func (w *sim) dying(hw string) bool {
	return slices.ContainsFunc(w.machines, func(m *machine) bool { return m.hw == hw && m.dead })
}
