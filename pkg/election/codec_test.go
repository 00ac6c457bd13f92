package election

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func field() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-z0-9:.\-äß"\\<]{1,40}`)
}

func genBallot(rt *rapid.T, label string) Ballot {
	return Ballot{Round: rapid.Uint64Range(1, maxRound).Draw(rt, label), Inst: field().Draw(rt, label+" inst"), Run: field().Draw(rt, label+" run")}
}

func genValue(rt *rapid.T, slot int) Value {
	if slot%2 == 1 {
		return Value{Kind: rapid.SampledFrom([]Kind{Go, Abdicate}).Draw(rt, "kind")}
	}
	f := field()
	return Value{Kind: Lead, Leader: Leader{
		HW: f.Draw(rt, "hw"), Inst: f.Draw(rt, "inst"), Name: f.Draw(rt, "name"), CAHash: f.Draw(rt, "ca"), AgentCAHash: f.Draw(rt, "agent"),
		Address: rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}).Draw(rt, "address"),
	}}
}

func genPrefix(rt *rapid.T) []Value {
	var out []Value
	for i := range rapid.IntRange(0, 6).Draw(rt, "decided") {
		v := genValue(rt, i)
		if i > 0 && out[i-1].Kind == Go {
			v.Supersedes = out[i-2].Leader.HW
		}
		if checkPrefix(append(out, v)) != nil {
			break // one hardware drawn twice
		}
		out = append(out, v)
	}
	return out
}

func genState(rt *rapid.T) State {
	f := field()
	s := State{
		Seq: rapid.Uint64Range(1, 1<<60).Draw(rt, "seq"), SpecID: f.Draw(rt, "spec"), Config: f.Draw(rt, "config"), N: rapid.IntRange(1, 1000).Draw(rt, "n"),
		Hardware: Hardware{HW: f.Draw(rt, "hw"), UUID: f.Draw(rt, "uuid"), MACs: []string{f.Draw(rt, "mac")}},
		Inst:     f.Draw(rt, "inst"), Round: rapid.Uint64Range(0, maxRound).Draw(rt, "round"),
	}
	for _, v := range genPrefix(rt) {
		s.Slots = append(s.Slots, Slot{Decided: v, Voted: rapid.Bool().Draw(rt, "voted")})
	}
	if rapid.Bool().Draw(rt, "open") {
		slot := Slot{Promised: genBallot(rt, "promised")}
		if rapid.Bool().Draw(rt, "accepted") {
			slot.Accepted, slot.Value = slot.Promised, genValue(rt, len(s.Slots))
		}
		s.Slots = append(s.Slots, slot)
	}
	if l, _, ok := s.Leader(); ok && s.Gone() && rapid.Bool().Draw(rt, "mine") {
		s.Inst, s.GoMarker = l.Inst, true
		s.Sealed = Sealed{CAHash: l.CAHash, Endpoint: "e:6443"}
	}
	return s
}

// TestStateRoundTrip: what was written is read, and any single changed byte is
// noticed.
func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := genState(rt)
		data, err := EncodeState(s)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := DecodeState(data)
		if err != nil {
			rt.Fatalf("%v\n%s", err, data)
		}
		if diff := cmp.Diff(s, got, addresses); diff != "" {
			rt.Fatal(diff)
		}
		at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		data[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if got, err := DecodeState(data); err == nil {
			rt.Fatalf("byte %d was changed and nobody noticed: %+v", at, got)
		}
	})
}

var goldenBallot = Ballot{Round: 3, Inst: "fedcba9876543210fedcba9876543210", Run: "00112233445566778899aabbccddeeff"}

// TestStateGolden fixes version 2 of the format: a file written today is read by
// every later agent.
func TestStateGolden(t *testing.T) {
	s := State{
		Seq: 7, SpecID: testSpec, Config: testConfig(5, "").Hash(), N: 5,
		Hardware: Hardware{HW: "0123456789abcdef0123456789abcdef", UUID: "4c4c4544-0051-3610-8052-b4c04f4a3732", MACs: []string{"0c:42:a1:00:00:01"}},
		Inst:     "fedcba9876543210fedcba9876543210", Round: 3,
		Slots: []Slot{{Voted: true, Decided: Value{Kind: Lead, Leader: Leader{
			HW: "0123456789abcdef0123456789abcdef", Inst: "fedcba9876543210fedcba9876543210", Name: "cp1",
			Address: netip.MustParseAddr("10.99.14.9"), CAHash: "sha256:aa", AgentCAHash: "sha256:bb",
		}}}, {
			Promised: goldenBallot, Accepted: goldenBallot, Value: Value{Kind: Go},
		}},
	}
	got, err := EncodeState(s)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "state.v2")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeStateSaysWhatIsWrong(t *testing.T) {
	valid, err := os.ReadFile(filepath.Join("testdata", "state.v2"))
	if err != nil {
		t.Fatal(err)
	}
	seal := func(body string) string { return string(frame([]byte(body))) }
	_, body, _ := strings.Cut(string(valid), "\n")
	for _, c := range []struct{ name, data, want string }{
		{"empty", "", "the state is cut off in its first line (0 bytes)"},
		{"another file", "kind: Cluster\n", `the state begins with "kind: Cluster", expected "muster fence state v2 crc32c=…"`},
		{"later version", strings.Replace(string(valid), "state v2", "state v3", 1), "written by another version"},
		{"torn", string(valid[:len(valid)-5]), "expected 781: torn or damaged"},
		{"no JSON", seal("{"), "the state is no valid JSON for this version"},
		{"unknown field", seal(strings.Replace(body, `"round"`, `"ruond"`, 1)), `unknown field "ruond"`},
		{"two documents", seal(body + body), "something follows the end"},
		{"GO where LEADER belongs", seal(strings.Replace(body, `"LEADER"`, `"GO"`, 1)), `slot 0 of the fence holds "GO", expected LEADER`},
		{"marker without GO", seal(strings.Replace(body, `"round":3`, `"goMarker":true,"round":3`, 1)), "the GO marker is set though GO was not decided"},
		{"no instance", seal(strings.Replace(body, `"inst":"fedcba9876543210fedcba9876543210","round"`, `"round"`, 1)), "seq, specID, inst or hw is missing"},
		{"accepted above the promise", seal(strings.Replace(body, `"accepted":{"round":3`, `"accepted":{"round":4`, 1)), "slot 1 accepted ballot 4 with promise 3"},
		{"too long", strings.Repeat("x", MaxStateSize+1), "expected at most 1048576"},
	} {
		_, err := DecodeState([]byte(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.want)
		}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := field()
		m := Message{
			Version: MessageVersion, SpecID: f.Draw(rt, "spec"), Config: f.Draw(rt, "config"), N: rapid.IntRange(1, 1000).Draw(rt, "n"),
			Name: f.Draw(rt, "name"), Decided: genPrefix(rt), Slot: rapid.IntRange(0, 9).Draw(rt, "slot"), Ballot: genBallot(rt, "ballot"),
			Kind: rapid.SampledFrom([]MessageKind{Prepare, Promise, Nack, Accept, Accepted, Tidings, Ask, Tell, Stand, Stands}).Draw(rt, "kind"),
		}
		if m.Kind == Accept || m.Kind == Promise && rapid.Bool().Draw(rt, "with value") {
			m.Value = genValue(rt, m.Slot)
		}
		if m.Kind == Promise && m.Value != (Value{}) {
			m.Accepted = genBallot(rt, "accepted")
		}
		data, err := EncodeMessage(m)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := DecodeMessage(data)
		if err != nil {
			rt.Fatalf("%v\n%s", err, data)
		}
		if diff := cmp.Diff(m, got, addresses); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestDecodeMessageSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{`{`, "a message of the fence is no valid JSON"},
		{`{"v":1,"kind":"prepare","new":1}`, "has version 1, expected 2: the servers run different agents"},
		{`{"v":2,"kind":"prepare","new":1}`, `unknown field "new"`},
		{`{"v":2,"kind":"hello"}`, `a "hello" message of the fence: of unknown kind`},
		{`{"v":2,"kind":"prepare"}`, "without a ballot"},
		{`{"v":2,"kind":"accept","ballot":{"round":1,"inst":"i"}}`, "ballot and value do not belong together"},
		{`{"v":2,"kind":"accept","ballot":{"round":1,"inst":"i"},"value":{"kind":"GO"}}`, `slot 0 of the fence holds "GO", expected LEADER`},
		{`{"v":2,"kind":"ask","slot":-1}`, "slot -1"},
		{`{"v":2,"kind":"ask","slot":100000}`, "expected 0 to 512"},
		{`{"v":2,"kind":"ask","sealed":{"epoch":1,"caHash":"","endpoint":""}}`, "sealed without a CA hash"},
		{`{"v":2,"kind":"ask"}{"v":2}`, "no valid JSON"},
		{`{"v":2,"kind":"ask","name":"` + strings.Repeat("x", 300) + `"}`, "is 300 bytes long, expected at most 256"},
		{strings.Repeat(" ", MaxMessageSize+1), "expected at most 524288"},
	} {
		_, err := DecodeMessage([]byte(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, expected %q", c.data, err, c.want)
		}
	}
}

// TestLongHistory: the most abdications that are possible still fit the limits.
func TestLongHistory(t *testing.T) {
	long := strings.Repeat("x", 80)
	s := State{Seq: 1, SpecID: testSpec, Config: "c", Inst: "i", Hardware: Hardware{HW: "h"}}
	for i := range 2 * maxEpochs {
		v := Value{Kind: Abdicate}
		if i%2 == 0 {
			v = Value{Kind: Lead, Leader: Leader{HW: long, Inst: long, Name: long, CAHash: long, AgentCAHash: long, Address: netip.MustParseAddr("2001:db8:1:2:3:4:5:6")}}
		}
		s.Slots = append(s.Slots, Slot{Decided: v})
	}
	data, err := EncodeState(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeState(data); err != nil {
		t.Error(err)
	}
	m, err := EncodeMessage(Message{Version: MessageVersion, Kind: Tell, Decided: s.Decided()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeMessage(m); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeState(f *testing.F) {
	valid, err := os.ReadFile(filepath.Join("testdata", "state.v2"))
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := strings.Cut(string(valid), "\n")
	f.Add([]byte(body))
	f.Fuzz(func(t *testing.T, body []byte) {
		// The sum is made right, so that the fuzzer gets behind it.
		s, err := DecodeState(frame(body))
		if err != nil {
			return
		}
		data, err := EncodeState(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeState(data); err != nil || cmp.Diff(s, again, addresses, cmpopts.EquateEmpty()) != "" {
			t.Fatalf("%v: %s", err, cmp.Diff(s, again, addresses))
		}
		core := New(testConfig(3, ""), Self{Name: "cp0"}, s)
		core, _ = core.Step(Start{Boot: "b"})
		_ = core.Explain()
	})
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"v":2,"kind":"promise","specID":"s","config":"c","n":3,"name":"cp1","slot":0,"ballot":{"round":1,"inst":"i"}}`))
	f.Add([]byte(`{"v":2,"kind":"tell","specID":"` + testSpec + `","decided":[{"kind":"LEADER","leader":{"hw":"h","inst":"i","name":"n","address":"10.0.0.1","caHash":"c","agentCAHash":"a"}},{"kind":"GO"}],"sealed":{"epoch":0,"caHash":"c","endpoint":"e"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMessage(data)
		if err != nil {
			return
		}
		// Whatever decodes leads to a state that can be written and read again.
		cfg := testConfig(1, "")
		m.SpecID, m.Config = cfg.SpecID, cfg.Hash()
		st, _, _ := Settle(nil, cfg, Hardware{HW: "h"}, "i")
		core, _ := New(cfg, Self{Name: "cp0", Eligible: true}, st).Step(Start{Boot: "b"})
		core, _ = core.Step(Received{From: Sender{Inst: "other", HW: "hw"}, Message: m})
		written, err := EncodeState(core.State())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeState(written); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
	})
}

var update = flag.Bool("update", false, "write golden files")
