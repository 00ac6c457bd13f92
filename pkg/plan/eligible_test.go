package plan

import (
	"testing"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// What a server is told that may not become a control plane.
func TestWhyNotEligible(t *testing.T) {
	d := device.Device{Hostname: "cp-1.example.net", Tags: []string{"rack1", "muster-role=control-plane"}}
	bare := device.Device{Hostname: "w-1"}
	for name, row := range map[string]struct {
		by   cluster.Eligible
		d    device.Device
		want string
	}{
		"no tags":     {cluster.Eligible{Tag: "rack1"}, bare, "spec.servers.eligible selects servers with the tag rack1, or rack1=control-plane, and it has no tags"},
		"unknown tag": {cluster.Eligible{Tag: "rack"}, d, "spec.servers.eligible selects servers with the tag rack, or rack=control-plane, and its tags are rack1, muster-role=control-plane"},
		"pattern":     {cluster.Eligible{Hostname: "cp-*"}, bare, "spec.servers.eligible selects hostnames like cp-*, and its hostname is w-1"},
		"list":        {cluster.Eligible{List: []string{"cp-1.example.net", "cp-2"}}, bare, "spec.servers.eligible selects cp-1.example.net, cp-2, and its hostname is w-1"},
		"none":        {cluster.Eligible{None: true}, d, "spec.servers.eligible selects no server, for its user-data is that of a worker"},
	} {
		if got, want := WhyNotEligible(row.by, row.d), "this server may not become a control plane: "+row.want; got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}
