package bootstrap

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/member"
)

func TestTwoHistories(t *testing.T) {
	spec := func(revision uint64, text string) member.Spec { return member.Spec{Revision: revision, Text: text} }
	for _, tt := range []struct {
		name            string
		running, newest member.Spec
		behind          bool
		want            string // its beginning
	}{
		{"the same", spec(3, "a"), spec(3, "a"), false, ""},
		{"the same, not sent again", spec(3, "a"), spec(3, ""), false, ""},
		{"a later one", spec(3, "a"), spec(4, "b"), false, ""},
		{"its own cluster file", spec(0, ""), spec(0, "a"), false, ""},
		{"another of that number", spec(3, "a"), spec(3, "b"), false,
			"this server runs by another revision 3 of the spec than the cluster (sha256 ca978112ca1b, there 3e23e8160039): the directory was lost"},
		{"one on its way", spec(4, "b"), spec(3, "a"), false, ""},
		{"one that nobody else has", spec(4, "b"), spec(3, "a"), true, "this server runs by revision 4 of the spec, and the cluster has 3: the directory was lost"},
	} {
		if got := twoHistories(tt.running, tt.newest, tt.behind); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, expected %q", tt.name, got, tt.want)
		}
	}
}

// TestAnotherSpecOfThatNumber: the directory was lost with what this server keeps, and an
// apply to the one that was made again got the same number. Control planes and workers
// say so until the next apply, which all take.
func TestAnotherSpecOfThatNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		w.add("cp2", len(w.servers))
		w.named("cp2").joinCA = w.named("cp1").caHash()
		w.boot("cp2") // one more than K: a worker
		w.formed(10*time.Minute, "cp1", "cp2")
		if _, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.1"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		w.mu.Lock()
		other := *w.book.spec
		other.Text = strings.Replace(other.Text, "v1.37.1", "v1.37.2", 1)
		w.book.spec = &other
		w.mu.Unlock()
		pass(time.Minute)
		for _, name := range []string{"cp1", "cp2"} {
			if got := w.named(name).server.Status(t.Context()).Problem; !strings.Contains(got, "this server runs by another revision 1 of the spec than the cluster") {
				t.Errorf("%s has the problem %q", name, got)
			}
		}
		if r, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.3"); err != nil || r.Is != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		pass(time.Minute)
		for _, name := range []string{"cp1", "cp2"} {
			s := w.named(name).server.Status(t.Context())
			if s.Problem != "" || s.Spec.Revision != 2 || !strings.Contains(w.named(name).kept.Text, "v1.37.3") {
				t.Errorf("%s runs by revision %d, problem %q", name, s.Spec.Revision, s.Problem)
			}
		}
	})
}

// TestLostNumberIsNotGivenAgain: revisions up to 5 were applied, and the directory that
// was made again has 0. Whoever expects that may go on, above 5.
func TestLostNumberIsNotGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrowing(t)
		defer w.shutdown()
		w.mu.Lock()
		was := w.book.configMaps[specMap]
		w.book.configMaps[specMap] = versioned{map[string]string{"revision": "5", "cluster.yaml": "lost"}, was.version + 1}
		w.mu.Unlock()
		_, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.1")
		if !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), "If none does, apply with --revision 0: what you apply becomes revision 6") {
			t.Errorf("without --revision: %v", err)
		}
		zero := uint64(0)
		if r, err := w.apply("cp1", false, &zero, "v1.37.0", "v1.37.1"); err != nil || r.Was != 0 || r.Is != 6 {
			t.Errorf("looked at: %+v, %v", r, err)
		}
		if r, err := w.apply("cp1", true, &zero); err != nil || r.Is != 6 {
			t.Errorf("with nothing that differs: %+v, %v", r, err)
		}
		pass(time.Minute)
		if s := w.status("cp1"); s.Spec.Revision != 6 || s.Problem != "" {
			t.Errorf("it runs by revision %d, problem %q", s.Spec.Revision, s.Problem)
		}
		if r, err := w.apply("cp1", true, nil, "v1.37.0", "v1.37.1"); err != nil || r.Is != 7 {
			t.Errorf("and on: %+v, %v", r, err)
		}
	})
}
