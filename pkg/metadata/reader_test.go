package metadata

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/shape"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// link is an interface of the machine; a gateway of its default route may stand
// among the addresses as via=….
func link(name string, addresses ...string) device.Link {
	l := device.Link{Name: name, Own: true}
	for _, a := range addresses {
		if via, ok := strings.CutPrefix(a, "via="); ok {
			l.Defaults = append(l.Defaults, netip.MustParseAddr(via))
			continue
		}
		l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
	}
	return l
}

// machine has files, a name, MAC addresses and links.
func machine(files map[string]string, hostname string, macs []string, links ...device.Link) Machine {
	root := fstest.MapFS{}
	for name, content := range files {
		root[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return Machine{Root: root, Facts: func() (Facts, error) {
		return Facts{Hostname: hostname, Hardware: device.Hardware{MACs: macs}, Links: links}, nil
	}}
}

const seedOfCP1 = "instance-id: iid-1\nlocal-hostname: cp1\n"

func TestStatic(t *testing.T) {
	servers := []cluster.StaticServer{
		{Match: cluster.StaticMatch{Hostname: "CP1"}, ID: "id1", Hostname: "cp1", Tags: []string{"a"},
			Addresses: []cluster.StaticAddress{
				{Address: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
				{Address: netip.MustParsePrefix("147.75.1.3/31"), Gateway: netip.MustParseAddr("147.75.1.2"), Public: true},
			},
			BGPNeighbors: []cluster.StaticNeighbor{
				{CustomerAS: 65000, PeerAS: 65530, CustomerIP: netip.MustParseAddr("fd00::9"), PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::e")}},
				{CustomerAS: 65000, PeerAS: 65530, Multihop: true, MD5: "pw", PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.2"), netip.MustParseAddr("169.254.255.1")}},
			}},
		{Match: cluster.StaticMatch{MAC: "02-00-00-00-00-02"}, Hostname: "w1", Addresses: []cluster.StaticAddress{{Address: netip.MustParsePrefix("10.99.14.11/31")}}},
		{Match: cluster.StaticMatch{Address: "10.99.14.13"}, ID: "id3", Hostname: "w2", Addresses: []cluster.StaticAddress{{Address: netip.MustParsePrefix("10.99.14.13/31")}}},
	}
	want := device.Device{ID: "id1", Hostname: "cp1", Tags: []string{"a"}, Platform: "static",
		Addresses: []device.Address{
			{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")},
			{Prefix: netip.MustParsePrefix("147.75.1.3/31"), Gateway: netip.MustParseAddr("147.75.1.2"), Public: true},
		},
		BGPNeighbors: []device.Neighbor{
			{Family: 4, CustomerAS: 65000, CustomerIP: netip.MustParseAddr("10.99.14.9"), PeerAS: 65530, Multihop: true, MD5: "pw", PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}},
			{Family: 6, CustomerAS: 65000, CustomerIP: netip.MustParseAddr("fd00::9"), PeerAS: 65530, PeerIPs: []netip.Addr{netip.MustParseAddr("fc00::e")}},
		}}
	here := link("bond0", "10.99.14.9/31", "10.99.14.11/31")
	ask := func(hostname, mac string, links ...device.Link) (device.Device, error) {
		r, err := NewReader(cluster.Spec{Platform: cluster.PlatformStatic, Static: servers}, machine(nil, hostname, []string{mac}, links...))
		if err != nil {
			t.Fatal(err)
		}
		return r.Device(t.Context())
	}
	got, err := ask("cp1", "02:00:00:00:00:01", here)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		hostname, mac string
		links         []device.Link
		id, fail      string
	}{
		{"x", "02:00:00:00:00:02", []device.Link{here}, "w1", ""},
		{"x", "02:00:00:00:00:03", []device.Link{link("eth1", "10.99.14.13/31")}, "id3", ""},
		{"x", "02:00:00:00:00:09", nil, "", `none of the 3 servers in spec.static matches this one: hostname "x", MACs 02:00:00:00:00:09, addresses none`},
		{"cp1", "02:00:00:00:00:02", []device.Link{here}, "", "spec.static[0 1] all match this server"},
		{"cp1", "02:00:00:00:00:01", []device.Link{link("eth0", "10.1.1.1/24")}, "", "names the private address 10.99.14.9/31, but this machine has 10.1.1.1/24 on eth0"},
	} {
		d, err := ask(tt.hostname, tt.mac, tt.links...)
		if err == nil && d.ID != tt.id || (err != nil) != (tt.fail != "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
			t.Errorf("%+v: %q, %v; want %q, %q", tt, d.ID, err, tt.id, tt.fail)
		}
	}
}

// TestOverlay: what a platform does not tell comes from spec.static, and the rest
// stays.
func TestOverlay(t *testing.T) {
	all := cluster.StaticServer{Match: cluster.StaticMatch{All: true}, Tags: []string{"rack=1"}, BGPNeighbors: []cluster.StaticNeighbor{
		{CustomerAS: 65000, PeerAS: 65530, Multihop: true, PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1")}}}}
	own := cluster.StaticServer{Match: cluster.StaticMatch{Hostname: "cp1"}, Tags: []string{"muster-role=control-plane"}}
	spec := cluster.Spec{Platform: cluster.PlatformNoCloud, Static: []cluster.StaticServer{own, all}}
	files := map[string]string{"var/lib/cloud/seed/nocloud/meta-data": seedOfCP1}
	r, err := NewReader(spec, machine(files, "debian", nil, link("bond0", "10.99.14.9/31", "via=10.99.14.8")))
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Finding{
		Platform: "nocloud", From: []string{"/var/lib/cloud/seed/nocloud/meta-data"},
		Notes: []string{"spec.static[1] was laid over it", "spec.static[0] was laid over it", "address 10.99.14.9/31 from bond0"},
		Device: device.Device{ID: "iid-1", Hostname: "cp1", Tags: []string{"muster-role=control-plane"}, Platform: "nocloud",
			Addresses:    []device.Address{{Prefix: netip.MustParsePrefix("10.99.14.9/31"), Gateway: netip.MustParseAddr("10.99.14.8")}},
			BGPNeighbors: []device.Neighbor{{Family: 4, CustomerAS: 65000, PeerAS: 65530, Multihop: true, PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1")}}}},
	}
	if diff := cmp.Diff(want, f, byValue); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReaderRefuses: another machine's document, and what nobody tells.
func TestReaderRefuses(t *testing.T) {
	spec := cluster.Spec{Platform: cluster.PlatformNoCloud}
	seed := func(more string) map[string]string {
		return map[string]string{"var/lib/cloud/seed/nocloud/meta-data": seedOfCP1, "var/lib/cloud/seed/nocloud/network-config": more}
	}
	mac := "version: 2\nethernets: {e: {match: {macaddress: '52:54:00:00:00:01'}}}\n"
	for _, tt := range []struct {
		name    string
		machine Machine
		err     string
	}{
		{"another machine's", machine(seed(mac), "x", []string{"52:54:00:00:00:09"}), "describes another server: cp1 (iid-1) has MAC 52:54:00:00:00:01, this machine has 52:54:00:00:00:09"},
		{"no private address", machine(seed(""), "x", nil, link("eth0", "147.75.1.3/31")), "/var/lib/cloud/seed/nocloud/meta-data, /var/lib/cloud/seed/nocloud/network-config has no private address"},
		{"no seed", machine(nil, "x", nil), "no NoCloud seed"},
		{"a drive that nobody mounted", machine(map[string]string{"run/udev/data/b11:0": "E:ID_FS_LABEL=CIDATA\n"}, "x", nil), "a disk is labelled CIDATA, but /run/muster/drive/meta-data is not there: systemctl start muster-drive reads the disk"},
		{"damaged", machine(map[string]string{"var/lib/cloud/seed/nocloud/meta-data": "\t"}, "x", nil), "metadata: /var/lib/cloud/seed/nocloud/meta-data: meta-data: is not understood"},
		{"no facts", Machine{Root: machine(seed(""), "", nil).Root, Facts: func() (Facts, error) { return Facts{}, errors.New("no hostname") }}, "metadata: no hostname"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := NewReader(spec, tt.machine)
			if err != nil {
				t.Fatal(err)
			}
			if d, err := r.Device(t.Context()); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("device %+v, error %v; want one with %q", d, err, tt.err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	yes := true
	spec := cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: "http://m", Deadline: time.Minute, RequireBGP: &yes}}
	if _, policy, err := New(spec, Machine{}); err != nil || !policy.RequireBGP || policy.Deadline != time.Minute {
		t.Errorf("packet: %+v, %v", policy, err)
	}
	spec.Platform, spec.MetadataSource.Deadline = cluster.PlatformStatic, 0
	if _, policy, err := New(spec, Machine{}); err != nil || policy.RequireBGP || policy.Deadline != 5*time.Minute {
		t.Errorf("static: %+v, %v", policy, err)
	}
	spec.Platform = "abacus"
	if _, _, err := New(spec, Machine{}); err == nil || !strings.Contains(err.Error(), `is "abacus"`) {
		t.Errorf("unknown: %v", err)
	}
	for _, s := range shape.All {
		if r, _, err := New(cluster.Spec{Platform: s.Name}, Machine{}); err != nil || r.fetch == nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

func TestCache(t *testing.T) {
	packet, _ := shape.Of("packet")
	for _, name := range []string{"equinix-ibx-ny5-2021-bgp-eip", "packet-old-ewr1-bgp-reconstructed", "equinix-ibx-da11-2022-nobgp"} {
		d, err := packet.Device(shape.Documents{"metadata": []byte(document(t, name))})
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = "packet"
		b, err := Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, again, byValue); diff != "" {
			t.Errorf("%s (-stored +read):\n%s", name, diff)
		}
		if _, err := Unmarshal(b[:len(b)/2]); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("half of it: %v", err)
		}
	}
	if _, err := Unmarshal([]byte(`{"version":2,"device":{"id":"i1"}}`)); err == nil || !strings.Contains(err.Error(), `version 2 with id "i1"; expected version 1`) {
		t.Errorf("another version: %v", err)
	}
}
