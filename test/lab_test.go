package test

import (
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/metadata"
	lab "github.com/mustermetal/muster/test/rig/metadata"
)

// lookAtLab serves the inventory of the page, and asks as each of its servers does.
func lookAtLab(t *testing.T, dir string) {
	path := filepath.Join(dir, "lab.yaml")
	servers, err := lab.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		service := lab.Service{Inventory: path, Neighbour: func(netip.Addr) string { return s.MACs[0] }}
		server := httptest.NewServer(service.Handler())
		defer server.Close()
		facts := metadata.Facts{Hardware: device.Hardware{MACs: s.MACs}, Links: []device.Link{{Name: "bond0", Own: true}}}
		for _, a := range s.Addresses {
			facts.Links[0].Addresses = append(facts.Links[0].Addresses, a.Address)
		}
		spec := cluster.Spec{Platform: cluster.PlatformAuto, MetadataSource: cluster.MetadataSource{URL: server.URL}}
		r, err := metadata.NewReader(spec, metadata.Machine{Root: fstest.MapFS{}, Facts: func() (metadata.Facts, error) { return facts, nil }})
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.Read(t.Context())
		want := lab.Packet
		if len(s.Forms) > 0 {
			want = s.Forms[0]
		}
		if err != nil || f.Platform != want || f.Device.ID != s.ID || f.Device.Hostname != s.Hostname || len(f.Missing) > 0 {
			t.Errorf("%s: %+v, %v", s.Hostname, f, err)
		}
	}
}
