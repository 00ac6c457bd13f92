package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/member"
)

// Resize says what becomes of a cluster with these members that shall have k control
// planes; nothing where it has. ca is the hash of the cluster's CA.
func Resize(rows []member.Member, k int, ca string) []string {
	have := len(controlPlanes(rows))
	switch {
	case have < k:
		return []string{fmt.Sprintf("%d of %d control planes are there: boot %s with user-data from `userdata render --join --ca %s` of this cluster file, which spec.servers.eligible must select; they become control planes, one after the other. Workers that are there stay workers.",
			have, k, servers(k-have), ca)}
	case have == k:
		return nil
	}
	var names []string
	for _, p := range Spared(rows, k) {
		if p.Phase != member.Ready {
			names = append(names, p.Name+" (not ready: if it is off, `bootstrap replace "+p.Name+"` takes out what is left of it, and the others wait for that)")
		} else {
			names = append(names, p.Name)
		}
	}
	return []string{fmt.Sprintf("%d control planes are there, %d shall be. By themselves and one after the other leave: %s. Each is drained and goes as with `bootstrap leave`, for good, where etcd can spare it; bootstrap status says how far it is.",
		have, k, strings.Join(names, ", ")),
		"DANGER: until bootstrap reset, whoever has the disk of one that left has the keys of all CAs."}
}

// Spared are the control planes that leave when there are more than k, in that order:
// who is not ready serves least; of the rest the last by name, which came last where
// names count up. All servers see the same order, so each knows its turn.
func Spared(rows []member.Member, k int) []member.Member {
	planes := controlPlanes(rows)
	slices.SortFunc(planes, func(a, b member.Member) int {
		if x, y := a.Phase == member.Ready, b.Phase == member.Ready; x != y {
			if x {
				return 1
			}
			return -1
		}
		return strings.Compare(b.Name, a.Name)
	})
	return planes[:max(0, len(planes)-k)]
}

func controlPlanes(rows []member.Member) []member.Member {
	var planes []member.Member
	for _, r := range rows {
		if r.Role == member.ControlPlane {
			planes = append(planes, r)
		}
	}
	return planes
}

func servers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}
