package userdata

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestThousandServers holds the budget, 1 s for all, in processor time: what else
// this machine does is no part of it.
func TestThousandServers(t *testing.T) {
	all := load(t, staticFile(1000, "10.0.0.0"))
	for _, format := range Formats {
		began, clock := processorTime(t), time.Now()
		for i := range 1000 {
			own, err := Server{Name: fmt.Sprintf("s%d", i+1)}.Of(all)
			if err != nil {
				t.Fatal(err)
			}
			mustRender(t, own, format)
		}
		took := processorTime(t) - began
		t.Logf("%s: %s of processor time, %s by the clock", format, took.Round(time.Millisecond), time.Since(clock).Round(time.Millisecond))
		if took > time.Second {
			t.Errorf("%s: %s for 1000 servers, budget 1 s", format, took)
		}
	}
}

// processorTime is what this process used so far, its garbage collector included.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
