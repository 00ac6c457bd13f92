package election

// run does a schedule: some steps of disorder, then peace, in which one decree
// must come to be known by all.
func (w *sim) run() {
	for _, m := range w.machines {
		if !w.chance(6) {
			w.start(m)
		}
	}
	if !w.chance(4) {
		for _, m := range w.machines {
			w.step(m, w.view(m))
		}
	}
	for range 40 + w.rnd.IntN(60+50*len(w.machines)) {
		if w.steps++; w.failure != "" {
			return
		}
		w.disturb()
	}
	w.heal()
	w.rise()
	w.conclude()
}

// disturb does one random thing.
func (w *sim) disturb() {
	if w.rates.duel && w.chance(10) {
		w.burst()
		return
	}
	k := w.rnd.IntN(1000)
	deliver := 750
	if w.rates.duel {
		deliver = 600
	}
	m := w.machines[w.rnd.IntN(len(w.machines))]
	r := w.rates
	switch {
	case r.take(&k, r.harm):
		w.harmDisk(m)
	case r.take(&k, r.strange):
		w.rerender(m)
	case r.take(&k, r.order):
		w.order(m)
	case r.take(&k, r.cut):
		w.partition()
	case len(w.flights) > 0 && r.take(&k, deliver):
		w.deliverAny()
	case !m.up:
		if !m.dead && (!r.duel || w.chance(4)) {
			w.start(m)
		}
	case r.take(&k, r.fit):
		w.step(m, Fitness{LeaderFit: !w.chance(6), GoFit: !w.chance(3)})
	case r.take(&k, 16):
		w.stop(m, w.chance(2))
	case r.take(&k, 50):
		w.look(m)
	case r.take(&k, 12):
		w.work(m)
	default:
		w.fire(m)
	}
}

// take gives a share of a thousand to a case.
func (rates) take(k *int, share int) bool {
	*k -= share
	return *k < 0
}

// work is what the holder of GO does.
func (w *sim) work(m *machine) {
	switch d := m.core.Decree(); {
	case !d.Stands:
	case d.Phase == PhaseGo:
		w.step(m, InitDone{Endpoint: "10.0.0.100:6443"})
	case w.mode != modeSupersede:
		w.step(m, Closed{})
	}
}

// deliverAny hands over any message under way, however old. It may stay under
// way, to come again, or be lost.
func (w *sim) deliverAny() {
	at := w.rnd.IntN(len(w.flights))
	if recent := 24; len(w.flights) > recent && !w.chance(8) {
		at = len(w.flights) - 1 - w.rnd.IntN(recent)
	}
	f := w.flights[at]
	if w.chance(w.rates.again) {
		w.saw(sawDuplicate)
	} else {
		last := len(w.flights) - 1
		w.flights[at] = w.flights[last]
		w.flights = w.flights[:last]
	}
	if !w.chance(w.rates.drop) {
		w.deliver(f)
	}
}

// fire lets a timer run out at any moment, most often one that runs.
func (w *sim) fire(m *machine) {
	at := w.rnd.IntN(len(allTimers))
	if w.rates.duel && !w.chance(4) {
		at = w.rnd.IntN(5) / 4 // propose, seldom resend
	}
	if !w.chance(6) {
		for i := range allTimers {
			if j := (at + i) % len(allTimers); m.clock[j] > 0 {
				at = j
				break
			}
		}
	}
	if allTimers[at] == TimerAsk && !w.chance(6) {
		return // the most frequent timer makes the least happen
	}
	m.clock[at] = 0
	w.step(m, Timer{Kind: allTimers[at]})
}

// look shows a machine its peers, right or wrong: gossip may miss some and show
// instances that are gone.
func (w *sim) look(m *machine) {
	v := w.view(m)
	if w.chance(w.rates.wrong) {
		kept := v.Peers[:0]
		for _, p := range v.Peers {
			if !w.chance(3) {
				kept = append(kept, p)
			}
		}
		v.Peers = kept
		for _, p := range w.machines {
			if p != m && !p.up && p.disk.any() && w.chance(3) {
				v.Peers = append(v.Peers, Peer{Inst: p.disk.cache[StateFileOf(p.disk.seq())].state.Inst, HW: p.hw, Address: p.self.Address, Eligible: p.self.Eligible})
			}
		}
	}
	w.step(m, v)
}

// partition cuts the network in two, cuts one way between two machines, or ends
// all cuts. Gossip sees it later, or never.
func (w *sim) partition() {
	switch w.rnd.IntN(4) {
	case 0:
		side := uint16(w.rnd.IntN(1 << len(w.machines)))
		for i := range w.machines {
			w.cut[i] = side
			if side&(1<<i) != 0 {
				w.cut[i] = ^side
			}
		}
		w.say("the network is cut: %0*b", len(w.machines), side)
		w.saw(sawPartition)
	case 1:
		from, to := w.rnd.IntN(len(w.machines)), w.rnd.IntN(len(w.machines))
		w.cut[from] |= 1 << to
		w.say("nothing gets from %s to %s", w.machines[from].self.Name, w.machines[to].self.Name)
	default:
		w.cut = [16]uint16{}
		w.say("the network is whole")
	}
}

// harmDisk wipes a disk, damages it or puts an older copy of it back. The law
// counts machines: one whose memory failed once may fail again.
func (w *sim) harmDisk(m *machine) {
	putBack := len(m.copies) > 0 && w.chance(4)
	if !m.outside {
		if !m.harmed && w.harm >= w.limit || putBack && !m.putBack && w.hard == 0 {
			return
		}
		if !m.harmed {
			m.harmed = true
			w.harm++
		}
		if putBack && !m.putBack {
			m.putBack = true
			w.hard--
		}
	}
	if m.up {
		w.stop(m, true)
	}
	switch {
	case putBack:
		m.disk = m.copies[w.rnd.IntN(len(m.copies))]
		m.disk.plate = m.disk.cache
		w.saw(sawRollback)
		w.say("the disk of %s is put back to %s", m.self.Name, describeState(m.disk.cache[StateFileOf(m.disk.seq())].state))
	case w.chance(3) && m.disk.any():
		m.disk.damage()
		w.say("the newest state of %s is damaged", m.self.Name)
	default:
		m.traces = m.traces || m.mark != mark{}
		m.disk, m.copies = disk{lazy: m.disk.lazy}, nil
		w.saw(sawWipe)
		w.say("%s is wiped", m.self.Name)
	}
}

// rerender starts a machine with other numbers in its user-data, or with the
// right ones again.
func (w *sim) rerender(m *machine) {
	if m.outside || m.dead {
		return
	}
	if m.up {
		w.stop(m, true)
	}
	m.strange = !m.strange
	m.cfg = w.config()
	if m.strange {
		m.cfg.N += 2
		m.cfg.Q = Quorum(m.cfg.N, m.cfg.Rule)
		if w.mut.strange != nil {
			w.mut.strange(&m.cfg)
		}
	}
	w.saw(sawStranger)
	w.say("%s gets user-data with expect: %d", m.self.Name, m.cfg.N)
	w.start(m)
}
