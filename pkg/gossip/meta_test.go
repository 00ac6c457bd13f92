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
		flags := Flags(rapid.Byte().Draw(t, "flags"))
		id := rapid.StringMatching(`[0-9a-f]{32}`).Draw(t, "hw")
		meta, err := encodeMeta(flags, id)
		if err != nil || len(meta) > 48 {
			t.Fatalf("%d bytes, %v", len(meta), err)
		}
		// A later version may append.
		meta = append(meta, rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "more")...)
		gotFlags, gotHW, err := decodeMeta(meta)
		if err != nil || gotFlags != flags || gotHW != id {
			t.Fatalf("%v %s %v; want %v %s", gotFlags, gotHW, err, flags, id)
		}
		if _, _, err := decodeMeta(meta[:rapid.IntRange(0, metaSize-1).Draw(t, "short")]); err == nil {
			t.Fatal("short meta data accepted")
		}
	})
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
