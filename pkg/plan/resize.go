package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/member"
)

// Resize says what an operator does so that a cluster with these members has k control
// planes; nothing where it has. self is the server that says it, which goes last. ca is
// the hash of the cluster's CA.
func Resize(rows []member.Member, k int, self, ca string) []string {
	var planes []member.Member
	for _, r := range rows {
		if r.Role == member.ControlPlane {
			planes = append(planes, r)
		}
	}
	have := len(planes)
	switch {
	case have < k:
		return []string{fmt.Sprintf("%d of %d control planes are there: boot %s with user-data from `userdata render --join --ca %s` of this cluster file, which spec.servers.eligible must select; they become control planes, one after the other. Workers that are there stay workers.",
			have, k, servers(k-have), ca)}
	case have == k:
		return nil
	}
	// Who is not ready serves least; of the rest the last by name, which came last where
	// names count up.
	slices.SortFunc(planes, func(a, b member.Member) int {
		if x, y := leaves(a, self), leaves(b, self); x != y {
			return x - y
		}
		return strings.Compare(b.Name, a.Name)
	})
	var names []string
	for _, p := range planes[:have-k] {
		names = append(names, p.Name)
	}
	return []string{fmt.Sprintf("%d control planes are there, %d shall be: none goes by itself. Run `bootstrap leave` on them, one after the other, in this order: %s; it asks etcd whether a majority stays, and of one that is off `bootstrap replace` takes out what is left.",
		have, k, strings.Join(names, ", "))}
}

// leaves orders control planes by who can be spared.
func leaves(m member.Member, self string) int {
	switch {
	case m.Inst == self:
		return 2
	case m.Phase == member.Ready:
		return 1
	}
	return 0
}

func servers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}
