package shape

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// reading collects what is wrong with documents while they are read.
type reading struct{ problems []error }

// node is a value in a document and the path that leads to it. Services of ten
// years write numbers as text, null for nothing, and leave out what is empty, so
// each reader below takes any of them; what is there and means nothing is a
// problem that names the path.
type node struct {
	reading *reading
	path    string
	value   any // nil, bool, json.Number, int, float64, string, []any, map[string]any
}

// json reads a JSON object, and tells apart the things that arrive in its place.
func (r *reading) json(document []byte) (node, error) {
	trimmed := bytes.TrimSpace(document)
	switch {
	case len(trimmed) == 0:
		return node{}, errors.New("metadata document is empty")
	case trimmed[0] == '<':
		return node{}, fmt.Errorf("metadata document is HTML or XML (%q), not JSON: spec.metadata.url points at something else, or a proxy answered", head(trimmed))
	case trimmed[0] != '{':
		return node{}, fmt.Errorf("metadata document is no JSON object, it begins with %q", head(trimmed))
	}
	decoder := json.NewDecoder(bytes.NewReader(trimmed))
	decoder.UseNumber()
	var value map[string]any
	err := decoder.Decode(&value)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return node{}, fmt.Errorf("metadata document is cut off after %d bytes: %w", len(document), err)
	case err != nil:
		return node{}, fmt.Errorf("metadata document is not understood: %w", err)
	case decoder.More():
		return node{}, fmt.Errorf("metadata document is not understood: more follows it at byte %d", decoder.InputOffset())
	}
	return node{r, "", value}, nil
}

// yaml reads YAML, which JSON is too; name stands before its fields.
func (r *reading) yaml(name string, document []byte) (node, error) {
	if trimmed := bytes.TrimSpace(document); len(trimmed) > 0 && trimmed[0] == '<' {
		return node{}, fmt.Errorf("%s: is HTML or XML (%q): spec.metadata.url points at something else, or a proxy answered", name, head(trimmed))
	}
	var value any
	if err := yaml.Unmarshal(document, &value); err != nil {
		return node{}, fmt.Errorf("%s: is not understood: %w", name, err)
	}
	return node{r, name, value}, nil
}

// refuse notes a problem at this node.
func (n node) refuse(format string, args ...any) {
	n.reading.problems = append(n.reading.problems, fmt.Errorf("%s: %w", n.path, fmt.Errorf(format, args...)))
}

// at is the value of a key; a missing one is nothing, as null is.
func (n node) at(key string) node {
	child := node{reading: n.reading, path: join(n.path, key)}
	switch m := n.value.(type) {
	case nil:
	case map[string]any:
		child.value = m[key]
	default:
		n.refuse("expected a mapping, it is %s", n.kind())
		return node{reading: n.reading, path: child.path}
	}
	return child
}

// items are the elements of a list.
func (n node) items() []node {
	switch l := n.value.(type) {
	case nil:
	case []any:
		var items []node
		for i, v := range l {
			items = append(items, node{n.reading, fmt.Sprintf("%s[%d]", n.path, i), v})
		}
		return items
	default:
		n.refuse("expected a list, it is %s", n.kind())
	}
	return nil
}

// isList and isMapping say what a value is, for fields that have two forms.
func (n node) isList() bool    { _, ok := n.value.([]any); return ok }
func (n node) isMapping() bool { _, ok := n.value.(map[string]any); return ok }

// text is a word; numbers are taken as they are written.
func (n node) text() string {
	switch v := n.value.(type) {
	case nil:
		return ""
	case string:
		return strings.TrimSpace(v)
	case json.Number, int, int64, uint64, float64, bool:
		return fmt.Sprint(v)
	}
	n.refuse("expected text, it is %s", n.kind())
	return ""
}

// number is a whole number from 0 to most, and whether one is there.
func (n node) number(most uint64) (uint64, bool) {
	text := n.text()
	if text == "" {
		return 0, false
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v > most {
		n.refuse("%.40q is not a number from 0 to %d", text, most)
		return 0, false
	}
	return v, true
}

// truth is true or false, and whether either is there.
func (n node) truth() (is, given bool) {
	switch text := n.text(); strings.ToLower(text) {
	case "":
		return false, false
	case "true", "1", "yes":
		return true, true
	case "false", "0", "no":
		return false, true
	default:
		n.refuse("%.40q is not true or false", text)
		return false, false
	}
}

// addr is an address, invalid where there is none.
func (n node) addr() netip.Addr {
	text := n.text()
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		n.refuse("%.60q is not an IP address", text)
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// words are the elements of a list of text, or the words of one text that has
// commas or lines.
func (n node) words() []string {
	var words []string
	if n.isList() {
		for _, item := range n.items() {
			if w := item.text(); w != "" {
				words = append(words, w)
			}
		}
		return words
	}
	return split(n.text())
}

func split(text string) []string {
	var words []string
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}

func (n node) kind() string {
	switch n.value.(type) {
	case map[string]any, map[any]any:
		return "a mapping"
	case []any:
		return "a list"
	}
	return fmt.Sprintf("%.40q", fmt.Sprint(n.value))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// head returns the beginning of what came in place of a document, for a person.
func head(b []byte) string {
	const most = 120
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
