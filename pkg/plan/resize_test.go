package plan

import (
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/member"
)

func TestResize(t *testing.T) {
	row := func(name string, role member.Role, phase member.Phase) member.Member {
		return member.Member{Inst: "inst-" + name, Name: name, Role: role, Phase: phase}
	}
	three := []member.Member{row("cp1", member.ControlPlane, member.Ready), row("cp2", member.ControlPlane, member.Ready),
		row("cp3", member.ControlPlane, member.Ready), row("w1", member.Worker, member.Ready)}
	off := append([]member.Member{row("cp0", member.ControlPlane, member.Waiting)}, three...)
	for _, test := range []struct {
		name, self string
		rows       []member.Member
		k          int
		want       string // in the one sentence; empty: there is none
	}{
		{"as it shall be", "inst-cp1", three, 3, ""},
		{"one more", "inst-cp1", three[1:], 3, "2 of 3 control planes are there: boot 1 server with user-data from `userdata render --join --ca sha256:aa`"},
		{"two more", "inst-cp1", three[:1], 3, "1 of 3 control planes are there: boot 2 servers with"},
		{"the last by name goes first", "inst-cp1", three, 1, "3 control planes are there, 1 shall be: none goes by itself. Run `bootstrap leave` on them, one after the other, in this order: cp3, cp2;"},
		{"this server goes last", "inst-cp3", three, 1, "in this order: cp2, cp1;"},
		{"who is not ready goes first", "inst-cp1", off, 3, "in this order: cp0;"},
	} {
		got := strings.Join(Resize(test.rows, test.k, test.self, "sha256:aa"), "\n")
		if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
}
