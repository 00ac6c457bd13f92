package bootstrap

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
)

// Whoever has the user-data can call in any server's name; only the key that the
// server enrolled with first gets certificates, whichever control plane is asked.
func TestEnrolmentBindsTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1)
		defer w.shutdown()
		all := []string{"cp1", "cp2", "w1"}
		w.named("w1").installFails = 2 // enrols again with the key that is bound
		for _, name := range all {
			w.boot(name)
		}
		w.formed(5*time.Minute, all...)
		leader := w.inits[0]
		for _, signer := range all[:2] {
			for _, victim := range all {
				s := w.named(victim)
				from := agent.Caller{Inst: s.inst, HW: s.state.Hardware.HW, Address: s.address}
				enrol := func(key string) error {
					_, err := w.named(signer).server.Enrol(t.Context(), from, agent.EnrolRequest{CSR: []byte(s.inst + "/" + key)})
					return err
				}
				if err := enrol("key of a liar"); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "poses as it") {
					t.Errorf("%s signed for %s with another key: %v", signer, victim, err)
				}
				if err := enrol(s.key); (err == nil) != (victim != leader) {
					t.Errorf("%s enrolled at %s again with its own key: %v; only GO's holder, which signs for itself, is refused", victim, signer, err)
				}
			}
		}
		if got := w.bound[w.named(leader).inst]; got != "key-of-"+leader {
			t.Errorf("GO's holder is bound to %q, expected its own key", got)
		}
	})
}

// Without the directory nobody knows which key an instance enrolled with.
func TestEnrolmentWaitsForTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.named("cp1").directoryFails = true
		w.boot("cp1")
		w.boot("w1")
		pass(time.Minute)
		if s := w.named("w1"); s.enrolled || !strings.Contains(s.agent().board.read().Problem, "the directory of this server does not answer") {
			t.Errorf("enrolled %v with no directory, problem %q", s.enrolled, s.agent().board.read().Problem)
		}
		w.mu.Lock()
		w.named("cp1").directoryFails = false
		w.mu.Unlock()
		w.formed(5*time.Minute, "cp1", "w1")
	})
}
