package cluster

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// equal compares clusters; an empty list means the same as none.
var equal = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func mustParse(t *testing.T, file string) Cluster {
	t.Helper()
	c, problems := Parse("c.yaml", []byte(file))
	if err := Err(problems); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	s := mustParse(t, good).Spec
	yes := true
	want := Spec{
		ID: s.ID, Platform: "packet", Servers: s.Servers, Discovery: s.Discovery, Kubernetes: s.Kubernetes,
		MetadataSource: MetadataSource{URL: "http://169.254.169.254", Deadline: 5 * time.Minute, RequireBGP: &yes},
		Identity:       Identity{Source: "auto"}, Time: TimePolicy{Require: "auto"},
		Network: Network{ElasticIPs: s.Network.ElasticIPs, BGP: BGP{ControlPlane: SpeakerBuiltin, Services: ServicesNone}, Firewall: Firewall{Mode: FirewallAuto}},
		Ports:   Ports{9760, 9761, 9762, 9763},
	}
	if diff := cmp.Diff(want, s, equal); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if s.Servers.Quorum != QuorumSafe || s.Kubernetes.DNSDomain != "cluster.local" {
		t.Errorf("quorum %q, domain %q", s.Servers.Quorum, s.Kubernetes.DNSDomain)
	}
	s = mustParse(t, staticFile).Spec
	if s.Network.BGP.ControlPlane != SpeakerNone || s.MetadataSource != (MetadataSource{}) {
		t.Errorf("static without Elastic IPs: speaker %q, metadata %+v", s.Network.BGP.ControlPlane, s.MetadataSource)
	}
	if got := fmt.Sprint(s.Kubernetes.PodSubnets, s.Kubernetes.ServiceSubnets); got != "[172.16.0.0/12] [192.168.0.0/16]" {
		t.Errorf("ranges %s", got)
	}
}

func TestEndpointForms(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"endpoint: 147.75.194.92:6443":                                 {Address: "147.75.194.92:6443"},
		"endpoint: {address: 147.75.194.92:6443}":                      {Address: "147.75.194.92:6443"},
		"endpoint: {address: \"api.example.net:443\", external: true}": {Address: "api.example.net:443", External: true},
	} {
		c := mustParse(t, strings.Replace(good, "endpoint: 147.75.194.92:6443", text, 1))
		if c.Spec.Kubernetes.Endpoint != want {
			t.Errorf("%s: %+v, want %+v", text, c.Spec.Kubernetes.Endpoint, want)
		}
	}
	host, port, ok := Endpoint{Address: "[2604:1380::1]:6443"}.HostPort()
	if host != "2604:1380::1" || port != 6443 || !ok {
		t.Errorf("HostPort: %q %d %v", host, port, ok)
	}
}

func TestSecret(t *testing.T) {
	s, err := NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	if err != nil || len(s) != 44 {
		t.Fatalf("NewSecret: %d characters, %v", len(s), err)
	}
	if _, err := NewSecret(strings.NewReader("short")); err == nil {
		t.Error("NewSecret of too few random bytes succeeded")
	}
	for _, shown := range []string{fmt.Sprintf("%v %s %q %+v %#v", s, s, s, struct{ S Secret }{s}, s), fmt.Sprint(s.LogValue())} {
		if strings.Contains(shown, s.Reveal()) || !strings.Contains(shown, "[redacted]") {
			t.Errorf("the secret shows: %s", shown)
		}
	}
	if got, err := ParseSecret([]byte("# a comment\n" + s.Reveal() + "\n")); got != s || err != nil {
		t.Errorf("ParseSecret: %v", err)
	}
	for _, bad := range []string{"", "# only\n", "a\nb\n", "aGVsbG8=", "hunter2!"} {
		if _, err := ParseSecret([]byte(bad)); err == nil {
			t.Errorf("ParseSecret accepted %q", bad)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aGVsbG8=") {
			t.Errorf("the error shows the value: %v", err)
		}
	}
	id, err := NewID(bytes.NewReader(make([]byte, 16)))
	if err != nil || !isHex(id, 32) {
		t.Errorf("NewID: %q, %v", id, err)
	}
}

func TestParseServer(t *testing.T) {
	secret, _ := NewSecret(bytes.NewReader(make([]byte, 32)))
	c := mustParse(t, good)
	for _, row := range []struct {
		secret Secret
		want   []string
	}{
		{secret, nil},
		{"", []string{"1:1: secret: is missing (`userdata render` adds it; was this file copied by hand?)"}},
		{"hunter2", []string{"42:9: secret: the secret is not base64; expected 32 random bytes in base64 (44 characters), as `userdata init` makes them (render the user-data again)"}},
	} {
		c.Secret = row.secret
		data, err := Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		got, problems := ParseServer("c.yaml", data)
		if diff := cmp.Diff(row.want, render(problems)); diff != "" {
			t.Errorf("problems (-want +got):\n%s\n%s", diff, data)
		}
		if diff := cmp.Diff(c, got, equal); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	}
}

// TestAcceptSecret: a second secret is for servers alone, while the first changes.
func TestAcceptSecret(t *testing.T) {
	first, second := Secret(strings.Repeat("A", 43)+"="), Secret("B"+strings.Repeat("A", 42)+"=")
	c := mustParse(t, good)
	c.Secret = first
	for _, row := range []struct {
		accept Secret
		want   []string
	}{
		{second, nil},
		{first, []string{"43:15: acceptSecret: is the secret itself (remove it)"}},
		{"hunter2", []string{"43:15: acceptSecret: the secret is not base64; expected 32 random bytes in base64 (44 characters), as `userdata init` makes them (remove it, and run bootstrap rotate accept again)"}},
	} {
		c.AcceptSecret = row.accept
		data, err := Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, problems := ParseServer("c.yaml", data); !cmp.Equal(row.want, render(problems)) {
			t.Errorf("%q, want %q", render(problems), row.want)
		}
	}
	want := []string{"1:15: acceptSecret: does not belong into the cluster file, which people share (remove it here; `bootstrap rotate` writes it on servers)"}
	if _, problems := Parse("c.yaml", []byte("acceptSecret: "+second.Reveal()+"\n"+good)); !cmp.Equal(want, render(problems)) {
		t.Errorf("in an operator's file: %q", render(problems))
	}
}

func TestMarshalReadsBack(t *testing.T) {
	for name, file := range map[string]string{
		"packet": good, "static": staticFile,
		"maps":  strings.Replace(good, "  network:", "  containerd: {extra: {a.b: {c: [1, 2.5, \"3\", null, true, {}], d: ''}}}\n  network:", 1),
		"false": strings.Replace(good, `{url: "http://169.254.169.254"}`, `{url: "http://169.254.169.254", requireBGP: false, deadline: 90s}`, 1),
		"join":  strings.Replace(good, "  network:", "  join: {ca: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}\n  network:", 1),
		// yaml.v3 writes a block for these and reads back less.
		"blank lines first": strings.Replace(good, "  network:", "    kubelet: {a: \"\\n\\nx\\n\", b: [\"\\nx\", \"x\\n\\n\"]}\n  network:", 1),
		// An id of digits and one e is a number to YAML.
		"id": strings.Replace(good, "5b0c6d1f9e2a47b88c3d4e5f60718293", `"50006010902047e88030405060718293"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			want := mustParse(t, file)
			data, err := Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, mustParse(t, string(data)), equal); diff != "" {
				t.Errorf("read back (-want +got):\n%s\n%s", diff, data)
			}
			if again, _ := Marshal(want); !bytes.Equal(again, data) {
				t.Error("two runs differ")
			}
		})
	}
}

// TestEncodeDecodes fills every field of the types with anything, so that one which
// is added later cannot be forgotten by encode or by the decoder.
func TestEncodeDecodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want, got Cluster
		fill(t, reflect.ValueOf(&want).Elem(), "")
		data, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		d := decoder{report{file: "c.yaml", values: map[string]place{}, keys: map[string]place{}, broken: map[string]bool{}}}
		d.value(d.document(data), "", "", reflect.ValueOf(&got).Elem())
		if diff := cmp.Diff(want, got, equal); diff != "" {
			t.Fatalf("read back (-want +got):\n%s\n%s\n%v", diff, data, d.problems)
		}
	})
}

// fill sets v and all that is in it to values that the decoder takes.
func fill(t *rapid.T, v reflect.Value, tag reflect.StructTag) {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v4") {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "a4")))
		}
		return netip.AddrFrom16([16]byte(append([]byte{0xfd}, rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, "a16")...)))
	})
	words := rapid.StringMatching(`[a-z0-9:#'"{} .-]*[a-z0-9]`)
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(addr.Draw(t, "addr")))
		return
	case netip.Prefix:
		a := addr.Draw(t, "prefix")
		v.Set(reflect.ValueOf(netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))))
		return
	case time.Duration:
		v.SetInt(int64(rapid.IntRange(1, 1e12).Draw(t, "duration")))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), v.Type().Field(i).Tag)
		}
	case reflect.Slice:
		n := rapid.IntRange(1, 2).Draw(t, "n")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), "")
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(t, e, "")
		v.SetMapIndex(reflect.ValueOf(words.Draw(t, "key")), e)
	case reflect.Interface:
		v.Set(reflect.ValueOf(rapid.OneOf(words.AsAny(), rapid.Int().AsAny(), rapid.Bool().AsAny(),
			rapid.Just(any([]any{"x", 1})), rapid.Just(any(map[string]any{"k": 1.5}))).Draw(t, "any")))
	case reflect.Pointer:
		fill(t, pointTo(v), "")
	case reflect.String:
		if allowed := strings.Fields(tag.Get("allowed")); len(allowed) > 0 {
			v.SetString(rapid.SampledFrom(allowed).Draw(t, "allowed"))
		} else {
			v.SetString(words.Draw(t, "text"))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(rapid.IntRange(1, 1000).Draw(t, "int")))
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(rapid.Uint16Range(1, 65535).Draw(t, "uint")))
	default:
		t.Fatalf("fill does not know %s", v.Type())
	}
}

func TestTemplate(t *testing.T) {
	c, problems := Parse("cluster.yaml", Template("k8s-bgp", "5b0c6d1f9e2a47b88c3d4e5f60718293", 5, 3))
	if err := Err(problems); err != nil {
		t.Fatal(err)
	}
	if c.Metadata.Name != "k8s-bgp" || c.Spec.ID != "5b0c6d1f9e2a47b88c3d4e5f60718293" {
		t.Errorf("name %q, id %q", c.Metadata.Name, c.Spec.ID)
	}
	changes := 0
	for i, line := range strings.Split(template, "\n") {
		if !strings.HasSuffix(line, "# CHANGE") {
			continue
		}
		changes++
		warned := false
		for _, p := range problems {
			warned = warned || p.Line == i+1 && strings.Contains(p.Message, "example address")
		}
		if !warned && !strings.Contains(line, "endpoint") {
			t.Errorf("line %d says CHANGE, but check does not warn of it: %s", i+1, line)
		}
	}
	if changes != 4 {
		t.Errorf("%d lines say CHANGE, want 4", changes)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{good, staticFile, template, "", "a: b: c", "- 1", "\t", "a: &a [*a]", "? {a: b}\n: c", "---\n---\n", "spec: {servers: {expect: 1}}", "<<: {a: 1}", "\xff", "a:\n  - b\n c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		for _, parse := range []func(string, []byte) (Cluster, []Problem){Parse, ParseServer} {
			c, problems := parse("c.yaml", []byte(file))
			lines := strings.Split(file, "\n")
			for _, p := range problems {
				if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > len(lines[p.Line-1])+1 || p.Message == "" || p.Hint == "" {
					t.Errorf("problem without a place in the file or without words: %+v", p)
				}
			}
			if Err(problems) != nil {
				continue
			}
			data, err := Marshal(c)
			if err != nil {
				t.Fatalf("accepted, but cannot be written: %v", err)
			}
			again, problems := parse("c.yaml", data)
			if diff := cmp.Diff(c, again, equal); diff != "" || Err(problems) != nil {
				t.Errorf("accepted, but reads back otherwise: %v\n%s\n%s", problems, diff, data)
			}
		}
	})
}

// TestNodesAgree guards what the decoder takes for granted of yaml.v3.
func TestNodesAgree(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte("yes: 010"), &doc); err != nil {
		t.Fatal(err)
	}
	key, value := doc.Content[0].Content[0], doc.Content[0].Content[1]
	if key.Tag != "!!str" || value.Tag != "!!int" || value.Column != 6 {
		t.Errorf("yaml.v3 says %q %q at column %d", key.Tag, value.Tag, value.Column)
	}
}
