package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// choose lets other servers become control planes than a plan's names suggest, by one
// of the ways that a cluster file has, and returns those: as many as there are places,
// more (all), or fewer, by number. Fewer is refused where the cluster file lists the
// servers; a metadata service knows only when it is too late, so there it tells.
func (p *Plan) choose(number uint64) (may []string) {
	for _, name := range p.Names {
		if strings.HasPrefix(name, "cp") {
			may = append(may, name)
		}
	}
	switch number / 4 % 3 {
	case 1:
		may = slices.Clone(p.Names)
	case 2:
		may, p.ControlPlanes = may[:1], 3
		p.Metadata, p.Platform = metadataURL, "packet"
		number = number/4*4 + []uint64{0, 2, 2, 3}[number%4] // a list of too few is refused too
	}
	p.Tags = map[string]string{}
	switch number % 4 {
	case 0:
		p.Eligible = fmt.Sprintf("{hostname: %q}", pattern(p.Names, may))
	case 1:
		p.Eligible = "{list: [" + strings.Join(may, ", ") + "]}"
	case 2:
		p.Eligible = "{tag: rack-a}"
		for _, name := range may {
			p.Tags[name] = "rack-a"
		}
	case 3:
		p.Eligible = "{tag: muster-role}"
		for _, name := range p.Names {
			p.Tags[name] = "muster-role=worker"
		}
		for _, name := range may {
			p.Tags[name] = "muster-role=control-plane"
		}
	}
	return may
}

// pattern matches those of the names that may.
func pattern(names, may []string) string {
	switch len(may) {
	case len(names):
		return "*"
	case 1:
		return may[0]
	}
	return "cp*"
}

// roles checks who of a formed cluster became what: of those that may as many control
// planes as there are places, and workers besides.
func (r *trial) roles(may ...string) {
	r.Helper()
	var control []string
	for _, name := range r.plan.Names {
		if r.until(name, "it has a role", func(s member.Status) bool { return s.Role != member.NoRole }).Role == member.ControlPlane {
			control = append(control, name)
		}
	}
	if len(control) != min(len(may), r.plan.ControlPlanes) {
		r.Errorf("control planes are %v: expected %d of %v", control, min(len(may), r.plan.ControlPlanes), may)
	}
	for _, name := range control {
		if !slices.Contains(may, name) {
			r.Errorf("%s became a control plane, only %v may", name, may)
		}
	}
}

// A number of servers may become control planes that is not the number of places.
func TestEligible(t *testing.T) {
	// More: the places go to those that ask first, the rest are workers.
	t.Run("more than places", func(t *testing.T) {
		r := beginEligible(t, 1, []string{"a", "b", "c"}, "{tag: rack-a}", map[string]string{"a": "rack-a", "b": "rack-a"})
		r.on()
		r.formed()
		r.roles("a", "b")
	})
	// Fewer: the cluster forms with what there is, says so, and keeps the places for
	// who comes later.
	t.Run("fewer than places", func(t *testing.T) {
		r := beginEligible(t, 3, []string{"a", "b", "c"}, "{tag: muster-role}", map[string]string{"a": "muster-role=worker", "b": "muster-role=control-plane"})
		r.on()
		r.formed()
		r.roles("b")
		for _, name := range r.plan.Names {
			r.cluster(name, "1 of 3 control planes: no other server in sight may become one", "the places are kept for servers that come later")
		}
	})
	// None: each says what it lacks, and nothing is initialised.
	t.Run("none", func(t *testing.T) {
		variation(t)
		r := beginEligible(t, 1, []string{"a", "b"}, "{tag: rack-a}", map[string]string{"b": "rack-b"})
		r.on()
		r.said("a", "this server may not become a control plane", "it has no tags")
		r.said("b", "this server may not become a control plane", "its tags are rack-b")
		r.calm(5 * time.Second)
	})
}

func beginEligible(t *testing.T, controlPlanes int, names []string, eligible string, tags map[string]string) *trial {
	t.Helper()
	plan, err := NewPlan(len(names), controlPlanes, names...)
	if err != nil {
		t.Fatal(err)
	}
	plan.Eligible, plan.Tags = eligible, tags
	plan.Metadata, plan.Platform = metadataURL, "packet"
	return beginPlan(t, newSeed(t), plan)
}

// cluster waits until a server's table of the cluster holds each of the words.
func (r *trial) cluster(name string, words ...string) {
	r.Helper()
	r.until(name, "its table of the cluster says "+strings.Join(words, ", "), func(member.Status) bool {
		out, err := r.by[name].Exec(r.ctx, "bootstrap", "status")
		return err == nil && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(out, w) })
	})
}
