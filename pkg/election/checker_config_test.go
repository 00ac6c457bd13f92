package election

import (
	"fmt"
	"slices"
	"testing"
)

// decidesIn allows decisions under one configuration only; nil allows none.
func decidesIn(cfg *Config) func([]question) string {
	return func(facts []question) string {
		for _, f := range facts {
			if len(f.m.Decided) > 0 && (cfg == nil || f.m.Config != cfg.Hash()) {
				return "servers decided that have no quorum of their own: " + f.say()
			}
		}
		return oneDecree(facts)
	}
}

// mixed is a case of servers under two configurations: so many under each, and
// so many of those that propose.
func mixed(a, b Config, serversA, serversB, proposersA, proposersB, attempts int) *fenceCase {
	f := &fenceCase{n: a.N, x: serversA + serversB - a.N, q: a.Q, cfgs: []Config{a, b}, proposers: proposersA + proposersB, attempts: attempts}
	m := serversA + serversB
	add := func(cfg, n int, proposes bool) {
		for range n {
			s := serverCase{cfg: cfg, group: cfg}
			if proposes {
				s.tries = [][]int{slices.DeleteFunc(others(m, f.proposers, len(f.servers), m-1), func(j int) bool {
					return !f.cfgs[cfg].votes(fmt.Sprintf("hw%d", j))
				})[:f.cfgs[cfg].Q-1]}
			}
			f.servers = append(f.servers, s)
		}
	}
	add(0, proposersA, true)
	add(1, proposersB, true)
	add(0, serversA-proposersA, false)
	add(1, serversB-proposersB, false)
	return f
}

func electors(q int, hardware ...string) Config {
	c := uniform(len(hardware), q)
	c.Electors = hardware
	return c
}

// TestFenceMixedConfigs searches servers with different user-data among each
// other. They never count each other's votes.
func TestFenceMixedConfigs(t *testing.T) {
	three, five, half := uniform(3, 3), uniform(5, 4), uniform(5, 3)
	named := electors(3, "hw0", "hw1", "hw3")
	for _, x := range []struct {
		name string
		f    *fenceCase
		only *Config // that may decide
	}{
		{"3 of expect 3, 2 of expect 5", mixed(three, five, 3, 2, 2, 1, 3), &three},
		{"2 of expect 3, 2 of expect 4", mixed(three, uniform(4, 3), 2, 2, 2, 1, 3), nil},
		{"3 of expect 5, majority, 2 of expect 3", mixed(half, three, 3, 2, 2, 1, 3), &half},
		{"3 electors, 2 servers with other electors", mixed(named, electors(3, "hw2", "hw3", "hw4"), 3, 2, 2, 1, 3), &named},
		{"3 electors, 2 servers without", mixed(named, half, 3, 2, 2, 1, 3), &named},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.f.title, x.f.holds = x.name, decidesIn(x.only)
			v := x.f.search(t, true, false)
			demand(t, v.cov, "begun", "promised", "nacked", "lost", "crashed")
			if x.only != nil {
				demand(t, v.cov, "accepted", "decided", "learned", "adopted")
			}
		})
	}
	// Where each side has a quorum of its own, no vote can know of the other side.
	t.Run("2 of expect 2, 2 of expect 3, majority", func(t *testing.T) {
		f := mixed(uniform(2, 2), uniform(3, 2), 2, 2, 1, 1, 2)
		f.title = "2 of expect 2, 2 of expect 3, majority"
		f.search(t, false, false)
	})
}

// TestFenceRerendered searches servers whose user-data is rendered anew with other
// numbers while they vote. Who promised anything under the old ones takes no part
// under the new, so the two quorums must share a server, as always.
func TestFenceRerendered(t *testing.T) {
	for _, x := range []struct {
		name  string
		f     *fenceCase
		wipes int
		safe  bool
		deep  bool
	}{
		{"expect 3 to 2", mixed(uniform(3, 2), uniform(2, 2), 2, 1, 1, 1, 2), 0, true, false},
		{"expect 5 to 3, majority", mixed(uniform(5, 4), uniform(3, 2), 4, 1, 1, 1, 2), 0, true, false},
		{"expect 3 to 2, one wiped", mixed(uniform(3, 2), uniform(2, 2), 2, 1, 1, 1, 2), 1, false, true},
		{"expect 4 to 2, majority: the quorums need not meet", mixed(uniform(4, 2), uniform(2, 2), 3, 1, 1, 1, 2), 0, false, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.f.title, x.f.rerender, x.f.wipes = x.name, true, x.wipes
			v := x.f.search(t, x.safe, x.deep)
			demand(t, v.cov, "begun", "promised", "accepted", "decided", "crashed")
		})
	}
}
