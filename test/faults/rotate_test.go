package faults

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// The secret of a formed cluster changes, server by server: a step too early is
// refused, all see each other after each, and a server that comes later needs the new
// secret. The speaker, kubelet and kubeadm notice nothing.
func TestRotateSecret(t *testing.T) {
	variation(t)
	names := []string{"cp1", "w1", "w2"}
	r := begin(t, 3, 1, names...)
	r.on()
	r.formed()
	kubelet, err := r.by["cp1"].Started(layout.UnitKubelet)
	r.must(err)

	secret, err := cluster.NewSecret(rand.Reader)
	r.must(err)
	const at = "/run/new.secret"
	for _, name := range names {
		_, err := r.by[name].Exec(r.ctx, "sh", "-c", "umask 077; echo "+secret.Reveal()+" > "+at)
		r.must(err)
	}
	refused := func(name, step, why string) {
		t.Helper()
		out, err := r.by[name].Exec(r.ctx, "bootstrap", "rotate", step, "--secret", at, "--yes")
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s on %s: %v, %s; want a refusal with %q", step, name, err, out, why)
		}
	}
	for _, step := range []string{"accept", "use", "forget"} {
		for i, name := range names {
			switch {
			case step == "use" && i == 0: // all accept; none is to forget
				refused(name, "forget", "bootstrap rotate use comes first")
			case step == "accept" && i == 1: // the first does, the third does not
				refused("cp1", "use", "w2 (")
			}
			r.operate(name, "bootstrap", "rotate", step, "--secret", at, "--yes")
			for _, witness := range names {
				r.sight(witness, names...)
			}
		}
	}
	if out := r.operate("w2", "bootstrap", "rotate", "forget", "--secret", at, "--yes"); !strings.Contains(out, "Nothing to do") {
		t.Errorf("a step twice: %s", out)
	}
	r.formed()
	if again, err := r.by["cp1"].Started(layout.UnitKubelet); err != nil || again.Sub(kubelet).Abs() > time.Second {
		t.Errorf("the kubelet was started anew: %v, %v, %v", kubelet, again, err)
	}
	// A server that comes back with the old secret is not heard.
	r.must(r.by["w2"].Wipe(r.ctx))
	r.on("w2")
	r.pause(10 * time.Second)
	if s, err := r.by["w2"].Status(r.ctx); err != nil || s.Decree.Votes > 1 {
		t.Errorf("with the old secret w2 sees others: %+v, %v", s.Decree, err)
	}
}

// sight waits until a server has an answer from each of the others.
func (r *trial) sight(name string, all ...string) {
	r.Helper()
	r.until(name, "it sees "+strings.Join(all, ", "), func(member.Status) bool {
		list, err := r.by[name].All(r.ctx)
		answers := map[string]bool{}
		for _, s := range list {
			answers[s.Name] = answers[s.Name] || !s.Time.IsZero()
		}
		for _, n := range all {
			if !answers[n] {
				err = errors.Join(err, errors.New(n))
			}
		}
		return err == nil
	})
}
