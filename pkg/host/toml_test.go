package host

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
	"pgregory.net/rapid"
)

func TestEncodeTOML(t *testing.T) {
	got, err := encodeTOML(map[string]any{
		"b": true, "a": "say \"x\"\\\n\x01", "n": 3, "f": 2.0, "list": []any{"x", 1, map[string]any{"k": "v", "a b": false}},
		"table": map[string]any{"only.tables": map[string]any{"x": 1}}, "empty": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `a = "say \"x\"\\\n\u0001"
b = true
f = 2.0
list = ["x", 1, {"a b" = false, k = "v"}]
n = 3

[empty]

[table."only.tables"]
x = 1
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, bad := range []any{nil, struct{}{}, []any{nil}, map[string]any{"x": nil}} {
		if _, err := encodeTOML(map[string]any{"x": bad}); err == nil {
			t.Errorf("%#v was encoded", bad)
		}
	}
}

// Whatever strings and tables there are, a TOML parser reads back what was
// encoded.
func TestTOMLRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaf := rapid.OneOf(rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Int64().AsAny())
		inner := rapid.MapOf(rapid.String(), leaf).Draw(t, "inner")
		in := map[string]any{"outer": map[string]any{"x.y": inner}, "list": rapid.SliceOf(leaf).Draw(t, "list")}
		data, err := encodeTOML(in)
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			Outer map[string]map[string]any
			List  []any
		}
		if err := toml.Unmarshal(data, &out); err != nil {
			t.Fatalf("%v:\n%s", err, data)
		}
		if len(out.List) != len(in["list"].([]any)) {
			t.Fatalf("list: %v", out.List)
		}
		for k, v := range inner {
			if out.Outer["x.y"][k] != v {
				t.Fatalf("%q: %v, want %v", k, out.Outer["x.y"][k], v)
			}
		}
	})
}
