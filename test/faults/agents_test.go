package faults

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/ledger"
)

// long says that there is time: a run of many is asked for.
func long() bool {
	n, err := strconv.Atoi(os.Getenv("MUSTER_FAULTS_RUNS"))
	return err == nil && n >= 100
}

// Agents that are killed at any moment, and started again by systemd after 5 s.
func TestKill(t *testing.T) {
	r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
	r.on()
	for range 3 {
		r.pause(r.between(200*time.Millisecond, 3*time.Second))
		for _, s := range r.those() {
			r.must(s.Signal(layout.UnitAgent, syscall.SIGKILL))
		}
	}
	r.formed()
}

// Agents that stand still and go on as if nothing had happened: one that voted, and
// the one with GO.
func TestStop(t *testing.T) {
	d := 8 * time.Second
	if long() {
		d = time.Minute
	}
	t.Run("voter", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2")
		r.on()
		r.pause(r.between(0, 2*time.Second))
		r.must(r.by["w1"].Signal(layout.UnitAgent, syscall.SIGSTOP))
		r.pause(d)
		r.must(r.by["w1"].Signal(layout.UnitAgent, syscall.SIGCONT))
		r.formed()
	})
	t.Run("holder of GO", func(t *testing.T) {
		r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
		r.must(r.Pace(3 * time.Second))
		r.on()
		holder := r.began()
		r.must(r.by[holder].Signal(layout.UnitAgent, syscall.SIGSTOP))
		r.pause(d)
		r.must(r.by[holder].Signal(layout.UnitAgent, syscall.SIGCONT))
		r.formed()
	})
}

// systemctl restart muster, again and again, on all servers.
func TestRestartStorm(t *testing.T) {
	variation(t)
	r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
	r.on()
	for range 20 {
		r.pause(r.between(50*time.Millisecond, 600*time.Millisecond))
		s := r.those()[r.random.IntN(5)]
		// A server that is half way up has no systemd yet that could restart anything.
		if _, err := s.Exec(r.ctx, "systemctl", "restart", "--no-block", layout.UnitAgent); err != nil {
			r.Logf("%v", err)
		}
	}
	r.formed()
}

// Servers that lose power with what was not fsynced, and get it back.
func TestPowerCycles(t *testing.T) {
	variation(t)
	r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
	r.on()
	for range 6 {
		r.pause(r.between(200*time.Millisecond, 2*time.Second))
		s := r.those()[r.random.IntN(5)]
		r.must(s.PowerLoss(r.ctx))
		r.must(s.On(r.ctx))
	}
	r.formed()
}

// A holder of GO that is off: the others wait, say for whom, and nobody takes over.
// When it is back it goes on, with the authorities that the decree pins.
func TestHolderOff(t *testing.T) {
	r := begin(t, 5, 3, "cp1", "cp2", "cp3", "w1", "w2")
	r.must(r.Pace(4 * time.Second))
	r.on()
	holder := r.began()
	r.must(r.by[holder].PowerLoss(r.ctx))
	for _, name := range r.plan.Names {
		if name != holder {
			r.until(name, "it knows of GO", func(s member.Status) bool { return s.Decree.State == string(election.PhaseGo) })
			r.said(name, holder)
		}
	}
	r.calm(5 * time.Second)
	r.must(r.Pace(500 * time.Millisecond))
	r.on(holder)
	r.formed()
	lines, err := r.Ledger()
	r.must(err)
	inits := 0
	for _, l := range lines {
		if l.What == ledger.Init {
			inits++
		}
	}
	if inits != 2 {
		t.Errorf("kubeadm init began %d times, expected once before the power went and once after", inits)
	}
}

// A disk that is full: the server says so and takes no part, and the rest waits for
// its vote; with room it joins in.
func TestFullDisk(t *testing.T) {
	r := begin(t, 3, 1, "cp1", "w1", "w2")
	r.must(r.by["w2"].Fill(r.ctx, 0))
	r.on()
	r.sees("cp1", 2)
	r.said("w2", "no space left on device")
	r.calm(3 * time.Second)
	r.must(r.by["w2"].Empty())
	r.formed()
}

// A disk that becomes full in the middle of it.
func TestFillingDisk(t *testing.T) {
	variation(t)
	r := begin(t, 3, 1, "cp1", "w1", "w2")
	r.on()
	r.pause(r.between(500*time.Millisecond, 3*time.Second))
	r.must(r.by["cp1"].Fill(r.ctx, 0))
	r.pause(r.between(2*time.Second, 6*time.Second))
	r.must(r.by["cp1"].Empty())
	r.formed()
}
