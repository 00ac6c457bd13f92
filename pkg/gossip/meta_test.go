package gossip

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMeta(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := said{
			flags:    Flags(rapid.Byte().Draw(t, "flags")),
			hw:       rapid.StringMatching(`[0-9a-f]{32}`).Draw(t, "hw"),
			onSwitch: SwitchTag(rapid.StringMatching(`[a-z0-9-]{0,8}`).Draw(t, "switch")),
		}
		meta, err := encodeMeta(want)
		if err != nil || len(meta) > 48 {
			t.Fatalf("%d bytes, %v", len(meta), err)
		}
		// A later version may append.
		meta = append(meta, rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "more")...)
		if got, err := decodeMeta(meta); err != nil || got != want {
			t.Fatalf("%+v %v; want %+v", got, err, want)
		}
		if _, err := decodeMeta(meta[:rapid.IntRange(0, metaSize-1).Draw(t, "short")]); err == nil {
			t.Fatal("short meta data accepted")
		}
		// Version 1 ended before the switch.
		old := append([]byte{1}, meta[1:metaSize]...)
		if got, err := decodeMeta(old); err != nil || got != (said{flags: want.flags, hw: want.hw}) {
			t.Fatalf("version 1: %+v %v", got, err)
		}
	})
	if a, b := SwitchTag("68c7fa13"), SwitchTag("68c7fa14"); a == b || len(a) != 8 || SwitchTag("") != "" {
		t.Errorf("tags of switches: %q, %q, %q", a, b, SwitchTag(""))
	}
	if got := (Eligible | ControlPlane | Joining).String(); got != "eligible,control-plane,joining" {
		t.Errorf("String = %q", got)
	}
}

func TestLogWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		handler := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		w := &logWriter{log: slog.New(handler)}
		for _, line := range []string{
			"[DEBUG] memberlist: Stream connection from=10.0.0.1:5",
			"[WARN] memberlist: Refuting a suspect message",
			"[ERR] memberlist: unacceptable label from=10.0.0.1:5",
			"[ERR] memberlist: unacceptable label from=10.0.0.2:7",
		} {
			if n, err := w.Write([]byte(line + "\n")); err != nil || n != len(line)+1 {
				t.Fatal(n, err)
			}
		}
		time.Sleep(quiet + time.Second) // virtual: synctest
		if _, err := w.Write([]byte("[ERR] memberlist: unacceptable label from=10.0.0.2:7\n")); err != nil {
			t.Fatal(err)
		}
		want := `level=INFO msg="gossip: Refuting a suspect message"
level=WARN msg="gossip: unacceptable label from=10.0.0.1:5"
level=WARN msg="gossip: unacceptable label from=10.0.0.2:7"
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
