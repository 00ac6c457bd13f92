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
		name string
		rows []member.Member
		k    int
		want string // in the first sentence; empty: there is none
	}{
		{"as it shall be", three, 3, ""},
		{"one more", three[1:], 3, "2 of 3 control planes are there: boot 1 server with user-data from `userdata render --join --ca sha256:aa`"},
		{"two more", three[:1], 3, "1 of 3 control planes are there: boot 2 servers with"},
		{"the last by name goes first", three, 1, "3 control planes are there, 1 shall be. By themselves and one after the other leave: cp3, cp2. Each"},
		{"who is not ready goes first", off, 3, "leave: cp0 (not ready: if it is off, `bootstrap replace cp0`"},
	} {
		got := strings.Join(Resize(test.rows, test.k, "sha256:aa"), "\n")
		if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
	if got := Spared(three, 5); len(got) > 0 {
		t.Errorf("%v leave where there are too few", got)
	}
}
