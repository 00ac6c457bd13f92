package cluster

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/cluster-file.md anew")

// TestReference keeps docs/cluster-file.md equal to the types, their comments and
// the tables that validation uses.
func TestReference(t *testing.T) {
	page := filepath.Join("..", "..", "docs", "cluster-file.md")
	got := reference(t)
	if *update {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/cluster-file.md is stale; go test ./pkg/cluster -run TestReference -update (-page +code):\n%s", diff)
	}
}

const intro = `# The cluster file

<!-- Generated from pkg/cluster by its tests: go test ./pkg/cluster -run TestReference -update -->

One YAML document says what your servers shall become. ` + "`userdata init NAME`" + ` writes one with comments,
` + "`userdata check`" + ` says what is wrong with it, ` + "`userdata render`" + ` makes user-data of it.

It is read strictly: an unknown key, a key given twice, a second document, a value of the wrong type, ranges that share
addresses, an endpoint that nothing announces are errors, all of them reported at once, each with its place:

` + "```" + `
%s
` + "```" + `

A warning does not stop the file from being used. Anchors and aliases are not supported. The secret is a file of its own.

A complete file:

` + "```yaml" + `
%s` + "```" + `
`

// reference writes the page.
func reference(t *testing.T) string {
	docs := comments(t)
	_, problems := Parse("cluster.yaml", []byte(strings.NewReplacer("expect: 5", "expct: 5", "172.16.0.0/12", "192.168.0.0/17").Replace(good)))
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	var b strings.Builder
	fmt.Fprintf(&b, intro, strings.Join(lines, "\n"), good)
	defaults := withDefaults(Cluster{Spec: Spec{Platform: PlatformPacket}})
	section(&b, docs, "", reflect.ValueOf(defaults))
	fmt.Fprintf(&b, "\n## Versions of Kubernetes\n\nAccepted: %s. From these patch releases on, `kubeadm init` needs nothing but the API server of its own server;\nbefore, it went through the endpoint, and the Elastic IP is nowhere until that API server is healthy.\n", AcceptedVersions)
	b.WriteString("\n## Ports that are taken\n\n`spec.ports` may not name them:\n\n| ports | taken by |\n|---|---|\n")
	for _, p := range takenPorts {
		ports := fmt.Sprint(p.from)
		if p.to != p.from {
			ports = fmt.Sprintf("%d-%d", p.from, p.to)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", ports, p.by)
	}
	return b.String()
}

// comments collects the doc comments of types ("Spec") and fields ("Spec.ID").
func comments(t *testing.T) map[string]string {
	set := token.NewFileSet()
	docs := map[string]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.TypeSpec)
				docs[spec.Name.Name] = gen.Doc.Text()
				structure, ok := spec.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range structure.Fields.List {
					for _, n := range f.Names {
						docs[spec.Name.Name+"."+n.Name] = f.Doc.Text()
					}
				}
			}
		}
	}
	return docs
}

// section writes the table of one struct, then those of the structs in it.
func section(b *strings.Builder, docs map[string]string, path string, v reflect.Value) {
	t := v.Type()
	title := "The document"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| key | value | default | example | meaning |\n|---|---|---|---|---|\n", title, sentence(docs[t.Name()], t.Name()))
	type child struct {
		path string
		v    reflect.Value
	}
	var children []child
	for i := range t.NumField() {
		f := t.Field(i)
		key, ft := fieldKey(f), f.Type
		at := join(path, key)
		for ft.Kind() == reflect.Slice || ft.Kind() == reflect.Pointer {
			if ft.Kind() == reflect.Slice {
				at += "[]"
			}
			ft = ft.Elem()
		}
		meaning := sentence(docs[t.Name()+"."+f.Name], f.Name)
		if containsOthers(ft) && ft.Kind() == reflect.Struct {
			element := reflect.New(ft).Elem()
			if f.Type == ft {
				element = v.Field(i)
			}
			children = append(children, child{at, element})
			meaning = strings.TrimSpace(fmt.Sprintf("%s See [`%s`](#%s).", meaning, at, strings.ToLower(strings.NewReplacer(".", "", "[]", "").Replace(at))))
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", key, kindWords(f), defaultWords(f, v.Field(i)), exampleWords(f, v.Field(i)), meaning)
	}
	for _, c := range children {
		section(b, docs, c.path, c.v)
	}
}

// kindWords says how a field is written.
func kindWords(f reflect.StructField) string {
	if allowed := f.Tag.Get("allowed"); allowed != "" {
		return "`" + strings.Join(strings.Fields(allowed), "`, `") + "`"
	}
	return typeWords(f.Type)
}

func typeWords(t reflect.Type) string {
	switch {
	case t == endpointType:
		return "host:port, or a mapping"
	case t.Kind() == reflect.Pointer:
		return typeWords(t.Elem())
	case t.Kind() == reflect.Slice && containsOthers(t.Elem()):
		return "list of mappings"
	case t.Kind() == reflect.Slice && t.Elem() == addrType:
		return "list of IP addresses"
	case t.Kind() == reflect.Slice && t.Elem() == prefixType:
		return "list of addresses with a length"
	case t.Kind() == reflect.Uint16:
		return "a port, 1 to 65535"
	case t.Kind() == reflect.Int64 && t != durationType:
		return "a whole number of bytes"
	case t.Kind() == reflect.Slice:
		return "list of words"
	case t.Kind() == reflect.Map, containsOthers(t):
		return "mapping"
	}
	return wanted(t)
}

// defaultWords says what an absent field means.
func defaultWords(f reflect.StructField, v reflect.Value) string {
	switch {
	case f.Tag.Get("required") != "":
		return "required"
	case v.IsZero() || f.Type.Kind() == reflect.Struct || f.Type.Kind() == reflect.Pointer || f.Name == "ControlPlane":
		return "" // or said in the comment, where it depends on other fields
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// exampleWords shows how a field may be written: as its tag says, or a value of its
// type that is like it.
func exampleWords(f reflect.StructField, v reflect.Value) string {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	example := f.Tag.Get("example")
	switch allowed := strings.Fields(f.Tag.Get("allowed")); {
	case example != "":
	case len(allowed) > 0:
		example = allowed[len(allowed)-1]
	case !v.IsZero() && (v.CanInt() || v.CanUint() || v.Kind() == reflect.String):
		example = fmt.Sprint(v.Interface())
	case t == durationType:
		example = "90s"
	case t.Kind() == reflect.Bool:
		example = "true"
	case t == endpointType:
		example = "147.75.194.92:6443"
	case t == addrType:
		example = "10.99.14.9"
	case t == secretType:
		example = "\"…\""
	case t.Kind() == reflect.Slice && t.Elem() == addrType:
		example = "[10.99.14.9, 10.99.14.11]"
	case t.Kind() == reflect.Slice && t.Elem() == prefixType:
		example = "[10.99.0.0/16]"
	default:
		return "" // a mapping has its own table; words are in the sentence
	}
	return "`" + example + "`"
}

// sentence makes one line of a Go comment, without the identifier's own name.
func sentence(comment, name string) string {
	s := strings.Join(strings.Fields(comment), " ")
	if rest, ok := strings.CutPrefix(s, name+" "); ok {
		s = strings.TrimPrefix(strings.TrimPrefix(rest, "is "), "are ")
	}
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.ReplaceAll(s[1:], "|", "\\|")
}

// TestEveryFieldIsDescribed: a key without a sentence is no use to anybody.
func TestEveryFieldIsDescribed(t *testing.T) {
	docs := comments(t)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || isScalarStruct(typ) {
			return
		}
		if docs[typ.Name()] == "" {
			t.Errorf("type %s has no comment", typ.Name())
		}
		for f := range fieldsOf(typ) {
			if docs[typ.Name()+"."+f.Name] == "" && docs[f.Type.Name()] == "" {
				t.Errorf("%s.%s has no comment", typ.Name(), f.Name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Cluster]())
}
