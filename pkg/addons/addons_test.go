package addons

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
)

func TestDecide(t *testing.T) {
	tests := []struct {
		name   string
		state  State
		first  bool
		silent time.Duration
		want   act
		why    string
	}{
		{"nothing yet, the first", State{}, true, 0, work, ""},
		{"nothing yet, another", State{}, false, takeOver - 1, wait, "the first control plane to apply"},
		{"nothing for long, another", State{}, false, takeOver, work, ""},
		{"done", State{List: "l", Holder: "b", Done: true}, false, takeOver, rest, ""},
		{"done long ago with another list", State{List: "m", Revision: 3, Holder: "me", Done: true}, true, takeOver, rest, "another list of add-ons"},
		{"another list under way", State{List: "m", Revision: 3, Holder: "me"}, true, takeOver, rest, "another list of add-ons"},
		{"mine, after a restart", State{List: "l", Holder: "me"}, false, 0, work, ""},
		{"a later revision, mine", State{List: "m", Revision: 2, Holder: "me", Done: true}, false, 0, work, ""},
		{"a later revision, another's", State{List: "m", Revision: 2, Holder: "b", Done: true}, true, takeOver - 1, wait, "instance b to apply"},
		{"a later revision, another's that is gone", State{List: "m", Revision: 2, Holder: "b", Done: true}, false, takeOver, work, ""},
		{"an earlier revision", State{List: "m", Revision: 4, Holder: "me"}, true, takeOver, rest, "of revision 4; nothing is applied from here"},
		{"another's", State{List: "l", Holder: "b"}, true, takeOver - 1, wait, "instance b to apply"},
		{"another's that stands still", State{List: "l", Holder: "b"}, false, takeOver, work, ""},
	}
	for _, tt := range tests {
		got, why := decide(tt.state, "l", 3, "me", tt.first, tt.silent)
		if got != tt.want || !strings.Contains(why, tt.why) || tt.why == "" && why != "" {
			t.Errorf("%s: %v, %q; expected %v, %q", tt.name, got, why, tt.want, tt.why)
		}
	}
}

// TestSurplus: after lists of any kind, one after the other and cut off anywhere,
// what is there is what the last list holds, and what stays of those before.
func TestSurplus(t *testing.T) {
	kinds := []string{"Deployment", "ConfigMap", "Namespace"}
	object := rapid.Custom(func(t *rapid.T) Object {
		return Object{APIVersion: "v1", Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")}
	})
	rapid.Check(t, func(t *rapid.T) {
		var s State
		var there, last []Object
		lists := rapid.IntRange(1, 4).Draw(t, "lists")
		for n := range lists {
			var list []cluster.Addon
			objects := map[string][]Object{}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 1, 3, rapid.ID).Draw(t, "list") {
				objects[name] = rapid.SliceOfN(object, 1, 3).Draw(t, "objects")
				text := ""
				for _, o := range objects[name] {
					text += o.String() + "\n"
				}
				list = append(list, cluster.Addon{Name: name, Inline: text})
			}
			s, last = begin(s, list, 0, "me"), nil
			whole := n == lists-1 || rapid.Bool().Draw(t, "whole")
			for _, a := range list {
				s = s.applied(a, objects[a.Name], true)
				there, last = unique(append(there, objects[a.Name]...)), append(last, objects[a.Name]...)
				if !whole {
					break
				}
			}
			if whole {
				gone, left := s.surplus()
				there = slices.DeleteFunc(there, func(o Object) bool { return slices.ContainsFunc(gone, o.same) })
				s = s.finished(left)
			}
		}
		for _, o := range there {
			if !slices.ContainsFunc(last, o.same) && !slices.ContainsFunc(s.Left, o.same) {
				t.Fatalf("%s is there, in no list, and not named as left", o)
			}
			if !slices.ContainsFunc(last, o.same) && !o.stays() {
				t.Fatalf("%s is there still", o)
			}
		}
		for _, o := range last {
			if !slices.ContainsFunc(there, o.same) {
				t.Fatalf("%s is of the last list and gone", o)
			}
		}
	})
}

// TestSame: versions of one API group are one object, groups are not.
func TestSame(t *testing.T) {
	ingress := Object{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Namespace: "x", Name: "a"}
	for version, want := range map[string]bool{"networking.k8s.io/v1beta1": true, "extensions/v1beta1": false, "v1": false} {
		other := ingress
		other.APIVersion = version
		if got := ingress.same(other); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func TestParseState(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		`{"version":1}`: "",
		`{"version":2}`: "it is of version 2, this muster knows version 1: another control plane has a newer one, which applies the add-ons",
		"x":             "it is not what muster writes (invalid character 'x' looking for beginning of value); delete it, and every add-on is applied anew",
	} {
		_, err := parseState(text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", text, diff)
		}
	}
}
