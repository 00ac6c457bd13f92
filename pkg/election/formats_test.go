package election

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestFormatsPage: the examples of docs/formats.md are what agents of this
// version write and read, and the page names every field.
func TestFormatsPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	golden, err := os.ReadFile(filepath.Join("testdata", "state.v2"))
	if err != nil {
		t.Fatal(err)
	}
	state := example(t, page, "muster fence state", 2)
	if state != string(golden) {
		t.Errorf("the example of a state is\n%s\nexpected testdata/state.v2:\n%s", state, golden)
	}
	if _, err := DecodeState([]byte(state)); err != nil {
		t.Error(err)
	}
	text := strings.TrimSuffix(example(t, page, `{"v":`, 1), "\n")
	m, err := DecodeMessage([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EncodeMessage(m); err != nil || string(again) != text {
		t.Errorf("the example of a message is\n%s\nan agent writes, %v,\n%s", text, err, again)
	}
	for _, of := range []any{State{}, Slot{}, Ballot{}, Value{}, Leader{}, Sealed{}, Hardware{}, Message{}} {
		for i := range reflect.TypeOf(of).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(of).Field(i).Tag.Get("json"), ",")
			if !regexp.MustCompile("[`| ,(]" + name + "[`| ,;:)\\[]").MatchString(page) {
				t.Errorf("docs/formats.md does not name %s of %T", name, of)
			}
		}
	}
}

// example is a piece of the page that is indented by four spaces: some lines from
// the one that begins so.
func example(t *testing.T, page, begin string, lines int) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "\n    "+begin)
	if !found {
		t.Fatalf("docs/formats.md has no example that begins with %q", begin)
	}
	var out string
	for i, line := range strings.SplitN(begin+rest, "\n", lines+1)[:lines] {
		if i > 0 {
			line = strings.TrimPrefix(line, "    ")
		}
		out += line + "\n"
	}
	return out
}
