package cluster

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Marshal writes a cluster as a cluster file, byte for byte the same every time:
// keys in the order of the types, free keys sorted, what is empty left out. The
// result holds the secret when c does; Parse or ParseServer reads it back.
func Marshal(c Cluster) ([]byte, error) {
	data, err := marshal(reflect.ValueOf(c))
	if err != nil {
		return nil, fmt.Errorf("writing the cluster file of %s: %w", c.Metadata.Name, err)
	}
	return data, nil
}

func marshal(v reflect.Value) ([]byte, error) {
	root, err := encode(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// encode is the inverse of decoder.value. yaml.v3's own encoder would leave out
// every netip value with omitempty, because their fields are unexported.
func encode(v reflect.Value) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return word(x.String())
	case Secret:
		return word(x.Reveal())
	case Endpoint:
		if !x.External {
			return word(x.Address)
		}
	case encoding.TextMarshaler: // netip
		text, err := x.MarshalText()
		if err != nil {
			return nil, err
		}
		return word(string(text))
	}
	switch v.Kind() {
	case reflect.Struct:
		return encodeStruct(v)
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item, err := encode(v.Index(i))
			if err != nil {
				return nil, err
			}
			list.Content = append(list.Content, item)
			if item.Kind == yaml.ScalarNode {
				list.Style = yaml.FlowStyle // short lists of words: user-data has a size limit
			}
		}
		return list, nil
	case reflect.Map:
		return encodeMap(v)
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return word(nil)
		}
		return encode(v.Elem())
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}, nil
	case reflect.Int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}, nil
	case reflect.Uint16, reflect.Uint32:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatUint(v.Uint(), 10)}, nil
	}
	return word(v.Interface())
}

func encodeStruct(v reflect.Value) (*yaml.Node, error) {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if v.Field(i).IsZero() && strings.Contains(f.Tag.Get("yaml"), "omitempty") {
			continue
		}
		value, err := encode(v.Field(i))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fieldKey(f), err)
		}
		if len(value.Content) == 0 && value.Kind != yaml.ScalarNode {
			continue // an empty list or mapping says the same as none
		}
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: fieldKey(f)}, value)
	}
	return m, nil
}

// encodeMap writes a mapping with free keys in the order of the keys.
func encodeMap(v reflect.Value) (*yaml.Node, error) {
	keys := map[string]reflect.Value{}
	for k, e := range v.Seq2() {
		keys[k.String()] = e
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range sortedKeys(keys) {
		key, err := word(k)
		if err != nil {
			return nil, err
		}
		value, err := encode(keys[k])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		m.Content = append(m.Content, key, value)
	}
	return m, nil
}

// word writes one scalar, quoted where YAML would take it for something else.
func word(x any) (*yaml.Node, error) {
	// An encoder of its own for each word would be most of the time that rendering takes.
	if text, ok := x.(string); ok && isBare(text) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}, nil
	}
	// yaml.v3 writes lines as a block, and loses blanks and breaks that it begins with.
	if text, ok := x.(string); ok && strings.Contains(text, "\n") && strings.ContainsAny(text[:1], "\n\t ") {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: text}, nil
	}
	n := &yaml.Node{}
	if err := n.Encode(x); err != nil {
		return nil, err
	}
	return n, nil
}

// isBare says that the encoder needs no help with the word: it quotes numbers and
// what is true or null by itself, and there is nothing else in it.
func isBare(text string) bool {
	switch strings.ToLower(text) {
	case "", "y", "n", "yes", "no", "on", "off":
		return false
	}
	plain := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	return plain(rune(text[0])) && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) && !strings.ContainsRune("-./+=_", r) })
}
