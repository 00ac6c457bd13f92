package cluster

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Hidden stands where a secret was.
const Hidden = "REDACTED"

// secretName is what keys of secrets are called in what is passed on to others.
var secretName = regexp.MustCompile(`(?i)(secret|password|passwd|token|auth)$`)

// Redacted is a copy of a cluster for people to look at: without the secrets that
// belong into files of their own, and with Hidden for every other.
func Redacted(c Cluster) Cluster {
	c = hide(reflect.ValueOf(c)).Interface().(Cluster)
	c.Secret, c.AcceptSecret, c.APIToken = "", "", ""
	return c
}

// Line writes a value of a cluster file on one line for people to look at, with
// Hidden for secrets.
func Line(v any) string {
	n, err := encode(hide(reflect.ValueOf(v)))
	if err != nil {
		return fmt.Sprint(v)
	}
	flow(n)
	data, err := yaml.Marshal(n)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

// flow writes all that is in a node on one line.
func flow(n *yaml.Node) {
	n.Style |= yaml.FlowStyle
	for _, c := range n.Content {
		flow(c)
	}
}

// hide copies a value with all that is in it, secrets hidden.
func hide(v reflect.Value) reflect.Value {
	copied := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Struct:
		copied.Set(v) // unexported fields: netip's
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				copied.Field(i).Set(hide(v.Field(i)))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		copied.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			copied.Index(i).Set(hide(v.Index(i)))
		}
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		copied.Set(reflect.MakeMap(v.Type()))
		for key, e := range v.Seq2() {
			if text, is := e.Interface().(string); is && text != "" && secretName.MatchString(key.String()) {
				e = reflect.ValueOf(Hidden)
			} else {
				e = hide(e)
			}
			copied.SetMapIndex(key, e)
		}
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return v
		}
		inner := hide(v.Elem())
		if v.Kind() == reflect.Pointer {
			to := reflect.New(v.Type().Elem())
			to.Elem().Set(inner)
			inner = to
		}
		copied.Set(inner)
	case reflect.String:
		copied.Set(v)
		switch {
		case v.Type() == secretType && v.String() != "":
			copied.SetString(Hidden)
		case strings.Contains(v.String(), "PRIVATE KEY-----"):
			copied.SetString(Hidden)
		}
	default:
		copied.Set(v)
	}
	return copied
}
