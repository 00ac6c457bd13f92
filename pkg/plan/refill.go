package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/mustermetal/muster/pkg/member"
)

// ClusterNode is a node as Kubernetes knows it.
type ClusterNode struct {
	Name         string
	Address      netip.Addr // InternalIP
	ControlPlane bool       // has the label
}

// Refill gives the rows of a new generation of the directory: the records that
// Kubernetes keeps of the members, and for each node that none of them names a row
// that keeps its name and, for a control plane, its place. A removed member's node
// that nobody deleted yet keeps nothing.
func Refill(records []member.Record, nodes []ClusterNode) []member.Record {
	rows := slices.Clone(records)
	known := map[string]bool{}
	for _, r := range records {
		known[r.Name] = true
	}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
		if known[n.Name] || !n.Address.IsValid() {
			continue
		}
		role := member.Worker
		if n.ControlPlane {
			role = member.ControlPlane
		}
		rows = append(rows, member.Record{Inst: member.UnknownInst(n.Name), HW: member.UnknownHW, Name: n.Name, Address: n.Address, Role: role})
	}
	// Those removed first, then control planes: where two records claim one instance or one name, it is
	// theirs.
	slices.SortFunc(rows, func(a, b member.Record) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Inst, b.Inst))
	})
	taken := map[string]bool{}
	rows = slices.DeleteFunc(rows, func(r member.Record) bool {
		double := taken["inst "+r.Inst] || !r.Removed && taken["name "+r.Name]
		taken["inst "+r.Inst] = true
		if !r.Removed {
			taken["name "+r.Name] = true
		}
		return double
	})
	first := false
	for i := range rows {
		rows[i].Phase = ""
		if rows[i].Removed {
			continue
		}
		rows[i].First, first = rows[i].First && !first, first || rows[i].First
		if there[rows[i].Name] {
			rows[i].Phase = member.Ready
		}
	}
	return rows
}

// CompareRecords says what the directory lacks of the records that Kubernetes
// keeps, and which records Kubernetes lacks or has otherwise.
func CompareRecords(directory, kept []member.Record) (missing, changed []member.Record) {
	known, insts := map[string]member.Record{}, map[string]bool{}
	for _, r := range kept {
		r.Phase = ""
		known[r.Inst] = r
	}
	for _, r := range directory {
		if r.Inst == member.UnknownInst(r.Name) {
			continue
		}
		insts[r.Inst] = true
		if was, ok := known[r.Inst]; !ok || was != r {
			changed = append(changed, r)
		}
	}
	for _, r := range kept {
		if !insts[r.Inst] {
			missing = append(missing, r)
		}
	}
	slices.SortFunc(missing, func(a, b member.Record) int { return cmp.Compare(a.Inst, b.Inst) })
	return missing, changed
}
