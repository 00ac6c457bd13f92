package plan

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// Each condition keeps the place alone; when all hold it is given.
func TestSuccession(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	good := func() Succession {
		return Succession{
			Old: member.Member{Inst: "a1", Name: "cp2", Address: at(2)}, At: at(2), From: at(2), Silent: 10 * time.Minute,
			Etcd: []EtcdMember{{Name: "cp1", Address: at(1), Healthy: true}, {Name: "cp2", Address: at(2)}, {Name: "cp3", Address: at(3), Healthy: true}},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Succession)
		want   string
	}{
		{"all holds", func(*Succession) {}, ""},
		{"by the operator", func(s *Succession) { s.By = cluster.ReplaceOperator }, "bootstrap replace cp2 on a control plane gives it"},
		{"in sight", func(s *Succession) { s.InSight = true }, "is in sight at 10.0.0.2"},
		{"a second too early", func(s *Succession) { s.Silent -= time.Second }, "out of sight for 10m0s, now 9m59s; at once: bootstrap replace cp2"},
		{"a shorter time", func(s *Succession) { s.Silent, s.After = 2*time.Minute, 2*time.Minute }, ""},
		{"a longer time", func(s *Succession) { s.After = time.Hour }, "for 1h0m0s, now 10m0s"},
		{"says another address", func(s *Succession) { s.At = at(9) }, "now it is 10.0.0.9 and calls from 10.0.0.2"},
		{"calls from another address", func(s *Succession) { s.From = at(9) }, "calls from 10.0.0.9"},
		{"its etcd answers", func(s *Succession) { s.Etcd[1].Healthy = true }, "the etcd of its former life answers"},
		{"another etcd is ill", func(s *Succession) { s.Etcd[2].Healthy = false }, "not yet: cp3"},
		{"another is a learner", func(s *Succession) { s.Etcd[2].Learner = true }, "not yet: cp3"},
		{"one has not started", func(s *Succession) { s.Etcd = append(s.Etcd, EtcdMember{Address: at(4), Learner: true}) }, "not yet: 10.0.0.4"},
		{"its own had not started", func(s *Succession) { s.Etcd[1].Name, s.Etcd[1].Learner = "", true }, ""},
		{"a worker", func(s *Succession) { s.Etcd = s.Etcd[:1] }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.change(&s)
			if got := s.Wait(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%q, expected %q", got, c.want)
			}
		})
	}
}
