package plan

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestLeaveEtcd(t *testing.T) {
	at := netip.MustParseAddr
	up := func(id uint64, name string) EtcdMember {
		return EtcdMember{ID: id, Name: name, Address: at("10.0.0." + name[2:]), Healthy: true}
	}
	down := func(id uint64, name string) EtcdMember { m := up(id, name); m.Healthy = false; return m }
	for _, c := range []struct {
		name    string
		members []EtcdMember
		id      uint64 // 0: not found
		voters  int
		refused string
	}{
		{"one of three, dead", []EtcdMember{up(1, "cp1"), up(2, "cp2"), down(3, "cp3")}, 3, 2, ""},
		{"one of three, alive", []EtcdMember{up(1, "cp1"), up(2, "cp2"), up(3, "cp3")}, 3, 2, ""},
		{"one of two", []EtcdMember{up(1, "cp1"), up(3, "cp3")}, 3, 1, ""},
		{"the only one", []EtcdMember{up(3, "cp3")}, 3, 0, "the only member that votes"},
		{"another of three is off", []EtcdMember{up(1, "cp1"), down(2, "cp2"), up(3, "cp3")}, 3, 2, "1 are healthy and 2 are needed; start first: cp2"},
		{"another of five is off", []EtcdMember{up(1, "cp1"), down(2, "cp2"), down(3, "cp3"), up(4, "cp4"), up(5, "cp5")}, 3, 4, ""},
		{"a learner", []EtcdMember{up(1, "cp1"), {ID: 3, Name: "cp3", Learner: true}}, 3, 1, ""},
		{"another learner counts for nothing", []EtcdMember{{ID: 1, Name: "cp1", Learner: true, Healthy: true}, up(3, "cp3")}, 3, 0, "the only member that votes"},
		{"never started", []EtcdMember{up(1, "cp1"), {ID: 3, Address: at("10.0.0.3"), Learner: true}}, 3, 1, ""},
		{"another that never started", []EtcdMember{up(1, "cp1"), {ID: 3, Address: at("10.0.0.4"), Learner: true}}, 0, 1, ""},
		{"gone already", []EtcdMember{up(1, "cp1"), up(2, "cp2")}, 0, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, voters, found, err := LeaveEtcd(c.members, "cp3", at("10.0.0.3"))
			if m.ID != c.id || found != (c.id != 0) || voters != c.voters {
				t.Errorf("member %d, found %v, %d voters; expected %d and %d voters", m.ID, found, voters, c.id, c.voters)
			}
			if (c.refused != "") != errors.Is(err, ErrEtcdQuorum) || c.refused != "" && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v, expected %q", err, c.refused)
			}
		})
	}
}

func TestOtherLearners(t *testing.T) {
	at := netip.MustParseAddr
	members := []EtcdMember{
		{ID: 1, Name: "cp1", Address: at("10.0.0.1")},
		{ID: 2, Address: at("10.0.0.2"), Learner: true}, // never started
		{ID: 3, Name: "cp3", Address: at("10.0.0.3"), Learner: true},
	}
	for _, c := range []struct {
		name, address string
		want          []uint64
	}{
		{"cp4", "10.0.0.4", []uint64{2, 3}},
		{"cp2", "10.0.0.2", []uint64{3}}, // its own, from an earlier attempt
		{"cp3", "10.0.0.9", []uint64{2}},
		{"cp1", "10.0.0.1", []uint64{2, 3}},
	} {
		var got []uint64
		for _, x := range OtherLearners(members, c.name, at(c.address)) {
			got = append(got, x.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
