package election

import (
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestQuietNetworkCost bounds what forming costs when nothing goes wrong.
func TestQuietNetworkCost(t *testing.T) {
	w := newWorld(t, 5, cluster.QuorumSafe)
	w.bootAll()
	before := map[*server]uint64{}
	for _, s := range w.servers {
		before[s] = s.disk.Seq
	}
	w.meet(w.servers...)
	w.quiet()
	for i, s := range w.servers {
		limit := uint64(5)
		if writes := s.disk.Seq - before[s]; writes > limit {
			t.Errorf("server %d wrote its state %d times until GO, expected at most %d", i, writes, limit)
		}
	}
}
