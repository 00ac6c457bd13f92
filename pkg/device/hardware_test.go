package device

import (
	"fmt"
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

// TestHWGolden fixes the identities: a later agent that computes others would
// make every server of a formed cluster a stranger.
func TestHWGolden(t *testing.T) {
	h := Hardware{UUID: "4c4c4544-0051-3210-8057-b2c04f4d3533", MACs: []string{"68:05:ca:b8:f1:f9", "68:05:ca:b8:f1:f8"}}
	for _, c := range []struct{ source, id, want string }{
		{SourceAuto, "", "4efb79ee306e60c3f13ae6d55a987c09"},
		{SourceMAC, "", "613810ba094bb2cf83b4b5f683afe5c6"},
		{SourceMetadata, "b45359b0-5a13-454b-82eb-d4959924f9f0", "d6e779de72eaf64f0d080dcc7eec1210"},
	} {
		if got, err := HW(c.source, h, c.id); got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.source, got, err, c.want)
		}
	}
}

// TestUUIDs: what firmware leaves in place of an id is no id, in either byte
// order and any case; what only looks odd is one.
func TestUUIDs(t *testing.T) {
	const mac = "0c:c4:7a:15:dc:06"
	byMAC, err := HW(SourceMAC, Hardware{MACs: []string{mac}}, "")
	if err != nil {
		t.Fatal(err)
	}
	shared, none := "the DMI product UUID is %s, which many machines share", "the DMI product UUID is %q, which is none"
	for uuid, says := range map[string]string{
		"":                                     "there is no DMI product UUID",
		"00000000-0000-0000-0000-000000000000": shared,
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": shared,
		"58585858-5858-5858-5858-585858585858": shared,
		"fefefefe-fefe-fefe-fefe-fefefefefefe": shared,
		"ffffff00-ffff-ffff-ffff-ffffffffffff": shared,
		"56f49712-ffff-ffff-ffff-ffffffffffff": shared,
		"03000200-0400-0500-0006-000700080009": shared,
		"00020003-0004-0005-0006-000700080009": shared, // the same, in the other byte order
		"12345678-1234-5678-90AB-CDDEEFAABBCC": shared,
		"78563412-3412-7856-90ab-cddeefaabbcc": shared, // likewise
		"4C4C4544-0000-2010-8020-80C04F202020": shared,
		"00010203-0405-0607-0809-0a0b0c0d0e0f": shared,
		"6AB5B300-538D-1014-9FB5-B0684D007B53": shared,
		"To be filled by O.E.M.":               none,
		"Not Settable":                         none,
		"Not Specified":                        none,
		"Not Present":                          none,
		"System Serial Number":                 none,
		"Default string":                       none,
		"0123456789":                           none,
		"4c4c4544-0051-3210-8057-b2c04f4d353":  none, // a digit short
		"4c4c4544x0051-3210-8057-b2c04f4d3533": none,
	} {
		said := strings.ToLower(uuid)
		switch says {
		case shared:
			says = fmt.Sprintf(shared, said)
		case none:
			says = fmt.Sprintf(none, said)
		}
		if got, err := HW(SourceAuto, Hardware{UUID: uuid, MACs: []string{mac}}, ""); got != byMAC || err != nil {
			t.Errorf("%q with a MAC: %q, %v; want the id of the MAC", uuid, got, err)
		}
		want := "no hardware identity: " + says + ", and there is no Ethernet link with a permanent MAC address; set spec.identity.source: metadata"
		if _, err := HW(SourceAuto, Hardware{UUID: uuid}, ""); err == nil || err.Error() != want {
			t.Errorf("%q alone:\n got %v\nwant %s", uuid, err, want)
		}
	}
	seen := map[string]string{}
	for _, uuid := range []string{
		"4c4c4544-0051-3210-8057-b2c04f4d3533", // Dell with a service tag
		"00000000-0000-0000-0000-0cc47a15dc06", // Supermicro: its MAC
		"03d40274-0435-05dc-8506-010700080009", // AMI, partly filled
		"fffffffe-ffff-ffff-ffff-fffffffffffe",
	} {
		id, err := HW(SourceAuto, Hardware{UUID: uuid, MACs: []string{mac}}, "")
		if err != nil || id == byMAC || seen[id] != "" {
			t.Errorf("%s: %q, %v", uuid, id, err)
		}
		seen[id] = uuid
	}
}

// TestKeptHW: who voted stays who it was while its source could still say so.
func TestKeptHW(t *testing.T) {
	const a, b, c = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	const uuid, flipped, bad = "4c4c4544-0051-3210-8057-b2c04f4d3533", "44454c4c-5100-1032-8057-b2c04f4d3533", "03000200-0400-0500-0006-000700080009"
	mac := func(m string) string { return hashID("mac", m) }
	for _, tt := range []struct {
		name, source string
		h            Hardware
		id, voted    string
		want, err    string
	}{
		{name: "never voted", source: SourceMAC, h: Hardware{MACs: []string{b, a}}, want: mac(a)},
		{name: "a lower card came up late", source: SourceMAC, h: Hardware{MACs: []string{a, b}}, voted: mac(b), want: mac(b)},
		{name: "the other of two cards was replaced", source: SourceMAC, h: Hardware{MACs: []string{c, b}}, voted: mac(b), want: mac(b)},
		{name: "its card was replaced", source: SourceMAC, h: Hardware{MACs: []string{b, c}}, voted: mac(a), want: mac(b)},
		{name: "all cards are gone", source: SourceMAC, h: Hardware{UUID: uuid}, voted: mac(a), err: "no Ethernet link with a permanent MAC"},
		{name: "cards mean nothing beside a UUID", source: SourceAuto, h: Hardware{UUID: uuid, MACs: []string{c}}, voted: hashID("uuid", uuid), want: hashID("uuid", uuid)},
		{name: "the UUID in the other byte order", source: SourceAuto, h: Hardware{UUID: flipped, MACs: []string{a}}, voted: hashID("uuid", uuid), want: hashID("uuid", uuid)},
		{name: "firmware got a UUID", source: SourceAuto, h: Hardware{UUID: uuid, MACs: []string{a}}, voted: mac(a), want: mac(a)},
		{name: "the agent learned to refuse the UUID", source: SourceAuto, h: Hardware{UUID: bad, MACs: []string{a}}, voted: hashID("uuid", bad), want: hashID("uuid", bad)},
		{name: "another board", source: SourceAuto, h: Hardware{UUID: uuid, MACs: []string{a}}, voted: "other", want: hashID("uuid", uuid)},
		{name: "from auto to mac", source: SourceMAC, h: Hardware{UUID: uuid, MACs: []string{a}}, voted: hashID("uuid", uuid), want: mac(a)},
		{name: "another device of the platform", source: SourceMetadata, h: Hardware{UUID: uuid, MACs: []string{a}}, id: "i2", voted: hashID("metadata", "i1"), want: hashID("metadata", "i2")},
		{name: "from auto to metadata", source: SourceMetadata, h: Hardware{UUID: uuid}, id: "i1", voted: hashID("uuid", uuid), want: hashID("metadata", "i1")},
	} {
		got, err := KeptHW(tt.source, tt.h, tt.id, tt.voted)
		if got != tt.want || (err != nil) != (tt.err != "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %q, %v; want %q, error with %q", tt.name, got, err, tt.want, tt.err)
		}
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
