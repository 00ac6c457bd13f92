package main

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

func TestView(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	status, err := json.Marshal(map[string]any{"version": 1, "servers": []member.Status{
		{
			Member: member.Member{Name: "cp1", Address: netip.MustParseAddr("10.66.0.3"), Role: member.ControlPlane, Phase: member.Ready},
			Since:  now.Add(-12 * time.Second), Time: now,
		},
		{
			Member: member.Member{Name: "w1", Address: netip.MustParseAddr("10.66.0.5"), Phase: member.Waiting},
			Since:  now.Add(-90 * time.Second), Time: now, Waiting: "for the first control plane, which initialises",
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	servers := []*rig.Server{
		{Name: "cp1", Addr: netip.MustParseAddr("10.66.0.3")},
		{Name: "w1", Addr: netip.MustParseAddr("10.66.0.5")},
	}
	v := assemble(servers, statuses(status), []rig.Node{{Name: "cp1", Ready: true}})
	if v.ready != 1 {
		t.Errorf("%d nodes are ready; want 1", v.ready)
	}
	want := `SERVER  ADDRESS    ROLE           PHASE    SINCE  NODE   WAITS FOR
cp1     10.66.0.3  control-plane  ready    12s    Ready
w1      10.66.0.5  -              waiting  90s    -      for the first c…
1 of 2 nodes Ready, 34 s after power-on
`
	if diff := cmp.Diff(want, render(v, 34*time.Second, 73)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if got, want := v.rows[1].line(), "w1    waiting        no role yet   node -  (for the first control plane, which initialises)"; got != want {
		t.Errorf("line %q; want %q", got, want)
	}
	if got := statuses([]byte("no JSON")); len(got) != 0 {
		t.Errorf("status that is no JSON gives %v", got)
	}
}
