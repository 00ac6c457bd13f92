package election

import (
	"fmt"
	"math/bits"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestAbsences tries every set of absent servers in small clusters: servers
// 0..eligible-1 may lead; the voters are all, or as many from the other end.
func TestAbsences(t *testing.T) {
	for expect := 1; expect <= 8; expect++ {
		for voters := 1; voters <= expect; voters++ {
			for eligible := 1; eligible <= expect; eligible++ {
				for _, rule := range []string{cluster.QuorumSafe, cluster.QuorumMajority} {
					c := Config{N: voters, Q: Quorum(voters, rule)}
					tried, said := enumerated(c, expect, 3, eligible), Absences(c, expect, 3, eligible)
					for k := range said { // it is not known which of the voters may lead: then it may say less
						if voters < expect && said[k].Forms == Depends {
							said[k].Forms = tried[k].Forms
						}
						if voters < expect && said[k].ByMajority == Depends {
							said[k].ByMajority = tried[k].ByMajority
						}
					}
					if diff := cmp.Diff(tried, said); diff != "" {
						t.Fatalf("expect %d, %d voters, %d eligible, %s (-tried +said):\n%s", expect, voters, eligible, rule, diff)
					}
				}
			}
		}
	}
}

// enumerated is Absences by trying.
func enumerated(c Config, expect, controlPlanes, eligible int) []Absence {
	out := make([]Absence, expect+1)
	counts := make([][3]int, expect+1) // sets in all, that form, that form by majority
	for k := range out {
		out[k] = Absence{Absent: k, ControlPlanes: [2]int{expect, 0}}
	}
	for absent := range 1 << expect {
		here := ^absent & (1<<expect - 1)
		k := bits.OnesCount(uint(absent))
		votes := bits.OnesCount(uint(here >> (expect - c.N)))
		leaders := bits.OnesCount(uint(here & (1<<eligible - 1)))
		counts[k][0]++
		if votes >= c.Q && leaders > 0 {
			counts[k][1]++
		}
		if votes >= Majority(c.N) && leaders > 0 {
			counts[k][2]++
		}
		a := &out[k]
		a.Missing = max(a.Missing, c.Q-votes)
		a.ControlPlanes = [2]int{min(a.ControlPlanes[0], leaders, controlPlanes), max(a.ControlPlanes[1], min(leaders, controlPlanes))}
	}
	said := func(some, all int) Answer {
		switch some {
		case 0:
			return Never
		case all:
			return Always
		}
		return Depends
	}
	for k := range out {
		out[k].Forms, out[k].ByMajority = said(counts[k][1], counts[k][0]), said(counts[k][2], counts[k][0])
	}
	return out
}

func ExampleAbsences() {
	for _, a := range Absences(Config{N: 5, Q: 4}, 5, 3, 5) {
		fmt.Println(a.Absent, a.Forms, a.ByMajority, a.ControlPlanes)
	}
	// Output:
	// 0 always always [3 3]
	// 1 always always [3 3]
	// 2 never always [3 3]
	// 3 never never [2 2]
	// 4 never never [1 1]
	// 5 never never [0 0]
}
