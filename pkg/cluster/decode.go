package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Parse reads an operator's cluster file: strictly, with defaults filled in, and
// validated. It reports every problem that it finds, in the order of the file;
// the cluster is good when none of them is an error (see Err). name stands in
// the problems as the file's.
func Parse(name string, data []byte) (Cluster, []Problem) {
	return parse(name, data, false, Beside{})
}

// Beside is what lies beside an operator's cluster file.
type Beside struct {
	Lock *Lock // nil when there is none
	// Read gets the content of a file by its path from where the cluster file is; nil
	// when nothing can be read there.
	Read func(path string) ([]byte, error)
	// Formed says that it is for a cluster that has formed, which may have more control
	// planes than servers founded it.
	Formed bool
	// noLock: what servers install is not asked for.
	noLock bool
}

// ParseBeside is Parse with what lies beside the cluster file: the artefacts and
// the agent have the digests of the lock file, and the files that it names become
// part of the cluster. A lock that is not what the cluster file asks for is an error
// where the file asks.
func ParseBeside(name string, data []byte, beside Beside) (Cluster, []Problem) {
	return parse(name, data, false, beside)
}

// ParseServer reads the copy that lies on a server: the same format, with the
// cluster's secret in it.
func ParseServer(name string, data []byte) (Cluster, []Problem) {
	return parse(name, data, true, Beside{})
}

func parse(name string, data []byte, server bool, beside Beside) (Cluster, []Problem) {
	var c Cluster
	d := decoder{report{file: name, values: map[string]place{}, keys: map[string]place{}, broken: map[string]bool{}}}
	if root := d.document(data); root != nil {
		d.value(root, "", "", reflect.ValueOf(&c).Elem())
		c = withDefaults(c)
		v := validator{report: d.report, Cluster: c, formed: beside.Formed || c.Spec.Join.CA != "", unlocked: beside.noLock}
		if beside.Lock != nil {
			v.apply(beside.Lock)
		}
		v.validate(server)
		v.locked(server, beside.Lock != nil || beside.noLock)
		v.addons(beside.Read)
		if !beside.Formed { // its kubelets have the flag, or not, whatever the file says
			v.cloud()
		}
		c, d.report = v.Cluster, v.report
	}
	problems := d.sorted()
	excerpts(problems, data)
	return c, problems
}

// decoder walks YAML nodes along Go types. yaml.v3 itself forgets the places of
// its type errors and silently ignores a second document.
type decoder struct{ report }

// refuse reports an error at a node and remembers that path has no value.
func (d *decoder) refuse(n *yaml.Node, path, hint, format string, args ...any) {
	d.add(SeverityError, place{n.Line, n.Column}, path, hint, fmt.Sprintf(format, args...))
	d.broken[path] = true
}

// syntaxLine finds the line in an error of yaml.v3, which offers it as text only.
var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

// document parses data and returns its root, nil when it is no YAML.
func (d *decoder) document(data []byte) *yaml.Node {
	data, marked := bytes.CutPrefix(data, []byte(bom))
	if marked {
		d.add(SeverityWarning, place{1, 1}, "", "save it as UTF-8 without the mark", "the file begins with a byte order mark, which other programs may take for a part of the first word")
	}
	if !d.readable(data) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		d.refuse(&yaml.Node{Line: 1, Column: 1}, "", "`userdata init NAME` writes a cluster file to start from", "the file is empty")
		return nil
	} else if err != nil {
		d.syntax(err, data)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		d.add(SeverityError, place{second.Line, second.Column}, "", "keep one document; remove everything from this `---` on", "a second document begins here")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err, data)
	}
	if !d.shallow(doc.Content[0], 0) {
		return nil
	}
	return doc.Content[0]
}

var (
	prefixType   = reflect.TypeFor[netip.Prefix]()
	addrType     = reflect.TypeFor[netip.Addr]()
	durationType = reflect.TypeFor[time.Duration]()
	endpointType = reflect.TypeFor[Endpoint]()
	secretType   = reflect.TypeFor[Secret]()
)

// value decodes a node into v. tag is the struct tag of the field that v is.
func (d *decoder) value(n *yaml.Node, path string, tag reflect.StructTag, v reflect.Value) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.refuse(n, path, "write the value out", "anchors and aliases are not supported")
		return
	}
	if strings.Contains(n.Value, "PRIVATE KEY-----") {
		d.refuse(n, path, "keep keys out of it; muster makes those of the cluster on the servers", "holds a private key, and everybody who reads user-data would have it")
		return
	}
	d.values[path] = place{n.Line, n.Column}
	if v.Type() == endpointType && n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		v.Set(reflect.ValueOf(Endpoint{Address: n.Value}))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == prefixType || v.Type() == addrType {
			d.scalar(n, path, tag, v)
		} else if n.Kind == yaml.MappingNode || isNull(n) {
			d.structure(n, path, v)
		} else {
			d.refuse(n, path, "keys: "+strings.Join(keysOf(v.Type()), ", "), "%s, expected a mapping", describe(n))
		}
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Map:
		d.mapping(n, path, v)
	case reflect.Pointer:
		d.value(n, path, tag, pointTo(v))
	case reflect.Interface:
		d.free(n, path, v)
	default:
		d.scalar(n, path, tag, v)
	}
}

// pointTo gives a pointer a zero value to point to.
func pointTo(v reflect.Value) reflect.Value {
	v.Set(reflect.New(v.Type().Elem()))
	return v.Elem()
}

// structure decodes a mapping (or nothing, when n is null) into a struct and
// reports what is unknown, given twice, or missing.
func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value) {
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[fieldKey(v.Type().Field(i))] = i
	}
	var meant []string // by keys that are unknown
	seen := d.pairs(n, path, func(key string, kn, vn *yaml.Node) {
		i, ok := fields[key]
		if !ok {
			meant = append(meant, d.unknown(kn, path, v.Type()))
			return
		}
		f := v.Type().Field(i)
		if isNull(vn) && !containsOthers(f.Type) {
			d.refuse(vn, join(path, key), "give it a value, or remove the key", "has no value")
			return
		}
		d.value(vn, join(path, key), f.Tag, v.Field(i))
	})
	for _, key := range meant {
		if key != "" && !seen[key] {
			d.broken[join(path, key)] = true // do not also call it missing
		}
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := fieldKey(f)
		_, present := d.values[join(path, key)]
		switch {
		case f.Tag.Get("required") != "" && (!seen[key] || isEmptyList(v.Field(i))):
			d.missing(join(path, key), exampleOf(key, f.Tag))
		case !present && f.Type.Kind() == reflect.Struct && !strings.Contains(f.Tag.Get("yaml"), "omitempty") && !isScalarStruct(f.Type):
			d.structure(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, join(path, key), v.Field(i))
		}
	}
}

// isEmptyList says that v is a list without elements: present, yet nothing.
func isEmptyList(v reflect.Value) bool { return v.Kind() == reflect.Slice && v.Len() == 0 }

// pairs calls each for the pairs of a mapping and reports keys given twice. It
// returns the keys that it saw.
func (d *decoder) pairs(n *yaml.Node, path string, each func(key string, kn, vn *yaml.Node)) map[string]bool {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		kn, vn := n.Content[i], n.Content[i+1]
		if kn.Kind != yaml.ScalarNode {
			d.refuse(kn, path, "write it as `key: value`", "a key must be a single word, this one %s", describe(kn))
			continue
		}
		key := kn.Value
		if old := first[key]; old != nil {
			d.add(SeverityError, place{kn.Line, kn.Column}, join(path, abbreviate(key)), "keep one of them", fmt.Sprintf("given twice, first in line %d", old.Line))
			continue
		}
		first[key] = kn
		d.keys[join(path, key)] = place{kn.Line, kn.Column}
		each(key, kn, vn)
	}
	seen := map[string]bool{}
	for key := range first {
		seen[key] = true
	}
	return seen
}

// list decodes a sequence.
func (d *decoder) list(n *yaml.Node, path string, v reflect.Value) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.refuse(n, path, "write it as a list: ["+abbreviate(n.Value)+"]", "%s, expected a list", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.keys[at] = place{item.Line, item.Column}
		if isNull(item) && v.Type().Elem().Kind() != reflect.Interface {
			d.refuse(item, at, "remove it, or give it a value", "an empty element")
			continue
		}
		d.value(item, at, "", v.Index(i))
	}
}

// mapping decodes a mapping with free keys.
func (d *decoder) mapping(n *yaml.Node, path string, v reflect.Value) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.refuse(n, path, "write it as `key: value`", "%s, expected a mapping", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(key string, _, vn *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(vn, join(path, key), "", element)
		v.SetMapIndex(reflect.ValueOf(key), element)
	})
}

// free decodes what is passed on to others unchecked: anything that JSON can say.
func (d *decoder) free(n *yaml.Node, path string, v reflect.Value) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.mapping(n, path, reflect.ValueOf(&m).Elem())
		v.Set(reflect.ValueOf(m))
	case yaml.SequenceNode:
		var l []any
		d.list(n, path, reflect.ValueOf(&l).Elem())
		v.Set(reflect.ValueOf(l))
	default:
		var x any
		switch err := n.Decode(&x); {
		case n.Tag == "!!timestamp":
			v.Set(reflect.ValueOf(n.Value)) // JSON has no times; what they are passed to wants text
		case err != nil || !isPlain(x):
			d.refuse(n, path, "use text, a number, true, false, a list or a mapping", "%s, which cannot be passed on", describe(n))
		case x != nil:
			v.Set(reflect.ValueOf(x))
		}
	}
}

// ofServers are the keys that only the copy on a server has.
var ofServers = map[string]bool{"secret": true, "acceptSecret": true, "apiToken": true, "lock": true}

// keysOf lists the keys of a struct type in their order.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if key := fieldKey(t.Field(i)); !ofServers[key] { // never offered to operators
			keys = append(keys, key)
		}
	}
	return keys
}

// fieldKey is the key of a struct field in the file.
func fieldKey(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key
}

// isScalarStruct says that a struct type is written as one word.
func isScalarStruct(t reflect.Type) bool { return t == prefixType || t == addrType }

// containsOthers says that a value of type t holds further keys or elements, so
// that nothing after its key means that all of them are commented out.
func containsOthers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return !isScalarStruct(t)
	case reflect.Slice, reflect.Map, reflect.Interface:
		return true
	}
	return false
}

// exampleOf is the hint for a key that is missing.
func exampleOf(key string, tag reflect.StructTag) string {
	if allowed := strings.Fields(tag.Get("allowed")); len(allowed) == 1 {
		return "write " + key + ": " + allowed[0]
	} else if len(allowed) > 1 {
		return "allowed: " + strings.Join(allowed, ", ")
	}
	return "such as " + key + ": " + tag.Get("example")
}

// sortedKeys lists the keys of a map in a stable order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
