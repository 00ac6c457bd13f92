package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
)

// fakeAddons notes who applies the add-ons.
type fakeAddons struct{ s *testServer }

func (f fakeAddons) Run(ctx context.Context, self Self, first bool, report func([]member.AddonStatus, error)) error {
	w := f.s.world
	w.mu.Lock()
	w.applying = append(w.applying, fmt.Sprintf("%s first=%t", self.Node.Name, first))
	slow := w.addonsSlow
	w.mu.Unlock()
	if !slow {
		return nil
	}
	report([]member.AddonStatus{{Name: "cni", State: member.AddonPending, Detail: "waits"}}, errors.New("add-on cni: the mirror is down"))
	if err := sleep(ctx, time.Minute); err != nil {
		return err
	}
	report([]member.AddonStatus{{Name: "cni", State: member.AddonApplied}}, nil)
	return nil
}

// TestAddonsAreForControlPlanes: every control plane is there to apply them, the
// first before all others; a worker is not. Status tells how far they are.
func TestAddonsAreForControlPlanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1)
		defer w.shutdown()
		w.addonsSlow = true
		for _, name := range []string{"cp1", "cp2", "w1"} {
			w.boot(name)
		}
		w.formed(10*time.Minute, "cp1", "cp2", "w1")
		pass(2 * time.Minute)
		w.mu.Lock()
		slices.Sort(w.applying)
		got, inits := slices.Clone(w.applying), slices.Clone(w.inits)
		w.mu.Unlock()
		want := []string{fmt.Sprintf("cp1 first=%t", inits[0] == "cp1"), fmt.Sprintf("cp2 first=%t", inits[0] == "cp2")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		status := w.named("cp1").currentRun.Load().board.read()
		if diff := cmp.Diff([]member.AddonStatus{{Name: "cni", State: member.AddonApplied}}, status.Addons); diff != "" || status.Problem != "" {
			t.Errorf("status (-want +got)\n%s\nproblem %q", diff, status.Problem)
		}
	})
}
