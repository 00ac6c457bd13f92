package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// TestSchemaIsOfTheTypes keeps schema.json equal to the types and their comments.
func TestSchemaIsOfTheTypes(t *testing.T) {
	g := schemaMaker{docs: comments(t), defs: map[string]any{}}
	defaults := withDefaults(Cluster{Spec: Spec{Platform: PlatformPacket}})
	root := g.object(reflect.ValueOf(defaults))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://github.com/mustermetal/muster/cluster.schema.json"
	root["title"] = "The cluster file of muster, " + APIVersion
	root["$defs"] = g.defs
	var got bytes.Buffer
	e := json.NewEncoder(&got)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil { // maps are written in the order of their keys
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(Schema()), got.String()); diff != "" {
		t.Errorf("schema.json is stale; go test ./pkg/cluster -run 'TestSchemaIsOfTheTypes|TestReference' -update (-file +types):\n%s", diff)
	}
}

// schemaMaker writes types as JSON Schema; structs other than the document go to
// defs by their names.
type schemaMaker struct {
	docs map[string]string
	defs map[string]any
}

// object is the schema of a struct; v holds its defaults.
func (g schemaMaker) object(v reflect.Value) map[string]any {
	properties := map[string]any{}
	var required []string
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := fieldKey(f)
		if v.Type() == reflect.TypeFor[Cluster]() && ofServers[key] {
			continue // refused in the operator's file
		}
		p := g.field(f, v.Field(i))
		if about := sentence(g.docs[v.Type().Name()+"."+f.Name], f.Name); about != "" {
			p["description"] = about
		} else if f.Type.Kind() == reflect.Struct && p["$ref"] != nil {
			p["description"] = sentence(g.docs[f.Type.Name()], f.Type.Name())
		}
		properties[key] = p
		if f.Tag.Get("required") != "" || holdsRequired(f) {
			required = append(required, key)
		}
	}
	o := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		o["required"] = required
	}
	return o
}

// holdsRequired says that a struct which the decoder looks into although it is
// absent has required keys.
func holdsRequired(f reflect.StructField) bool {
	if f.Type.Kind() != reflect.Struct || isScalarStruct(f.Type) || strings.Contains(f.Tag.Get("yaml"), "omitempty") {
		return false
	}
	for inner := range fieldsOf(f.Type) {
		if inner.Tag.Get("required") != "" || holdsRequired(inner) {
			return true
		}
	}
	return false
}

func (g schemaMaker) field(f reflect.StructField, v reflect.Value) map[string]any {
	p := g.of(f.Type, v)
	if allowed := strings.Fields(f.Tag.Get("allowed")); len(allowed) > 0 {
		p["enum"] = allowed
	}
	if word := defaultWords(f, v); strings.HasPrefix(word, "`") && f.Type.Kind() != reflect.Slice {
		if n := v; n.CanInt() && n.Type() != durationType || n.CanUint() {
			p["default"] = json.RawMessage(strings.Trim(word, "`"))
		} else {
			p["default"] = strings.Trim(word, "`")
		}
	}
	if example := f.Tag.Get("example"); example != "" {
		var doc any
		if err := yaml.Unmarshal([]byte(example), &doc); err == nil {
			p["examples"] = []any{doc}
		}
	}
	return p
}

// IPs are written out in patterns, so that editors find a mistake while it is made.
const (
	ipPattern     = `^[0-9a-fA-F:.]+$`
	prefixPattern = `^[0-9a-fA-F:.]+/[0-9]{1,3}$`
)

// of is the schema of a type.
func (g schemaMaker) of(t reflect.Type, v reflect.Value) map[string]any {
	text := func(pattern string) map[string]any {
		p := map[string]any{"type": "string", "minLength": 1}
		if pattern != "" {
			p["pattern"] = pattern
		}
		return p
	}
	switch {
	case t == prefixType:
		return text(prefixPattern)
	case t == addrType:
		return text(ipPattern)
	case t == durationType:
		return text(`^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`)
	case t == endpointType:
		return map[string]any{"anyOf": []any{text(`^.+:[0-9]+$`), g.ref(t, v)}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return g.ref(t, v)
	case reflect.Slice:
		return map[string]any{"type": []string{"array", "null"}, "items": g.of(t.Elem(), reflect.Zero(t.Elem()))}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": g.of(t.Elem(), reflect.Zero(t.Elem()))}
	case reflect.Pointer:
		return g.of(t.Elem(), reflect.Zero(t.Elem()))
	case reflect.Interface:
		return map[string]any{}
	case reflect.String:
		return text("")
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	}
	most := float64(math.MaxInt32)
	switch t.Kind() {
	case reflect.Uint16:
		most = math.MaxUint16
	case reflect.Uint32:
		most = math.MaxUint32
	case reflect.Int64:
		most = 1 << 53
	}
	return map[string]any{"type": "integer", "minimum": 0, "maximum": most}
}

func (g schemaMaker) ref(t reflect.Type, v reflect.Value) map[string]any {
	if g.defs[t.Name()] == nil {
		g.defs[t.Name()] = true // it is being made
		g.defs[t.Name()] = g.object(v)
	}
	return map[string]any{"$ref": "#/$defs/" + t.Name()}
}

// compiled is the schema as a validator that is not ours reads it.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("cluster.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON reads a YAML document as an editor hands it to a validator.
func asJSON(t *testing.T, file string) any {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal([]byte(file), &doc); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchema(t *testing.T) {
	s := compiled(t)
	written, err := Marshal(mustParse(t, good))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"packet": good, "static": staticFile, "long": longFile(), "written out": string(written),
		"template":         string(Template("k8s-bgp", "5b0c6d1f9e2a47b88c3d4e5f60718293", 5, 3)),
		"endpoint mapping": strings.Replace(good, "147.75.194.92:6443", "{address: 'api.example.net:6443', external: true}", 1),
		"commented out":    strings.Replace(good, "    podSubnets: [172.16.0.0/12]", "    podSubnets:", 1),
		"passed on":        strings.Replace(good, "  network:", "    kubelet: {a: {b: [1, true, null]}}\n  network:", 1),
	} {
		if err := s.Validate(asJSON(t, file)); err != nil {
			t.Errorf("%s: the schema refuses a good file: %v", name, err)
		}
	}
	for _, row := range []struct{ old, new string }{
		{"expect: 5", "expct: 5"}, {"expect: 5", `expect: "5"`}, {"expect: 5", "expect: five"}, {"expect: 5", "expect: 5.5"}, {"expect: 5", "expect: -1"},
		{"    expect: 5\n", ""}, {"platform: packet", "platform: packt"}, {"kind: Cluster", "kind: Custer"}, {"muster/v1alpha1", "v1"},
		{"metadata: {name: k8s-bgp}\n", ""}, {"name: k8s-bgp", "name: 42"}, {"podSubnets: [172.16.0.0/12]", "podSubnets: 172.16.0.0/12"},
		{"[172.16.0.0/12]", "[172.16.0.0]"}, {"[10.99.14.9, 10.99.14.11]", "[10.99.14.9/31]"}, {"147.75.194.92:6443", "147.75.194.92"},
		{"on: control-planes", "on: workers"}, {"on: control-planes", "onn: control-planes"}, {"metadata: {url: \"http://169.254.169.254\"}", "metadata: {deadline: soon}"},
		{"version: v1.36.3", "version: [v1.36.3]"}, {"  network:", "  ports: {gossip: 70000}\n  network:"}, {"metadata: {name", "secret: x\nmetadata: {name"},
		{"  id: 5b0c6d1f9e2a47b88c3d4e5f60718293\n", ""},
	} {
		changed := strings.Replace(good, row.old, row.new, 1)
		if changed == good {
			t.Fatalf("%q is not in the file", row.old)
		}
		if s.Validate(asJSON(t, changed)) == nil {
			t.Errorf("the schema takes %q", row.new)
		}
		if _, problems := Parse("c.yaml", []byte(changed)); Err(problems) == nil {
			t.Errorf("Parse takes %q", row.new)
		}
	}
}

// TestSchemaDescribes: what an editor shows beside a key is what the reference has.
func TestSchemaDescribes(t *testing.T) {
	var doc struct {
		Defs map[string]struct {
			Properties map[string]struct {
				Description string
				Default     any
			}
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	for name, def := range doc.Defs {
		for key, p := range def.Properties {
			if p.Description == "" {
				t.Errorf("%s.%s has no description", name, key)
			}
		}
	}
	if got := fmt.Sprintf("%v %v", doc.Defs["Ports"].Properties["gossip"].Default, doc.Defs["Servers"].Properties["quorum"].Default); got != "9760 safe" {
		t.Errorf("defaults: %s", got)
	}
}
