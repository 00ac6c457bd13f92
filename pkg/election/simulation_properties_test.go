package election

import (
	"slices"
	"strings"
)

// check holds the properties after a step: never do decrees differ, and never
// do two instances hold GO that are not superseded.
func (w *sim) check(m *machine) {
	if m.core.conflict != "" {
		w.breaks("%s: %s", m.self.Name, m.core.conflict)
	}
	st := m.core.state
	if st.Seq == m.checked && !w.mut.broken() {
		return
	}
	m.checked = st.Seq
	w.checkDecrees(m, st)
	if w.mut.holds != nil && w.mut.holds(w, m) || st.HoldsGo() {
		w.checkHolder(m, st.Inst)
	}
	if st.IsSealed() {
		w.checkSealed(m, st.Sealed)
	}
}

func (w *sim) checkDecrees(m *machine, st State) {
	for i := range st.Slots {
		slot := &st.Slots[i]
		switch {
		case slot.Decided.Kind == "":
		case i == len(w.decrees):
			w.decrees = append(w.decrees, slot.Decided)
			w.say("     slot %d DECIDED %s", i, slot.Decided.describe())
			w.bury(slot.Decided)
		case i > len(w.decrees):
			w.breaks("%s knows slot %d, which opened before slot %d was decided", m.self.Name, i, len(w.decrees))
		case w.decrees[i] != slot.Decided:
			w.breaks("slot %d decided %s, and at %s %s", i, w.decrees[i].describe(), m.self.Name, slot.Decided.describe())
		}
	}
}

// bury notes that a decree superseded a holder of GO: the instance may not rise
// in a boot from now on.
func (w *sim) bury(v Value) {
	if v.Supersedes == "" {
		return
	}
	w.saw(sawSuperseded)
	inst := w.decrees[len(w.decrees)-3].Leader.Inst
	for _, m := range w.machines {
		if m.hw == v.Supersedes {
			m.dead = false
			w.deaths = append(w.deaths, death{inst: inst, m: m, boot: m.boot})
		}
	}
}

// superseded says whether an instance lost GO by a decree.
func (w *sim) superseded(inst string) bool {
	return slices.ContainsFunc(w.deaths, func(d death) bool { return d.inst == inst })
}

func (w *sim) checkHolder(m *machine, inst string) {
	if !slices.Contains(w.held, inst) && !w.superseded(inst) {
		w.held = append(w.held, inst)
		w.say("     %s (%s) HOLDS GO", m.self.Name, inst)
		if !w.calm {
			w.saw(sawGo)
		}
	}
	w.held = slices.DeleteFunc(w.held, w.superseded)
	if len(w.held) > 1 {
		w.breaks("GO is held by %s", strings.Join(w.held, " and "))
	}
}

// checkRisen fails when a superseded holder of GO may start again what it built.
func (w *sim) checkRisen(m *machine, inst string) {
	for _, d := range w.deaths {
		if d.inst == inst && m.boot >= d.boot {
			w.breaks("%s (%s) was superseded and rises in boot %d", m.self.Name, inst, m.boot)
		}
	}
}

// checkSealed holds that an epoch is sealed once, with the CA of its decree.
func (w *sim) checkSealed(m *machine, s Sealed) {
	for uint64(len(w.sealed)) <= s.Epoch {
		w.sealed = append(w.sealed, Sealed{})
	}
	known := &w.sealed[s.Epoch]
	if *known == (Sealed{}) {
		*known = s
		if at := int(2 * s.Epoch); at >= len(w.decrees) || w.decrees[at].Leader.CAHash != s.CAHash {
			w.breaks("%s is sealed in epoch %d with CA %s, which was not decreed", m.self.Name, s.Epoch, s.CAHash)
		}
	}
	if !known.same(s) {
		w.breaks("epoch %d is sealed with CA %s, and at %s with %s", s.Epoch, known.CAHash, m.self.Name, s.CAHash)
	}
}

// checkVoice fails when a server without a vote speaks in one.
func (w *sim) checkVoice(m *machine, k MessageKind) {
	if m.outside && (k == Prepare || k == Promise || k == Accept || k == Accepted) {
		w.fail("%s has no vote and sends %s", m.self.Name, k)
	}
}
