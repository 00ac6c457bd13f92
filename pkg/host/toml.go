package host

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// encodeTOML writes a table and the tables in it, keys in order, so that the same
// settings are the same bytes. It knows what a YAML document can hold: strings,
// booleans, numbers, lists and maps (TOML 1.0).
func encodeTOML(table map[string]any) ([]byte, error) {
	var b strings.Builder
	if err := encodeTable(&b, nil, table); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

func encodeTable(b *strings.Builder, path []string, table map[string]any) error {
	var sub []string
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if _, ok := table[key].(map[string]any); ok {
			sub = append(sub, key)
			continue
		}
		text, err := encodeValue(table[key])
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(append(path, key), "."), err)
		}
		fmt.Fprintf(b, "%s = %s\n", encodeKey(key), text)
	}
	for _, key := range sub {
		inner := table[key].(map[string]any)
		here := append(slices.Clone(path), key)
		// A table that only holds tables needs no header of its own.
		if len(inner) == 0 || slices.ContainsFunc(slices.Collect(maps.Values(inner)), notTable) {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			var quoted []string
			for _, k := range here {
				quoted = append(quoted, encodeKey(k))
			}
			fmt.Fprintf(b, "[%s]\n", strings.Join(quoted, "."))
		}
		if err := encodeTable(b, here, inner); err != nil {
			return err
		}
	}
	return nil
}

func notTable(v any) bool {
	_, ok := v.(map[string]any)
	return !ok
}

func encodeKey(k string) string {
	bare := k != "" && strings.IndexFunc(k, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) < 0
	if bare {
		return k
	}
	return encodeString(k)
}

func encodeValue(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return encodeString(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		s := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.ContainsAny(s, ".") {
			s += ".0"
		}
		return s, nil
	case []string:
		var list []any
		for _, s := range v {
			list = append(list, s)
		}
		return encodeValue(list)
	case []any:
		var parts []string
		for _, e := range v {
			s, err := encodeValue(e)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case map[string]any: // within a list
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			s, err := encodeValue(v[k])
			if err != nil {
				return "", err
			}
			parts = append(parts, encodeKey(k)+" = "+s)
		}
		return "{" + strings.Join(parts, ", ") + "}", nil
	}
	return "", fmt.Errorf("a value of type %T has no place in TOML; expected a string, a boolean, a number, a list or a map", v)
}

// encodeString is a basic string: quotes, backslashes and control characters are
// escaped.
func encodeString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
