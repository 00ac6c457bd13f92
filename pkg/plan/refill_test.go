package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
)

func TestRefill(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	record := func(inst, name string, n byte, role member.Role) member.Record {
		return member.Record{Inst: inst, HW: "hw-" + inst, Name: name, Address: at(n), Role: role, Key: "sha256:" + inst}
	}
	cp1, cp2, w1 := record("a", "cp1", 1, member.ControlPlane), record("b", "cp2", 2, member.ControlPlane), record("c", "w1", 3, member.Worker)
	cp1.First = true
	ready := func(r member.Record) member.Record { r.Phase = member.Ready; return r }
	nodes := []ClusterNode{{"w1", at(3), false}, {"cp2", at(2), true}, {"cp1", at(1), true}}
	unknown := func(name string, n byte, role member.Role) member.Record {
		return member.Record{Inst: member.UnknownInst(name), HW: member.UnknownHW, Name: name, Address: at(n), Role: role, Phase: member.Ready}
	}
	impostor := record("a", "w9", 9, member.Worker)
	namesake := record("z", "cp2", 8, member.Worker)
	doubleFirst := cp2
	doubleFirst.First = true
	gone := member.Record{Inst: "b", HW: "hw-b", Name: "cp2", Address: at(2), First: true, Removed: true}
	again := record("n", "cp2", 2, member.ControlPlane)
	for _, test := range []struct {
		name    string
		records []member.Record
		nodes   []ClusterNode
		want    []member.Record
	}{
		{"all are known", []member.Record{w1, cp2, cp1}, nodes, []member.Record{ready(cp1), ready(cp2), ready(w1)}},
		{"one is on its way", []member.Record{w1, cp2, cp1}, nodes[1:], []member.Record{ready(cp1), ready(cp2), w1}},
		{"some are unknown", []member.Record{cp1}, nodes, []member.Record{ready(cp1), unknown("cp2", 2, member.ControlPlane), unknown("w1", 3, member.Worker)}},
		{"an instance twice", []member.Record{impostor, cp1}, nodes[2:], []member.Record{ready(cp1)}},
		{"a name twice", []member.Record{namesake, cp2}, nodes[1:2], []member.Record{ready(cp2)}},
		{"the first place twice", []member.Record{cp1, doubleFirst}, nil, []member.Record{cp1, cp2}},
		{"removed, its node not yet deleted", []member.Record{cp1, gone}, []ClusterNode{{"cp2", at(2), true}}, []member.Record{gone, cp1}},
		{"removed, and back under the same name", []member.Record{gone, again, cp1}, nodes[1:2], []member.Record{gone, cp1, ready(again)}},
		{"removed, and a stale record", []member.Record{cp2, gone}, nil, []member.Record{gone}},
		{"a node without address", nil, []ClusterNode{{Name: "w2"}}, nil},
		{"nothing", nil, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Refill(test.records, test.nodes)
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Transformer("empty", func(l []member.Record) []member.Record {
				if len(l) == 0 {
					return nil
				}
				return l
			})); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompareRecords(t *testing.T) {
	record := func(inst, name string) member.Record {
		return member.Record{Inst: inst, Name: name, Role: member.Worker}
	}
	a, b, c := record("a", "w1"), record("b", "w2"), record("c", "w3")
	moved := b
	moved.Address = netip.MustParseAddr("10.0.0.9")
	unknown := record(member.UnknownInst("w3"), "w3")
	for _, test := range []struct {
		name             string
		directory, kept  []member.Record
		missing, changed []member.Record
	}{
		{"same", []member.Record{a, b}, []member.Record{b, a}, nil, nil},
		{"new", []member.Record{a, b}, []member.Record{a}, nil, []member.Record{b}},
		{"moved", []member.Record{a, moved}, []member.Record{a, b}, nil, []member.Record{moved}},
		{"missing", []member.Record{a}, []member.Record{b, a}, []member.Record{b}, nil},
		{"a node without instance, and it is known", []member.Record{unknown}, []member.Record{c}, []member.Record{c}, nil},
		{"a node without instance", []member.Record{a, unknown}, []member.Record{a}, nil, nil},
		{"reinstalled", []member.Record{record("d", "w1")}, []member.Record{a}, []member.Record{a}, []member.Record{record("d", "w1")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			missing, changed := CompareRecords(test.directory, test.kept)
			if diff := cmp.Diff([][]member.Record{test.missing, test.changed}, [][]member.Record{missing, changed}, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("missing and changed (-want +got):\n%s", diff)
			}
		})
	}
}
