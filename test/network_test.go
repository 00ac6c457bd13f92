package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/shape"
	"github.com/mustermetal/muster/pkg/speakers"
)

var update = flag.Bool("update", false, "write the golden files")

// TestNetworkExamples renders the examples of docs/network.md with the metadata
// that each names: what a server does by itself, what its speaker is told, and the
// objects of the others.
func TestNetworkExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)<!-- example: ([a-z]+\\.yaml), ([a-z0-9-]+\\.json) -->\n```yaml\n(.*?)```\n").FindAllStringSubmatch(string(page), -1)
	if len(examples) != 4 {
		t.Fatalf("docs/network.md has %d examples, expected 4", len(examples))
	}
	for _, e := range examples {
		name, document := e[1], e[2]
		t.Run(name, func(t *testing.T) {
			c, problems := cluster.Parse(name, []byte(e[3]))
			if len(problems) > 0 {
				t.Fatalf("userdata check would say: %v", problems)
			}
			raw, err := os.ReadFile("../pkg/shape/testdata/packet/" + document)
			if err != nil {
				t.Fatal(err)
			}
			packet, _ := shape.Of(cluster.PlatformPacket)
			d, err := packet.Device(shape.Documents{"metadata": raw})
			if err != nil {
				t.Fatal(err)
			}
			got, path := renderNetwork(t, c.Spec, d), filepath.Join("testdata", "network", name)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// renderNetwork is all that comes of a cluster file on one control plane.
func renderNetwork(t *testing.T, spec cluster.Spec, d device.Device) string {
	t.Helper()
	var b strings.Builder
	for _, r := range plan.ToRRoutes(d) {
		fmt.Fprintf(&b, "# ip route %s via %s src %s\n", r.Dst, r.Via, r.Src)
	}
	var documents []speakers.Document
	a := plan.AnnouncementFor(spec, d, strings.Repeat("0", 32))
	switch spec.Network.BGP.ControlPlane {
	case cluster.SpeakerBuiltin:
		for i := range a.Peers {
			a.Peers[i].Password = "" // which the plan of a server has, and no page
		}
		text, err := json.MarshalIndent(a, "# ", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "# muster-announce is told\n# %s\n", text)
	case cluster.SpeakerKubeVIP:
		pod, err := speakers.KubeVIP(spec, d, a.RouterID)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, pod)
	}
	node, err := device.NodeName(d.Hostname)
	if err != nil {
		t.Fatal(err)
	}
	services, err := speakers.Services(spec, []speakers.Server{{Node: node, Device: d}})
	if (err != nil) != (spec.Network.BGP.Services == cluster.ServicesNone) {
		t.Fatalf("services %s: %v", spec.Network.BGP.Services, err)
	}
	if err != nil {
		fmt.Fprintf(&b, "# bootstrap net render: %v\n", err)
	}
	out, err := speakers.Marshal(append(documents, services...))
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(out)
}
