package cluster

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// scalar decodes one word into v.
func (d *decoder) scalar(n *yaml.Node, path string, tag reflect.StructTag, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.refuse(n, path, "write one value after the key", "%s, expected %s", describe(n), wanted(v.Type()))
		return
	}
	switch {
	case v.Type() == durationType:
		d.duration(n, path, v)
	case v.Type() == prefixType:
		d.prefix(n, path, v)
	case v.Type() == addrType:
		d.address(n, path, v)
	case v.Kind() == reflect.String:
		d.text(n, path, tag, v)
	case v.Kind() == reflect.Bool:
		d.boolean(n, path, v)
	default:
		d.number(n, path, v)
	}
}

func (d *decoder) text(n *yaml.Node, path string, tag reflect.StructTag, v reflect.Value) {
	shown := strconv.Quote(abbreviate(n.Value))
	if v.Type() == secretType {
		shown = "a secret" // problems are printed, and pasted into chats
	}
	allowed := strings.Fields(tag.Get("allowed"))
	switch {
	case n.Tag != "!!str":
		d.refuse(n, path, "write it in quotes", "%s is %s to YAML, expected text", strings.Trim(shown, `"`), kindOf(n))
	case len(allowed) > 0 && !slices.Contains(allowed, n.Value):
		hint := "allowed: " + strings.Join(allowed, ", ")
		if near := nearest(n.Value, allowed); near != "" && len(allowed) > 1 {
			hint = "did you mean " + near + "? " + hint
		}
		d.refuse(n, path, hint, "%s is not allowed", shown)
	case n.Value == "":
		d.refuse(n, path, "give it a value, or remove the key", "has no value")
	default:
		v.SetString(n.Value)
	}
}

func (d *decoder) boolean(n *yaml.Node, path string, v reflect.Value) {
	if n.Tag != "!!bool" {
		d.refuse(n, path, "allowed: true, false (without quotes)", "%s is not a truth value", quoted(n))
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

// number decodes a whole number in decimal: octal and hexadecimal are accepted by
// YAML, and never what was meant here.
func (d *decoder) number(n *yaml.Node, path string, v reflect.Value) {
	low, high := 0.0, float64(math.MaxInt32)
	switch v.Kind() {
	case reflect.Uint16:
		high = math.MaxUint16
	case reflect.Uint32:
		high = math.MaxUint32
	case reflect.Int64:
		high = 1 << 53 // bytes: as far as every reader of JSON counts exactly
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Tag == "!!str" && err == nil {
		d.refuse(n, path, "remove the quotes", "%s is text, expected a whole number", quoted(n))
		return
	}
	if err != nil || float64(i) < low || float64(i) > high {
		d.refuse(n, path, "write it in digits", "%s is not a whole number from %.0f to %.0f", quoted(n), low, high)
		return
	}
	if v.CanInt() {
		v.SetInt(i)
	} else {
		v.SetUint(uint64(i))
	}
}

func (d *decoder) duration(n *yaml.Node, path string, v reflect.Value) {
	t, err := time.ParseDuration(n.Value)
	if err != nil {
		d.refuse(n, path, "a number with a unit: 90s, 5m, 1h30m", "%s is not a duration", quoted(n))
		return
	}
	v.SetInt(int64(t))
}

func (d *decoder) address(n *yaml.Node, path string, v reflect.Value) {
	a, err := netip.ParseAddr(n.Value)
	switch {
	case err != nil && strings.Contains(n.Value, "/"):
		d.refuse(n, path, "leave the /"+n.Value[strings.Index(n.Value, "/")+1:]+" off", "%s is a range, expected one address", quoted(n))
	case err != nil:
		d.refuse(n, path, "such as 10.99.14.9 or fd00::9", "%s is not an IP address", quoted(n))
	case a.Zone() != "" || a.Is4In6():
		d.refuse(n, path, "write "+a.Unmap().WithZone("").String(), "%s has a zone or hides an IPv4 address", quoted(n))
	default:
		v.Set(reflect.ValueOf(a))
	}
}

func (d *decoder) prefix(n *yaml.Node, path string, v reflect.Value) {
	p, err := netip.ParsePrefix(n.Value)
	switch {
	case err != nil:
		hint := "an address, a slash and a length, such as 172.16.0.0/12 or fd00:10::/56"
		if a, err := netip.ParseAddr(n.Value); err == nil {
			hint = fmt.Sprintf("add the length: %s/%d is this one address", a, a.BitLen())
		}
		d.refuse(n, path, hint, "%s is not an address with a length", quoted(n))
	case p.Addr().Is4In6():
		d.refuse(n, path, "write it as IPv4", "%s hides an IPv4 address", quoted(n))
	default:
		v.Set(reflect.ValueOf(p))
	}
}

// unknown reports a key that nothing in t is called, and returns the key that was
// probably meant, or "".
func (d *decoder) unknown(kn *yaml.Node, path string, t reflect.Type) string {
	keys := keysOf(t)
	hint := "keys here: " + strings.Join(keys, ", ")
	near := nearest(kn.Value, keys)
	if kn.Value == "<<" {
		hint = "write the values out; anchors and merge keys are not supported"
	} else if elsewhere := calledElsewhere[kn.Value]; elsewhere != "" {
		hint = elsewhere
	} else if near != "" {
		hint = "did you mean " + near + "?"
	} else if right := pathOf(kn.Value, reflect.TypeFor[Cluster](), ""); right != "" {
		hint = "it belongs at " + right + "; " + hint
	}
	d.add(SeverityError, place{kn.Line, kn.Column}, join(path, abbreviate(kn.Value)), hint, "unknown key")
	return near
}

// calledElsewhere are keys that people know from other tools or other pages, and
// what they are here.
var calledElsewhere = map[string]string{
	"cloud-provider":       "write kubernetes.cloudProvider: external",
	"podSubnet":            "write podSubnets: [172.16.0.0/12], a list",
	"podCIDR":              "write kubernetes.podSubnets: [172.16.0.0/12], a list",
	"serviceSubnet":        "write serviceSubnets: [192.168.0.0/16], a list",
	"serviceCIDR":          "write kubernetes.serviceSubnets: [192.168.0.0/16], a list",
	"controlPlaneEndpoint": "write kubernetes.endpoint: IP:6443",
	"kubernetesVersion":    "write kubernetes.version: v1.36.3",
	"clusterName":          "write metadata.name",
	"replicas":             "write servers.expect, all servers, and servers.controlPlanes, how many of them are control planes",
	"workers":              "servers.expect counts all servers; those that are no control planes are workers",
	"certificateKey":       "leave it out: agents hand the keys over",
	"vip":                  "write network.elasticIPs: [{address: IP/32, on: control-planes}] and kubernetes.endpoint: IP:6443",
	"cni":                  "write spec.addons: [{name: cni, file: FILE}]",
}

// pathOf finds the first place below t where a key is known.
func pathOf(key string, t reflect.Type, path string) string {
	if t.Kind() == reflect.Slice {
		return pathOf(key, t.Elem(), path+"[]")
	}
	if t.Kind() != reflect.Struct || isScalarStruct(t) {
		return ""
	}
	if slices.Contains(keysOf(t), key) {
		return join(path, key)
	}
	for f := range fieldsOf(t) {
		if found := pathOf(key, f.Type, join(path, fieldKey(f))); found != "" {
			return found
		}
	}
	return ""
}

// fieldsOf yields the fields of a struct type in order.
func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// nearest returns the known word that was probably meant by word, "" when none is
// close: at most a third of its letters differ, capitals aside.
func nearest(word string, known []string) string {
	if len(word) > 40 { // longer than every key; the distance would take its time
		return ""
	}
	best, distance := "", len(word)/3+1
	for _, k := range known {
		if n := edits(strings.ToLower(word), strings.ToLower(k)); n < distance {
			best, distance = k, n
		}
	}
	return best
}

// edits is the Levenshtein distance of two words in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// isNull says that a node is nothing: an empty value, ~ or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// isPlain says that JSON has a word for x.
func isPlain(x any) bool {
	switch x := x.(type) {
	case nil, bool, int, int64, uint64, string:
		return true
	case float64:
		return !math.IsNaN(x) && !math.IsInf(x, 0)
	}
	return false
}

// describe says what stands at a node, to begin a message with.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "is a mapping"
	case yaml.SequenceNode:
		return "is a list"
	}
	return "is " + quoted(n)
}

// quoted shows a scalar's value as it stands, shortened.
func quoted(n *yaml.Node) string { return strconv.Quote(abbreviate(n.Value)) }

// kindOf names what YAML takes a scalar for.
func kindOf(n *yaml.Node) string {
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth value"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	}
	return "a " + strings.TrimPrefix(n.Tag, "!!")
}

// wanted names what a type is written as.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 5m"
	case t == prefixType:
		return "an address with a length"
	case t == addrType:
		return "an IP address"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a whole number"
}

// abbreviate keeps a value short enough for one line of a terminal.
func abbreviate(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
