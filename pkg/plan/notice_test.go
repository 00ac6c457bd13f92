package plan

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mustermetal/muster/pkg/member"
)

func TestNoticeOf(t *testing.T) {
	status := func(name string, phase member.Phase, role member.Role, problem string) member.Status {
		return member.Status{Member: member.Member{Name: name, Phase: phase, Role: role}, Problem: problem}
	}
	for name, row := range map[string]struct {
		status member.Status
		want   Notice
	}{
		"early":   {status("", member.Metadata, "", "no document"), Notice{"running", 1001, "k8s-bgp/?: metadata"}},
		"joining": {status("w1", member.Joining, member.Worker, ""), Notice{"running", 1008, "k8s-bgp/w1: joining"}},
		"ready":   {status("cp1", member.Ready, member.ControlPlane, ""), Notice{"succeeded", 1009, "k8s-bgp/cp1: ready as control-plane"}},
		"stopped": {status("cp1", member.Stopped, "", "another\n  cluster"), Notice{"failed", 1099, "k8s-bgp/cp1: stopped: another cluster"}},
	} {
		if got := NoticeOf("k8s-bgp", row.status); got != row.want {
			t.Errorf("%s: %+v; want %+v", name, got, row.want)
		}
	}
	long := NoticeOf("k8s-bgp", status("cp1", member.Stopped, "", strings.Repeat("ä", 500)))
	if len(long.Message) > 255 || !utf8.ValidString(long.Message) || !strings.HasSuffix(long.Message, "ä…") {
		t.Errorf("a long message has %d bytes: %s", len(long.Message), long.Message)
	}
	codes := map[int]member.Phase{}
	for phase, code := range noticeCodes {
		if other, twice := codes[code]; twice || code < 1000 || code > 1099 {
			t.Errorf("code %d of %s: also that of %q, or not within 1000 to 1099", code, phase, other)
		}
		codes[code] = phase
	}
}
