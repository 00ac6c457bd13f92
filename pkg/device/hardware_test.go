package device

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHW(t *testing.T) {
	const uuid = "4C4C4544-0050-3510-8052-B4C04F564433"
	byUUID, err := HW(SourceAuto, Hardware{UUID: uuid}, "")
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(byUUID) {
		t.Fatalf("HW = %q, %v", byUUID, err)
	}
	byMAC, err := HW(SourceMAC, Hardware{MACs: []string{"0c:c4:7a:15:dc:07", "0C-C4-7A-15-DC-06"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, source string
		h            Hardware
		id           string
		want, err    string
	}{
		{name: "UUID in any case", source: SourceAuto, h: Hardware{UUID: strings.ToLower(uuid) + "\n", MACs: []string{"0c:c4:7a:15:dc:06"}}, want: byUUID},
		{name: "no source is auto", h: Hardware{UUID: uuid}, want: byUUID},
		{name: "lowest MAC", source: SourceMAC, h: Hardware{UUID: uuid, MACs: []string{"0c:c4:7a:15:dc:06"}}, want: byMAC},
		{name: "zeros", source: SourceAuto, h: Hardware{UUID: "00000000-0000-0000-0000-000000000000", MACs: []string{"0c:c4:7a:15:dc:06"}}, want: byMAC},
		{name: "ones", source: SourceAuto, h: Hardware{UUID: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", MACs: []string{"0c:c4:7a:15:dc:06"}}, want: byMAC},
		{name: "prose", source: SourceAuto, h: Hardware{UUID: "To be filled by O.E.M.", MACs: []string{"0c:c4:7a:15:dc:06"}}, want: byMAC},
		{name: "AMI default, no MAC", source: SourceAuto, h: Hardware{UUID: "03000200-0400-0500-0006-000700080009"}, err: "which many machines share, and there is no Ethernet link"},
		{name: "only useless MACs", source: SourceMAC, h: Hardware{MACs: []string{"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "x"}}, err: "no Ethernet link with a permanent MAC"},
		{name: "no metadata id", source: SourceMetadata, h: Hardware{UUID: uuid}, err: "the metadata has no id"},
		{name: "unknown", source: "serial", err: `is "serial"; expected auto, mac or metadata`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := HW(tt.source, tt.h, tt.id)
			if got != tt.want || (err != nil) != (tt.err != "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("HW = %q, %v; want %q, error with %q", got, err, tt.want, tt.err)
			}
		})
	}
	// The kind is part of the hash.
	byID, err := HW(SourceMetadata, Hardware{}, strings.ToLower(uuid))
	if err != nil || byID == byUUID {
		t.Errorf("the metadata id and the UUID %s make the same hardware id (%v)", uuid, err)
	}
}

func TestSameHardware(t *testing.T) {
	tests := []struct {
		name       string
		before, id string
		macs, now  []string
		want       bool
	}{
		{"same", "a", "a", []string{"02:00:00:00:00:01"}, []string{"02:00:00:00:00:01"}, true},
		{"one link replaced", "a", "a", []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}, []string{"02:00:00:00:00:02", "02:00:00:00:00:03"}, true},
		{"other id", "a", "b", []string{"02:00:00:00:00:01"}, []string{"02:00:00:00:00:01"}, false},
		{"clone on a board with the same UUID", "a", "a", []string{"02:00:00:00:00:01"}, []string{"02:00:00:00:00:09"}, false},
		{"no MAC known then", "a", "a", nil, []string{"02:00:00:00:00:01"}, true},
		{"no MAC known now", "a", "a", []string{"02:00:00:00:00:01"}, nil, true},
		{"no id", "", "", nil, nil, false},
	}
	for _, tt := range tests {
		if got := SameHardware(tt.before, Hardware{MACs: tt.macs}, tt.id, Hardware{MACs: tt.now}); got != tt.want {
			t.Errorf("%s: %v; want %v", tt.name, got, tt.want)
		}
	}
}

func TestDescribes(t *testing.T) {
	d := Device{ID: "i1", Hostname: "cp1", MACs: []string{"02:00:00:00:00:01"}}
	if err := d.Describes(Hardware{MACs: []string{"02:00:00:00:00:02"}}); err == nil || !strings.Contains(err.Error(), "describes another server: cp1 (i1)") {
		t.Errorf("a former owner's document: %v", err)
	}
	for _, h := range []Hardware{{}, {MACs: []string{"02-00-00-00-00-01"}}} {
		if err := d.Describes(h); err != nil {
			t.Errorf("%v: %v", h, err)
		}
	}
}

func TestNodeName(t *testing.T) {
	for hostname, want := range map[string]string{
		"cp1": "cp1", "CP1.example.net.": "cp1.example.net", " w-2\n": "w-2", "10": "10",
	} {
		if got, err := NodeName(hostname); got != want || err != nil {
			t.Errorf("NodeName(%q) = %q, %v; want %q", hostname, got, err, want)
		}
	}
	for hostname, want := range map[string]string{
		"": "is empty", "localhost": "names every server", "localhost.localdomain": "names every server",
		"cp_1": `'_' is none of a-z`, "-cp": "starts or ends with a hyphen", "cp..x": "empty part",
		strings.Repeat("a", 64): "at most 63",
	} {
		if got, err := NodeName(hostname); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NodeName(%q) = %q, %v; want an error with %q", hostname, got, err, want)
		}
	}
	dns1123 := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	rapid.Check(t, func(t *rapid.T) {
		name, err := NodeName(rapid.StringMatching(`[-a-zA-Z0-9._ é]{0,70}`).Draw(t, "hostname"))
		if err == nil && (!dns1123.MatchString(name) || len(name) > 63) {
			t.Fatalf("accepted %q", name)
		}
	})
}
