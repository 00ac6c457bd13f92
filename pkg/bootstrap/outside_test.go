package bootstrap

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/plan"
)

// Listeners outside hear of every phase once, in order, and last that a server is
// ready, or why it stopped.
func TestTellsOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.boot("cp1")
		w.boot("w1")
		w.formed(5*time.Minute, "cp1", "w1")
		for name, want := range map[string]struct{ first, last plan.Notice }{
			"cp1": {plan.Notice{State: "running", Code: 1001, Message: "/?: metadata"}, plan.Notice{State: "succeeded", Code: 1009, Message: "/cp1: ready as control-plane"}},
			"w1":  {plan.Notice{State: "running", Code: 1001, Message: "/?: metadata"}, plan.Notice{State: "succeeded", Code: 1009, Message: "/w1: ready as worker"}},
		} {
			heard := w.named(name).outside.heard
			if len(heard) < 6 || heard[0] != want.first || heard[len(heard)-1] != want.last {
				t.Errorf("%s told %+v", name, heard)
			}
			if len(slices.Compact(slices.Clone(heard))) != len(heard) {
				t.Errorf("%s told something twice in a row: %+v", name, heard)
			}
			if !slices.ContainsFunc(heard, func(n plan.Notice) bool { return n.Code == 1002 && n.Message == "/"+name+": roll-call" }) {
				t.Errorf("%s did not tell of the roll call: %+v", name, heard)
			}
			if aims := w.named(name).outside.aims; len(aims) != 1 || aims[0] != "http://10.0.0.1/events" {
				t.Errorf("%s aimed at %v", name, aims)
			}
		}
	})
}

func TestTellsOutsideWhyItStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outside
		a := New(Machine{Outward: &o, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now})
		a.board.stop(errors.New("the disk is of another cluster"))
		if len(o.heard) != 1 || o.heard[0].State != "failed" || !strings.HasSuffix(o.heard[0].Message, "stopped: the disk is of another cluster") {
			t.Errorf("told %+v", o.heard)
		}
	})
}
