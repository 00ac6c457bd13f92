package main

import (
	"io"
	"testing"
	"time"
)

// TestAskLeavesAgent: a store starts an agent that keeps its standard output.
func TestAskLeavesAgent(t *testing.T) {
	began := time.Now()
	got, err := ask(t.Context(), streams{err: io.Discard}, []string{"/bin/sh", "-c", "sleep 15 & echo said"})
	if err != nil || string(got) != "said\n" {
		t.Errorf("%q, %v", got, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s: as long as the agent ran", took)
	}
}
