package change

import (
	"reflect"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Follow is the cluster file by which a server runs whose own is another than the
// spec of its cluster: what servers take up as they run is the spec's, all else
// stays its own.
func Follow(own, spec cluster.Cluster) cluster.Cluster {
	return follow("", reflect.ValueOf(own), reflect.ValueOf(spec)).Interface().(cluster.Cluster)
}

// follow merges two values of a field, as the table of effects has it.
func follow(field string, own, spec reflect.Value) reflect.Value {
	t := own.Type()
	switch {
	case t.Kind() == reflect.Struct && !isWord(t):
		merged := reflect.New(t).Elem()
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			merged.Field(i).Set(follow(join(field, key), own.Field(i), spec.Field(i)))
		}
		return merged
	case isListOfStructs(t):
		if rules[field+"[]"].effect != Apply {
			return own
		}
		return followList(field+"[]", own, spec)
	case rules[field].effect == Apply:
		return spec
	}
	return own
}

// followList has the elements of the spec's list. Of spec.static the server's own
// stay besides: without its description it would not know itself any more.
func followList(field string, own, spec reflect.Value) reflect.Value {
	before, after := byName(own), byName(spec)
	merged := reflect.New(own.Type()).Elem()
	for _, name := range after.order {
		e := after.named[name]
		if mine, there := before.named[name]; there {
			e = follow(field, mine, e)
		}
		merged.Set(reflect.Append(merged, e))
	}
	for _, name := range before.order {
		if _, there := after.named[name]; !there && field == "spec.static[]" {
			merged.Set(reflect.Append(merged, before.named[name]))
		}
	}
	return merged
}
