package directory

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// Three processes, one of them killed again and again in the middle of writes, as
// power loss does: no row whose claim was answered is lost, and every start ends
// well.
func TestKillLoop(t *testing.T) {
	hosts := newHosts(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	processes := make([]*exec.Cmd, len(hosts))
	for i, h := range hosts {
		if i == 0 {
			processes[0] = h.spawn(t)
		}
		c := claim(i+1, 3)
		c.First = i == 0
		if _, err := hosts[0].client.ClaimRole(ctx, c); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			processes[i] = h.spawn(t)
		}
	}
	acked := []string{"server01", "server02", "server03"}
	next := 4
	for round := range 6 {
		victim := round % 3
		writer := hosts[(round+1)%3]
		stop := writer.write(ctx, next)
		// Once through the victim, so that writes are under way when it dies.
		if _, err := hosts[victim].client.Members(ctx); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		kill(processes[victim])
		processes[victim] = hosts[victim].spawn(t)
		done := stop()
		if len(done) == 0 {
			t.Errorf("round %d: nothing could be written while one of three was away", round)
		}
		acked = append(acked, done...)
		next += len(done) + 1
	}
	for _, h := range hosts {
		h.hasAll(t, acked)
	}
	t.Logf("%d rows were answered, none is lost", len(acked))
}

// write claims roles one after the other, for servers from a number on, until it is
// told to stop; it returns the names whose claims were answered.
func (h *host) write(ctx context.Context, first int) (stop func() []string) {
	ended := make(chan struct{})
	wrote := make(chan []string)
	go func() {
		var done []string
		for n := first; ; n++ {
			select {
			case <-ended:
				wrote <- done
				return
			default:
			}
			c := claim(n, 3)
			if _, err := h.client.ClaimRole(ctx, c); err == nil {
				done = append(done, c.Name)
			}
		}
	}()
	return func() []string {
		close(ended)
		return <-wrote
	}
}

// hasAll checks that a host knows these servers, and three control planes.
func (h *host) hasAll(t *testing.T, acked []string) {
	t.Helper()
	there := strings.Fields(names(t, h))
	for _, name := range acked {
		if !slices.Contains(there, name) {
			t.Errorf("%s: the row of %s is lost", h.config.Address, name)
		}
	}
	if planes := count(t, h)[member.ControlPlane]; planes != 3 {
		t.Errorf("%s: %d control planes, want 3", h.config.Address, planes)
	}
}
