// Package change says what a changed cluster file means for a cluster: what its
// servers take up as they run, what only servers to come do, and what needs a new
// cluster.
//
// Floor 1.
package change

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Effect is how far a change reaches.
type Effect string

// Effects, from the lightest.
const (
	// Apply: the servers of a running cluster take it up.
	Apply Effect = "apply"
	// Later: only servers that boot with new user-data have it.
	Later Effect = "later-servers"
	// Anew: it was settled when the cluster formed. To change it takes a new cluster.
	Anew Effect = "new-cluster"
)

// Change is one field that differs.
type Change struct {
	Path   string `json:"path"`          // spec.static[cp1].addresses
	Old    string `json:"old,omitempty"` // empty: it was not there; secrets are hidden
	New    string `json:"new,omitempty"` // empty: it is not there
	Effect Effect `json:"effect"`
	Why    string `json:"why"`
}

// Between lists what differs between two cluster files, in the order of the types.
// Elements of a list are the same when their names are.
func Between(was, is cluster.Cluster) []Change {
	var d differ
	d.value("", "", reflect.ValueOf(was), reflect.ValueOf(is))
	return d.changes
}

// Worst is the farthest reaching effect of some changes, "" of none.
func Worst(changes []Change) Effect {
	worst := Effect("")
	for _, c := range changes {
		if rank(c.Effect) > rank(worst) {
			worst = c.Effect
		}
	}
	return worst
}

func rank(e Effect) int { return slices.Index([]Effect{"", Apply, Later, Anew}, e) }

// titles of the effects, in the order in which they are told.
var titles = []struct {
	effect Effect
	title  string
}{
	{Anew, "Needs a new cluster (userdata init: a new spec.id), or cannot be changed by the file:"},
	{Later, "Only servers that boot with new user-data have it:"},
	{Apply, "A running cluster takes it up, with `bootstrap apply`, which starts the agents again:"},
}

// Text tells changes to a person.
func Text(changes []Change) string {
	var b strings.Builder
	for _, t := range titles {
		title := t.title + "\n"
		for _, c := range changes {
			if c.Effect != t.effect {
				continue
			}
			b.WriteString(title)
			title = ""
			fmt.Fprintf(&b, "  %s: %s -> %s\n      %s\n", c.Path, orNothing(c.Old), orNothing(c.New), c.Why)
		}
	}
	if len(changes) == 0 {
		b.WriteString("nothing differs\n")
	}
	return b.String()
}

func orNothing(value string) string {
	if value == "" {
		return "(nothing)"
	}
	return value
}

type differ struct{ changes []Change }

// value compares two values at a path; field is the path without the names of
// elements, as the table of effects has it.
func (d *differ) value(path, field string, was, is reflect.Value) {
	t := was.Type()
	switch {
	case t.Kind() == reflect.Struct && !isWord(t):
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			d.value(join(path, key), join(field, key), was.Field(i), is.Field(i))
		}
	case isListOfStructs(t):
		d.list(path, field+"[]", was, is)
	case !equal(was, is):
		d.add(path, field, was, is)
	}
}

// list compares lists of structs element by element.
func (d *differ) list(path, field string, was, is reflect.Value) {
	before, after := byName(was), byName(is)
	zero := reflect.Zero(was.Type().Elem())
	for _, name := range before.order {
		at := path + "[" + name + "]"
		if e, there := after.named[name]; there {
			d.value(at, field, before.named[name], e)
		} else {
			d.add(at, field, before.named[name], zero)
		}
	}
	for _, name := range after.order {
		if _, there := before.named[name]; !there {
			d.add(path+"["+name+"]", field, zero, after.named[name])
		}
	}
}

func (d *differ) add(path, field string, was, is reflect.Value) {
	r, known := rules[field]
	if !known { // the test of the table keeps this from happening
		r = rule{Anew, "this program does not know what it means"}
	}
	d.changes = append(d.changes, Change{Path: path, Old: text(was), New: text(is), Effect: r.effect, Why: r.why})
}

// elements of a list by their names.
type elements struct {
	order []string
	named map[string]reflect.Value
}

// byName finds what tells the elements of a list apart: the first field that
// people would name them by, else their place.
func byName(list reflect.Value) elements {
	e := elements{named: map[string]reflect.Value{}}
	for i := range list.Len() {
		item := list.Index(i)
		name := ""
		for _, key := range []string{"ID", "Hostname", "Name", "Address", "Port", "PeerIPs"} {
			if f := item.FieldByName(key); name == "" && f.IsValid() && !f.IsZero() {
				name = text(f)
			}
		}
		if _, twice := e.named[name]; twice || name == "" {
			name = fmt.Sprint(i)
		}
		e.order = append(e.order, name)
		e.named[name] = item
	}
	return e
}

// isWord says that a struct is written as one word.
func isWord(t reflect.Type) bool {
	return t == reflect.TypeFor[netip.Addr]() || t == reflect.TypeFor[netip.Prefix]()
}

func isListOfStructs(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !isWord(t.Elem())
}

// equal says that two values mean the same: an empty list is none.
func equal(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Slice || k == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// text is a value on one line, without secrets, "" for nothing.
func text(v reflect.Value) string {
	if v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return ""
	}
	return cluster.Line(v.Interface())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
