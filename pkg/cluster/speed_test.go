package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// longFile is a good file of at least 1,000 lines: as many servers as that takes.
func longFile() string {
	var b strings.Builder
	n := 0
	for ; strings.Count(b.String(), "\n") < 1000; n++ {
		fmt.Fprintf(&b, `    - match: {hostname: server-%d}
      id: id-%d
      hostname: server-%d
      tags: [rack-%d, muster-role=worker]
      addresses:
        - {address: 10.%d.%d.1/31, gateway: 10.%d.%d.0}
        - {address: 2a02:%x:%x::2/64, gateway: "2a02:%x:%x::1", public: true}
      bgpNeighbors:
        - {customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], multihop: true}
`, n, n, n, n/40, n/256, n%256, n/256, n%256, n/256+1, n%256, n/256+1, n%256)
	}
	head := strings.NewReplacer("servers: {expect: 1,", fmt.Sprintf("discovery: [{static: [10.0.0.1, 10.0.1.1]}]\n  servers: {expect: %d,", n)).Replace(staticFile)
	from, to := strings.Index(head, "    - match"), strings.Index(head, "  kubernetes:")
	return head[:from] + b.String() + head[to:]
}

// TestCheckIsFast: 1,000 lines in 50 ms. The limit is generous, because the machine
// is shared and the race detector may be in it; BenchmarkParse measures.
func TestCheckIsFast(t *testing.T) {
	file := longFile()
	best := time.Hour
	for range 5 {
		began := time.Now()
		if _, problems := Parse("c.yaml", []byte(file)); len(problems) > 0 {
			t.Fatal(problems[0])
		}
		best = min(best, time.Since(began))
	}
	if limit := 250 * time.Millisecond; best > limit {
		t.Errorf("%d lines took %s, limit %s", strings.Count(file, "\n"), best, limit)
	}
}

func BenchmarkParse(b *testing.B) {
	file := []byte(longFile())
	b.ReportMetric(float64(strings.Count(string(file), "\n")), "lines")
	for b.Loop() {
		Parse("c.yaml", file)
	}
}
